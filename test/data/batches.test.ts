/** Batches: the budget is met exactly, every token comes once an epoch, and a stream goes on from its state bit for bit. */
import fc from 'fast-check'
import t from 'tap'
import {
  type Batch,
  type BatchState,
  createBatchStream,
  type Segments,
  validationBatches,
} from '../../dist/data/index.js'
import { createPermutation } from '../../dist/data/random.js'
import { createSegments } from '../../dist/data/segments.js'
import { cls, contents, numberedDocuments, sep, storeOf } from './store.js'

function segmentsOf(
  lengths: readonly (readonly number[])[],
  kind: 'packed' | 'pairs',
  sequenceLength: number,
): Segments {
  return createSegments(storeOf(numberedDocuments(lengths)), {
    kind,
    sequenceLength,
    clsTokenId: cls,
    sepTokenId: sep,
    seed: 1,
  })
}

const anyData = fc
  .record({
    // At least one token; many tiny documents, where a budget is hardest to meet.
    lengths: fc
      .array(fc.array(fc.integer({ min: 1, max: 12 }), { maxLength: 8 }), { minLength: 1, maxLength: 12 })
      .map((documents) => [[1], ...documents]),
    kind: fc.constantFrom('packed' as const, 'pairs' as const),
    sequenceLength: fc.integer({ min: 5, max: 40 }),
    batchSize: fc.integer({ min: 1, max: 5 }),
    seed: fc.nat(10_000),
  })
  .map((data) => ({ ...data, segments: segmentsOf(data.lengths, data.kind, data.sequenceLength) }))

/** The sequences of a batch, after checking all that holds for any batch. */
function sequencesOf(batch: Batch, sequenceLength: number): { ids: number[]; types: number[] }[] {
  const { ids, types, positions, offsets } = batch
  const sequences: { ids: number[]; types: number[] }[] = []
  const check = (holds: boolean, claim: string): void => {
    if (!holds) throw new Error(`${claim}: ${JSON.stringify(batch)}`)
  }
  check(offsets[0] === 0 && offsets.at(-1) === ids.length, 'offsets span the batch')
  check(types.length === ids.length && positions.length === ids.length, 'arrays have one length')
  let longest = 0
  for (let at = 0; at + 1 < offsets.length; at++) {
    const start = offsets[at] as number
    const end = offsets[at + 1] as number
    const sequence = { ids: [...ids.subarray(start, end)], types: [...types.subarray(start, end)] }
    check(end - start >= 3 && end - start <= sequenceLength, 'a sequence has 3 to sequenceLength tokens')
    check(sequence.ids[0] === cls && sequence.ids.at(-1) === sep, 'a sequence is [CLS] ... [SEP]')
    check(
      sequence.ids.lastIndexOf(cls) === 0 && (sequence.ids[1] ?? 0) > sep,
      'a sequence begins with content',
    )
    const second = sequence.types.indexOf(1)
    if (second >= 0) {
      check(
        sequence.ids[second - 1] === sep && (sequence.ids[second] ?? 0) > sep,
        'type 1 begins behind a [SEP]',
      )
      check(sequence.types.lastIndexOf(0) === second - 1, 'type 1 goes on to the end')
    }
    check(
      [...positions.subarray(start, end)].every((position, i) => position === i),
      'positions count from 0',
    )
    longest = Math.max(longest, end - start)
    sequences.push(sequence)
  }
  check(longest === batch.longest, 'longest is the longest')
  return sequences
}

const withoutSpecials = (ids: Iterable<number>): number[] => [...ids].filter((id) => id !== cls && id !== sep)

t.test(
  'a batch has exactly its budget, and the tokens of an epoch are those of its segments, in its order',
  async (t) => {
    const property = fc.property(anyData, ({ segments, sequenceLength, batchSize, seed }) => {
      const all = contents(segments)
      const expected: number[] = []
      for (let epoch = 0; epoch < 3; epoch++) {
        const order = createPermutation(segments.count, seed, epoch)
        for (let place = 0; place < segments.count; place++) {
          expected.push(...withoutSpecials(all[order(place)]?.ids ?? []))
        }
      }
      const stream = createBatchStream({ segments, batchSize, seed })
      const got: number[] = []
      let epoch = 0
      while (stream.state.epoch < 3) {
        const batch = stream.next()
        if (batch.ids.length !== batchSize * sequenceLength) throw new Error(`${batch.ids.length} tokens`)
        if (batch.epoch < epoch) throw new Error('epochs count up')
        epoch = batch.epoch
        sequencesOf(batch, sequenceLength)
        got.push(...withoutSpecials(batch.ids))
      }
      // The last batch may have begun a fourth epoch.
      if (got.length < expected.length) throw new Error(`${got.length} tokens of ${expected.length}`)
      return got.slice(0, expected.length).join() === expected.join()
    })
    t.doesNotThrow(() => fc.assert(property, { numRuns: 300 }))
  },
)

t.test('special tokens are doubled only where nothing else meets the budget', async (t) => {
  const lengths = Array.from({ length: 500 }, (_, n) => [3 + ((n * 37) % 200)])
  const segments = segmentsOf(lengths, 'packed', 32)
  const stream = createBatchStream({ segments, batchSize: 4, seed: 5 })
  for (let step = 0; step < 2000; step++) {
    for (const { ids } of sequencesOf(stream.next(), 32)) {
      if (ids.at(-2) === sep && ids.length > 5) t.fail(`[SEP] [SEP] in step ${step}: ${ids}`)
    }
  }
  const tiny = createBatchStream({ segments: segmentsOf([[1], [1]], 'packed', 8), batchSize: 1, seed: 5 })
  t.same(
    [...tiny.next().offsets],
    [0, 3, 8],
    'documents of one token: 8 is no sum of threes, so the last sequence has two more [SEP]',
  )
})

t.test(
  'a pair keeps its types; the second part of a cut pair is a pair only where both segments reach',
  async (t) => {
    const segments = segmentsOf(
      Array.from({ length: 300 }, (_, n) => [4 + (n % 5), 3 + (n % 7), 2]),
      'pairs',
      24,
    )
    const stream = createBatchStream({ segments, batchSize: 3, seed: 2 })
    const seen = { pairs: 0, single: 0 }
    for (let step = 0; step < 500; step++) {
      for (const { ids, types } of sequencesOf(stream.next(), 24)) {
        const inner = ids.indexOf(sep)
        const isPair = withoutSpecials(ids.slice(inner)).length > 0
        if (types.includes(1) !== isPair) t.fail(`types ${types} of ${ids}`)
        seen[isPair ? 'pairs' : 'single'] += 1
      }
    }
    t.ok(seen.pairs > 500 && seen.single > 100, JSON.stringify(seen))
  },
)

t.test('a stream resumes from its state at any step with the same batches', async (t) => {
  const property = fc.property(anyData, fc.nat(30), ({ segments, batchSize, seed }, steps) => {
    const stream = createBatchStream({ segments, batchSize, seed })
    for (let step = 0; step < steps; step++) stream.next()
    const state = JSON.parse(JSON.stringify(stream.state)) as BatchState
    const resumed = createBatchStream({ segments, batchSize, seed, state })
    for (let step = 0; step < 8; step++) {
      if (JSON.stringify(resumed.next()) !== JSON.stringify(stream.next())) return false
      if (JSON.stringify(resumed.state) !== JSON.stringify(stream.state)) return false
    }
    return true
  })
  t.doesNotThrow(() => fc.assert(property))
})

t.test('the order depends on seed and epoch', async (t) => {
  const segments = segmentsOf(
    Array.from({ length: 200 }, () => [6]),
    'packed',
    8,
  )
  const epochs = (seed: number): string[] => {
    const stream = createBatchStream({ segments, batchSize: 200, seed })
    return [stream.next().ids.join(), stream.next().ids.join()]
  }
  const [first, second] = epochs(1)
  t.same(epochs(1), [first, second])
  t.not(first, second, 'the second epoch is shuffled anew')
  t.not(epochs(2)[0], first, 'another seed, another order')
})

t.test('validation takes every segment once, in order; only the last batch is smaller', async (t) => {
  const property = fc.property(anyData, ({ segments, batchSize, sequenceLength }) => {
    const batches = [...validationBatches({ segments, batchSize })]
    const budget = batchSize * sequenceLength
    for (const [at, batch] of batches.entries()) {
      sequencesOf(batch, sequenceLength)
      const whole = batch.ids.length === budget
      if (!whole && (at + 1 < batches.length || batch.ids.length > budget)) throw new Error(`batch ${at}`)
    }
    const expected = contents(segments).flatMap(({ ids }) => withoutSpecials(ids))
    return batches.flatMap(({ ids }) => withoutSpecials(ids)).join() === expected.join()
  })
  t.doesNotThrow(() => fc.assert(property))
})

t.test('a state of other data, a damaged state and bad options are refused', async (t) => {
  const segments = segmentsOf([[5], [5]], 'packed', 8)
  const good = createBatchStream({ segments, batchSize: 1, seed: 1 }).state
  const refuse = (state: BatchState): void => {
    t.throws(() => createBatchStream({ segments, batchSize: 1, seed: 1, state }), { code: 'ERR_FORMAT' })
  }
  refuse({ ...good, segments: 3 })
  refuse({ ...good, position: 2 })
  refuse({ ...good, offset: -1 })
  refuse({ ...good, epoch: 0.5 })
  t.throws(() => createBatchStream({ segments, batchSize: 0, seed: 1 }), { code: 'ERR_ARGUMENT' })
  t.throws(() => createBatchStream({ segments, batchSize: 1, seed: -1 }), { code: 'ERR_ARGUMENT' })
  const empty = segmentsOf([[], []], 'packed', 8)
  t.throws(() => createBatchStream({ segments: empty, batchSize: 1, seed: 1 }), { code: 'ERR_ARGUMENT' })
  t.throws(() => [...validationBatches({ segments: empty, batchSize: 1 })], { code: 'ERR_ARGUMENT' })
})
