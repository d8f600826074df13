/** The front door: from file names to training and validation segments, and all that can be wrong with them. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { openCorpus, type PrepareDataOptions, type PreparedData, prepareData } from '../../dist/data/index.js'
import { needsSharedData, sharedData } from '../helpers/shared.js'
import { contents } from './store.js'
import { madeUpText, tokenizer } from './text.js'

function prepare(
  options: Partial<PrepareDataOptions> & Pick<PrepareDataOptions, 'corpus' | 'output'>,
): Promise<PreparedData> {
  return prepareData({ tokenizer, sequenceLength: 16, threads: 2, ...options })
}

const idsOf = (text: string): number[] => [...tokenizer.encodeBytes(Buffer.from(text))]

t.test('every 50th document is for validation, from the first; the others are for training', async (t) => {
  const text = madeUpText(3, 60_000)
  const folder = t.testdir({ 'a.txt': text })
  const documents = text.trimEnd().split('\n\n')
  const data = await prepare({ corpus: [join(folder, 'a.txt')], output: folder })
  const ids = (segments: PreparedData['validation']): number[] =>
    segments === undefined ? [] : contents(segments).flatMap(({ ids }) => ids)
  t.same(ids(data.validation), documents.filter((_, n) => n % 50 === 0).flatMap(idsOf))
  t.same(ids(data.train), documents.filter((_, n) => n % 50 !== 0).flatMap(idsOf))
  const { train, validation } = data.statistics
  t.equal(train.documents + (validation?.documents ?? 0), documents.length)
  t.equal(train.tokens, ids(data.train).length + 2 * train.segments)
  t.equal(train.discardedTokens, 0)
  data.close()

  const none = await prepare({ corpus: [join(folder, 'a.txt')], output: folder, validationFraction: 0 })
  t.equal(none.validation, undefined)
  t.same(ids(none.train), documents.flatMap(idsOf))
  t.ok(none.statistics.reused, 'another split needs no new shards')
  t.not(none.statistics.fingerprint, data.statistics.fingerprint, 'but is other data')
  none.close()
})

t.test('validation files of their own leave the corpus whole', async (t) => {
  const folder = t.testdir({ 'a.txt': 'ba ke.\n\nlo mi.', 'b.jsonl': '{"body":"nu ra."}' })
  const parts: string[] = []
  const data = await prepare({
    corpus: [join(folder, 'a.txt')],
    validation: [join(folder, '*.jsonl')],
    textField: 'body',
    output: folder,
    onProgress: ({ part, documents }) => parts.push(`${part} ${documents}`),
  })
  t.same(
    contents(data.train).map(({ ids }) => ids),
    [idsOf('ba ke.'), idsOf('lo mi.')],
  )
  t.same(data.validation && contents(data.validation).map(({ ids }) => ids), [idsOf('nu ra.')])
  t.same(parts, ['corpus 2', 'validation 1'])
  t.equal(data.statistics.folders.length, 2)
  data.close()
})

t.test('special tokens that occur in the text are text', async (t) => {
  const folder = t.testdir({ 'a.txt': 'ba [SEP] ke [MASK].' })
  const data = await prepare({ corpus: [join(folder, 'a.txt')], output: folder, validationFraction: 0 })
  const ids = contents(data.train).flatMap(({ ids }) => ids)
  t.same(
    ids.filter((id) => tokenizer.specialTokenIds.includes(id) && id !== tokenizer.unkTokenId),
    [],
  )
  t.equal(ids.length, 9, 'ba [ sep ] ke [ mask ] .')
  data.close()
})

t.test('the same text elsewhere has the same fingerprint; a word more has another', async (t) => {
  const folder = t.testdir({
    'a.txt': 'ba ke.\n\nlo mi.',
    'b.txt': 'ba ke.\r\n\r\n\r\nlo mi.\n',
    'c.txt': 'ba ke.\n\nlo mi mi.',
  })
  const fingerprints: string[] = []
  for (const name of ['a', 'b', 'c']) {
    const data = await prepare({ corpus: [join(folder, `${name}.txt`)], output: join(folder, name) })
    fingerprints.push(data.statistics.fingerprint)
    data.close()
  }
  t.equal(fingerprints[1], fingerprints[0])
  t.not(fingerprints[2], fingerprints[0])
})

t.test('repaired bytes are reported, also when the shards are used again', async (t) => {
  const folder = t.testdir()
  const path = join(folder, 'a.txt')
  writeFileSync(path, Buffer.from('ba ke.\n\nlo \xff mi.\n\nnu', 'latin1'))
  for (const reused of [false, true]) {
    const data = await prepare({ corpus: [path], output: folder })
    t.equal(data.statistics.reused, reused)
    t.same(data.statistics.warnings, [{ file: path, malformed: 1, firstMalformedLine: 4, cuts: 0 }])
    data.close()
  }
})

t.test('a corpus that leaves nothing to train on, and bad options, are refused', async (t) => {
  const folder = t.testdir({
    'one.txt': 'ba ke.\nlo mi.',
    'two.txt': 'ba\n\nke',
    'nothing.txt': '\u0001\n\n\u0002',
  })
  const refused = (name: string, options: Partial<PrepareDataOptions>, message: RegExp): Promise<unknown> =>
    t.rejects(prepare({ corpus: [join(folder, name)], output: folder, ...options }), {
      code: 'ERR_ARGUMENT',
      message,
    })
  await refused('one.txt', {}, /all 1 documents of the corpus go to validation/)
  await refused('nothing.txt', {}, /the corpus has documents, but the tokenizer finds no token/)
  await refused(
    'two.txt',
    { validation: [join(folder, 'nothing.txt')] },
    /the validation set has documents, but/,
  )
  for (const validationFraction of [-0.1, 0.6, Number.NaN]) {
    await refused('two.txt', { validationFraction }, /validation fraction is/)
  }
  await refused('two.txt', { sequenceLength: 4 }, /sequence length is 4/)
  await refused('two.txt', { threads: 0 }, /threads is 0/)
  await refused('two.txt', { segments: 'docs' as 'pairs' }, /segments is 'docs'/)
  await refused('two.txt', { corpus: [] }, /names no file/)
  const data = await prepare({ corpus: [join(folder, 'two.txt')], output: folder, validationFraction: 0.5 })
  t.equal(data.train.count, 1)
  data.close()
})

t.test('of the shared Wikipedia corpus no token is lost', needsSharedData, async (t) => {
  const path = join(sharedData as string, 'corpus', 'wiki-en.txt.gz')
  const data = await prepare({ corpus: [path], output: t.testdir(), sequenceLength: 128 })
  let tokens = 0
  // Whole documents here, line by line there: a line end never joins two words.
  for await (const { bytes } of (await openCorpus([path])).documents())
    tokens += tokenizer.encodeBytes(bytes).length
  const { train, validation } = data.statistics
  t.equal(train.documents + (validation?.documents ?? 0), 6718)
  t.equal(validation?.documents, 135)
  t.equal(
    train.tokens + (validation?.tokens ?? 0) - 2 * (train.segments + (validation?.segments ?? 0)),
    tokens,
  )
  data.close()
})
