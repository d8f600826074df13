/** Segments: what a document becomes, and that any one can be had without the others. */
import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { createDraws, randomSite } from '../../dist/data/random.js'
import { createSegmentContent, createSegments, type SegmentOptions } from '../../dist/data/segments.js'
import { cls, contents, type Documents, numberedDocuments, sep, storeOf } from './store.js'

const options = (rest: Partial<SegmentOptions>): SegmentOptions => ({
  kind: 'packed',
  sequenceLength: 8,
  clsTokenId: cls,
  sepTokenId: sep,
  seed: 3,
  ...rest,
})

/** Documents of 0 to 30 sentences of 1 to 40 tokens. */
const anyDocuments = fc
  .array(fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 30 }), { maxLength: 40 })
  .map(numberedDocuments)

t.test('packed: a document becomes consecutive runs of at most length - 2 tokens', async (t) => {
  const store = storeOf(numberedDocuments([[3, 4], [], [6], [1, 1]]))
  const segments = createSegments(store, options({}))
  t.same(contents(segments), [
    { ids: [10, 11, 12, 13, 14, 15], separator: -1 },
    { ids: [16], separator: -1 },
    { ids: [17, 18, 19, 20, 21, 22], separator: -1 },
    { ids: [23, 24], separator: -1 },
  ])
  t.equal(segments.totalTokens, 6 + 1 + 6 + 2 + 4 * 2)
  t.equal(segments.discardedTokens, 0)
  t.equal(segments.documentCount, 3)
})

t.test('packed: no token is lost or doubled, and none changes its order', async (t) => {
  // Ids of two bytes and of four.
  const vocabularySize = fc.constantFrom(65_536, 65_537)
  const property = fc.property(
    anyDocuments,
    fc.integer({ min: 5, max: 64 }),
    fc.integer({ min: 1, max: 9 }),
    vocabularySize,
    (documents, sequenceLength, perShard, vocabularySize) => {
      const segments = createSegments(
        storeOf(documents, perShard, vocabularySize),
        options({ sequenceLength }),
      )
      const all = contents(segments)
      assert.deepEqual(
        all.flatMap(({ ids }) => ids),
        documents.flat(2),
      )
      assert.ok(all.every(({ ids }) => ids.length > 0 && ids.length <= sequenceLength - 2))
      assert.equal(
        segments.totalTokens,
        all.reduce((sum, { ids }) => sum + ids.length + 2, 0),
      )
    },
  )
  t.doesNotThrow(() => fc.assert(property))
})

t.test('every k-th document is for validation, the others for training', async (t) => {
  const documents = numberedDocuments(
    Array.from({ length: 101 }, (_, n) => (n === 50 ? [] : [1 + (n % 3), 2])),
  )
  const store = storeOf(documents, 7)
  const part = (keep: 'every' | 'others'): string =>
    contents(createSegments(store, options({ documents: { period: 50, keep } })))
      .flatMap(({ ids }) => ids)
      .join()
  t.equal(
    part('every'),
    documents
      .filter((_, n) => n % 50 === 0)
      .flat(2)
      .join(),
  )
  t.equal(
    part('others'),
    documents
      .filter((_, n) => n % 50 !== 0)
      .flat(2)
      .join(),
  )
})

t.test('the index finds segments among long runs of empty, short and long documents', async (t) => {
  const lengths = Array.from({ length: 3000 }, (_, n) => {
    if (n % 1000 < 400) return []
    return n % 97 === 0 ? [900, 80] : [1 + (n % 5)]
  })
  const documents = numberedDocuments(lengths)
  for (const kind of ['packed', 'pairs'] as const) {
    const segments = createSegments(storeOf(documents, 130), options({ kind, sequenceLength: 32 }))
    const inOrder = contents(segments)
    const content = createSegmentContent(32)
    for (let i = 0; i < segments.count; i++) {
      const index = (i * 7919) % segments.count
      segments.read(index, content)
      if (content.ids.subarray(0, content.length).join() !== inOrder[index]?.ids.join())
        t.fail(`segment ${index}`)
    }
    t.ok(segments.count > 1000, `${segments.count} ${kind} segments`)
  }
})

/** Spec 3.1 written down plainly: one pass over everything, with the draws of each example in their order. */
function referencePairs(documents: Documents, sequenceLength: number, seed: number): string[] {
  const examples: string[] = []
  let sentenceNumber = 0
  for (const document of documents) {
    let current: (readonly number[])[] = []
    let firstSentence = sentenceNumber
    const emit = (): void => {
      if (current.length === 0) return
      const draws = createDraws(seed, randomSite.pairs, firstSentence)
      const target = targetOf(draws)
      const firstTarget = draws.uniform() < 0.1 ? 100000 : Math.floor((target - 3) / 2)
      let a: number[] = []
      let b: number[] = []
      for (const sentence of current) {
        if (
          a.length === 0 ||
          a.length + sentence.length < firstTarget ||
          (b.length === 0 && a.length < firstTarget && draws.uniform() < 0.5)
        ) {
          a.push(...sentence)
        } else b.push(...sentence)
      }
      a = a.slice(0, sequenceLength - 2)
      b = b.slice(0, Math.max(0, sequenceLength - a.length - 3))
      examples.push((b.length > 0 ? [...a, sep, ...b] : a).join())
      current = []
    }
    const targetOf = (draws: ReturnType<typeof createDraws>): number => {
      const drawn = draws.uniform() < 0.05 ? draws.integer(5, sequenceLength) : sequenceLength
      return firstSentence === 0 ? sequenceLength : drawn
    }
    for (const sentence of document) {
      if (current.length === 0) firstSentence = sentenceNumber
      current.push(sentence)
      sentenceNumber += 1
      const length = current.reduce((sum, { length }) => sum + length, 0)
      if (length >= targetOf(createDraws(seed, randomSite.pairs, firstSentence))) emit()
    }
    emit()
  }
  return examples
}

t.test('pairs: the examples of the original rule, step by step', async (t) => {
  const property = fc.property(
    anyDocuments,
    fc.integer({ min: 5, max: 96 }),
    fc.nat(1000),
    fc.integer({ min: 1, max: 9 }),
    (documents, sequenceLength, seed, perShard) => {
      const segments = createSegments(
        storeOf(documents, perShard),
        options({ kind: 'pairs', sequenceLength, seed }),
      )
      const all = contents(segments)
      assert.deepEqual(
        all.map(({ ids }) => ids.join()),
        referencePairs(documents, sequenceLength, seed),
      )
      assert.ok(all.every(({ ids, separator }) => separator === ids.indexOf(sep)))
      assert.ok(all.every(({ ids }) => ids.length > 0 && ids.length <= sequenceLength - 2))
      const kept = all.reduce((sum, { ids, separator }) => sum + ids.length - (separator < 0 ? 0 : 1), 0)
      assert.equal(segments.discardedTokens, documents.flat(2).length - kept)
      assert.equal(
        segments.totalTokens,
        all.reduce((sum, { ids }) => sum + ids.length + 2, 0),
      )
    },
  )
  t.doesNotThrow(() => fc.assert(property))
})

t.test('pairs: one example in ten has a single segment, one in twenty a short target', async (t) => {
  const documents = numberedDocuments(Array.from({ length: 4000 }, () => new Array<number>(32).fill(4)))
  const all = contents(
    createSegments(storeOf(documents, 500, 600_000), options({ kind: 'pairs', sequenceLength: 128 })),
  )
  const single = all.filter(({ separator }) => separator < 0).length / all.length
  // A document of 128 tokens is one example unless its target is short; a few short ones have room for one segment only.
  t.ok(single > 0.09 && single < 0.125, `${single} of the examples have one segment`)
  const short = (all.length - documents.length) / documents.length
  t.ok(short > 0.035 && short < 0.075, `${short} more examples than documents`)
})

t.test('bad options and indices are told apart from good ones', async (t) => {
  const store = storeOf(numberedDocuments([[3]]))
  for (const sequenceLength of [4, 7.5, Number.NaN]) {
    t.throws(() => createSegments(store, options({ sequenceLength })), { code: 'ERR_ARGUMENT' })
  }
  const segments = createSegments(store, options({}))
  for (const index of [-1, 1, 0.5]) {
    t.throws(() => segments.read(index, createSegmentContent(8)), { code: 'ERR_ARGUMENT' })
  }
})
