/** Several languages: their shares, batches that follow them, validation of all of them, and vocabularies by shares. */
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { openCorpus, prepareData } from 'voltaic'
import type { BatchState, LanguageSegments } from '../../dist/data/index.js'
import { createLanguageBatchStream, languageShares } from '../../dist/data/index.js'
import { concatenateSegments, interleaveSegments } from '../../dist/data/languages.js'
import { createSegments } from '../../dist/data/segments.js'
import { openLanguages, trainTokenizer } from '../../dist/training/vocabulary.js'
import { cls, contents, sep, storeOf } from './store.js'

const sequenceLength = 16

/** A language whose tokens are all `token`; a document for each length. */
function language(token: number, lengths: readonly number[], share: number): LanguageSegments {
  const documents = lengths.map((length) => [Array.from({ length }, () => token)])
  const segments = createSegments(storeOf(documents), {
    ...{ kind: 'packed', sequenceLength, clsTokenId: cls, sepTokenId: sep, seed: 1 },
  })
  return { name: `language ${token}`, segments, share }
}

t.test('a share is the power of a part', async (t) => {
  const [large, small] = languageShares([900, 100], 0.7) as [number, number]
  t.ok(Math.abs(large / small - 9 ** 0.7) < 1e-12)
  t.ok(Math.abs(large + small - 1) < 1e-12)
  const parts = languageShares([3, 1], 1)
  t.ok(Math.abs((parts[0] as number) - 0.75) < 1e-12, 'exponent 1 keeps the parts')
  t.same(languageShares([7, 1, 90], 0), [1 / 3, 1 / 3, 1 / 3], 'exponent 0 makes all alike')
  t.same(languageShares([8, 2]), languageShares([8, 2], 0.7))
  for (const exponent of [-0.1, 1.1, Number.NaN])
    t.throws(() => languageShares([1, 2], exponent), { code: 'ERR_ARGUMENT', message: /language exponent/ })
  t.throws(() => languageShares([1, 0]), { code: 'ERR_ARGUMENT' })
})

t.test('the tokens of batches have the shares, whatever the lengths of documents', async (t) => {
  // Segments of 16, of 8, and of 4 tokens with specials, in very different numbers.
  const lengths = (length: number, count: number) => Array.from({ length: count }, () => length)
  const shares = languageShares([14 * 4000, 6 * 600, 2 * 90], 0.5)
  const languages = [language(20, lengths(14, 4000), shares[0] as number)]
  languages.push(language(30, lengths(6, 600), shares[1] as number))
  languages.push(language(40, lengths(2, 90), shares[2] as number))
  const stream = createLanguageBatchStream({ languages, batchSize: 64, seed: 3 })
  const counts = new Map<number, number>()
  let tokens = 0
  for (let step = 0; step < 200; step++) {
    const { ids, offsets } = stream.next()
    t.equal(ids.length, 64 * sequenceLength)
    for (let at = 0; at + 1 < offsets.length; at++) {
      const [begin, end] = [offsets[at] as number, offsets[at + 1] as number]
      const of = ids[begin + 1] as number
      counts.set(of, (counts.get(of) ?? 0) + end - begin)
      tokens += end - begin
    }
  }
  for (const [at, of] of [20, 30, 40].entries()) {
    const got = (counts.get(of) as number) / tokens
    const expected = shares[at] as number
    // 204,800 tokens are some 15,000 draws: a standard error of 0.004 at most. Each batch's cut adds 2 tokens of 1,024.
    t.ok(Math.abs(got - expected) < 0.015, `${of}: ${got}, expected ${expected}`)
  }
})

const anyLanguages = fc
  .record({
    lengths: fc.array(fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 9 }), {
      minLength: 1,
      maxLength: 4,
    }),
    exponent: fc.constantFrom(0, 0.3, 0.7, 1),
    batchSize: fc.integer({ min: 1, max: 4 }),
    seed: fc.nat(10_000),
  })
  .map(({ lengths, exponent, ...rest }) => {
    const shares = languageShares(
      lengths.map((documents) => documents.reduce((sum, length) => sum + length, 0)),
      exponent,
    )
    // Every token of its own, and every language's from its own thousand on.
    const languages = lengths.map((documents, at): LanguageSegments => {
      let next = 1000 * (at + 1)
      const store = storeOf(documents.map((length) => [Array.from({ length }, () => next++)]))
      const segments = createSegments(store, {
        ...{ kind: 'packed', sequenceLength, clsTokenId: cls, sepTokenId: sep, seed: 1 },
      })
      return { name: `${at}`, segments, share: shares[at] as number }
    })
    return { ...rest, languages }
  })

t.test('each language gives each of its tokens once an epoch', async (t) => {
  const property = fc.property(anyLanguages, ({ languages, batchSize, seed }) => {
    const stream = createLanguageBatchStream({ languages, batchSize, seed })
    const seen = languages.map((): number[] => [])
    for (let step = 0; step < 60; step++) {
      for (const id of stream.next().ids) if (id >= 1000) seen[Math.floor(id / 1000) - 1]?.push(id)
    }
    return languages.every(({ segments }, at) => {
      const all = contents(segments).flatMap(({ ids }) => ids)
      const got = seen[at] ?? []
      for (let begin = 0; begin + all.length <= got.length; begin += all.length) {
        const epoch = new Set(got.slice(begin, begin + all.length))
        if (epoch.size !== all.length) return false
      }
      return true
    })
  })
  t.doesNotThrow(() => fc.assert(property))
})

t.test('a stream resumes from its state at any step with the same batches', async (t) => {
  const property = fc.property(anyLanguages, fc.nat(25), ({ languages, batchSize, seed }, steps) => {
    const stream = createLanguageBatchStream({ languages, batchSize, seed })
    for (let step = 0; step < steps; step++) stream.next()
    const state = JSON.parse(JSON.stringify(stream.state)) as BatchState
    const resumed = createLanguageBatchStream({ languages, batchSize, seed, state })
    for (let step = 0; step < 8; step++) {
      if (JSON.stringify(resumed.next()) !== JSON.stringify(stream.next())) return false
      if (JSON.stringify(resumed.state) !== JSON.stringify(stream.state)) return false
    }
    return true
  })
  t.doesNotThrow(() => fc.assert(property))
})

t.test('a state of other data and a damaged one are refused', async (t) => {
  const languages = [language(20, [30, 30], 0.5), language(30, [30], 0.5)]
  const { state } = createLanguageBatchStream({ languages, batchSize: 1, seed: 1 })
  const parts = state.languages as NonNullable<BatchState['languages']>
  const refuse = (changed: BatchState, given = languages): void => {
    t.throws(() => createLanguageBatchStream({ languages: given, batchSize: 1, seed: 1, state: changed }), {
      code: 'ERR_FORMAT',
    })
  }
  const { languages: _, ...single } = state
  refuse(single)
  refuse(state, languages.slice(0, 1))
  refuse(state, [language(20, [30], 0.5), language(30, [30], 0.5)])
  refuse({ ...state, offset: -1 })
  refuse({ ...state, languages: { ...parts, current: 2 } })
  refuse({ ...state, languages: { ...parts, draws: 0.5 } })
  t.throws(() => createLanguageBatchStream({ languages: [], batchSize: 1, seed: 1 }), {
    code: 'ERR_ARGUMENT',
  })
  t.throws(() => createLanguageBatchStream({ languages, batchSize: 0, seed: 1 }), { code: 'ERR_ARGUMENT' })
})

t.test('joined segments are all of the parts; interleaved, any beginning is of all', async (t) => {
  const parts = [language(20, Array(60).fill(5), 1), language(30, Array(20).fill(5), 1)].map(
    ({ segments }) => segments,
  )
  const joined = concatenateSegments(parts)
  t.equal(joined.count, 80)
  t.equal(joined.totalTokens, 80 * 7)
  t.same(contents(joined), parts.flatMap(contents))
  const mixed = contents(interleaveSegments(parts)).map(({ ids }) => ids[0] as number)
  t.same(
    [...mixed].sort(),
    contents(joined).map(({ ids }) => ids[0] as number),
  )
  for (let end = 4; end <= 80; end += 4)
    t.equal(mixed.slice(0, end).filter((id) => id === 30).length, end / 4, `of the first ${end}`)
})

const folder = t.testdir({
  'large.txt': Array.from({ length: 300 }, (_, n) => `gamma delta kappa ${n % 7}`).join('\n\n'),
  'small.txt': Array.from({ length: 20 }, () => 'приветик мираж 日').join('\n\n'),
  'one.txt': 'ένα μόνο κείμενο εδώ',
})
const files = {
  large: [join(folder, 'large.txt')],
  small: [join(folder, 'small.txt')],
  one: [join(folder, 'one.txt')],
}

t.test("words of a vocabulary count by their languages' shares", async (t) => {
  const options = { vocabSize: 100, cased: true, minFrequency: 30 }
  const merged = async (exponent: number): Promise<string[]> => {
    const text = await openLanguages({ large: files.large, small: files.small }, exponent)
    const { vocabulary } = await trainTokenizer(text, options)
    return vocabulary.filter((token) => /^(##)?[а-я]{2,}$/.test(token))
  }
  // 20 documents of a language are fewer than 30; as many as the other's 300, each word comes some 290 times.
  t.same(await merged(1), [], 'as large as it is, the small language has no pair seen 30 times')
  t.ok((await merged(0)).includes('приветик'), 'as large as the other, all its words')
  const balanced = await openLanguages({ large: files.large, small: files.small })
  const corpus = await openCorpus(files.large)
  const [first, again, alone] = [
    await trainTokenizer(balanced, options),
    await trainTokenizer(balanced, options),
    await trainTokenizer(corpus, options),
  ]
  t.same(first.vocabulary, again.vocabulary)
  t.same(
    (await trainTokenizer(await openLanguages({ large: files.large }), options)).vocabulary,
    alone.vocabulary,
    'one language is a corpus',
  )
  await t.rejects(openLanguages({}), { code: 'ERR_ARGUMENT' })
  await t.rejects(openLanguages({ a: [] }), { code: 'ERR_ARGUMENT' })
  await t.rejects(openLanguages({ a: files.large }, 2), { code: 'ERR_ARGUMENT' })
})

t.test('prepared data has every language, and validation documents of those with enough', async (t) => {
  const text = await openLanguages(files, 1)
  const tokenizer = await trainTokenizer(text, { vocabSize: 200, cased: true })
  const prepare = (changes: object) =>
    prepareData({ tokenizer, sequenceLength: 16, output: join(folder, 'out'), threads: 1, ...changes })
  const data = await prepare({ languages: files, languageExponent: 0.5 })
  const { statistics } = data
  t.same(
    statistics.languages.map(({ name, documents }) => [name, documents]),
    [
      ['large', 294],
      ['small', 20],
      ['one', 1],
    ],
  )
  t.equal(statistics.validation?.documents, 6)
  t.equal(statistics.train.documents, 315)
  t.same(
    statistics.languages.map(({ share }) => share),
    languageShares(
      statistics.languages.map(({ tokens }) => tokens),
      0.5,
    ),
  )
  data.close()
  const reused = await prepare({ languages: files, languageExponent: 1 })
  t.equal(reused.statistics.reused, true)
  t.equal(reused.statistics.fingerprint, statistics.fingerprint, 'the tokens do not depend on the exponent')
  reused.close()
  await t.rejects(prepare({ languages: files, corpus: files.one }), { code: 'ERR_ARGUMENT' })
  await t.rejects(prepare({}), { code: 'ERR_ARGUMENT' })
  await t.rejects(prepare({ languages: files, languageExponent: 3 }), { code: 'ERR_ARGUMENT' })
})
