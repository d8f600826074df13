/**
 * Batches: flat runs of tokens with offsets, no padding. A training batch has exactly batchSize x sequenceLength tokens, however the
 * segments' lengths vary; each token of each segment comes exactly once an epoch.
 *
 * The segments follow each other in the epoch's order (a seeded permutation), and the rest of the budget decides about the next one,
 * or what is left of it (c content tokens, c + 2 with [CLS] and [SEP]):
 *
 *   it is longer than the rest       the part that fits, with its own [CLS] and [SEP], closes the batch; what is left comes first in the
 *                                    next one, with its own [CLS] and [SEP] too
 *   1 or 2 tokens would stay free    no sequence is that short ([CLS] x [SEP]), so it is cut in the middle: the second half's own
 *                                    [CLS] and [SEP] take up 2; with 1 free, one token of it goes to the next batch
 *   as before, but c is too small    (c = 1, or c = 2 with 1 free: nothing to halve) its [SEP] is repeated once or twice
 *   otherwise                        it is taken whole
 *
 * So the rest is 0 or at least 3 after every sequence, and the budget is met. In a pair, the [SEP] between its segments belongs to the
 * content; where a cut falls just before it, the second part goes without it, and where it falls just behind, [SEP] stands twice.
 * Types are 1 for a second segment where its first is in the same sequence, else 0.
 */
import { VoltaicError } from '../runtime/errors.js'
import { createPermutation, seedKey } from './random.js'
import { createSegmentContent, type SegmentContent, type Segments } from './segments.js'

export interface Batch {
  /** Token ids, [tokens]. */
  readonly ids: Int32Array
  /** Segment types, 0 or 1, [tokens]. */
  readonly types: Int32Array
  /** Positions, from 0 in each sequence, [tokens]. */
  readonly positions: Int32Array
  /** Where each sequence begins, and the number of tokens: [sequences + 1]. */
  readonly offsets: Int32Array
  /** The epoch that the batch begins in, from 0. */
  readonly epoch: number
  /** The longest sequence's tokens. */
  readonly longest: number
}

/** Where one language of a stream stands (language-batches.ts). */
export interface LanguageState {
  readonly epoch: number
  readonly position: number
  readonly segments: number
}

/** Where a stream stands, as plain JSON: enough to go on bit for bit. */
export interface BatchState {
  readonly epoch: number
  /** The place in the epoch's order of the segment that comes next. */
  readonly position: number
  /** Content tokens of that segment that earlier batches have. */
  readonly offset: number
  /** The number of segments, to notice other data. */
  readonly segments: number
  /** Of several languages: where each stands, how often one was drawn, and whose segment comes next. */
  readonly languages?: {
    readonly draws: number
    readonly current: number
    readonly parts: readonly LanguageState[]
  }
}

export interface BatchOptions {
  readonly segments: Segments
  /** The budget in sequences of full length. */
  readonly batchSize: number
}

export interface BatchStreamOptions extends BatchOptions {
  /** With the epoch, decides the order. */
  readonly seed: number
  /** Go on from here. Default: the beginning. */
  readonly state?: BatchState | undefined
}

/** A walk over segments. */
export interface Cursor {
  /** Fills `content` with the segment under way; false past the end of all. */
  read(content: SegmentContent): boolean
  /** Content tokens of that segment that are taken. */
  offset: number
  /** Goes to the next segment. */
  advance(): void
}

/** What all segments of a stream have in common. */
export type SegmentForm = Pick<Segments, 'sequenceLength' | 'clsTokenId' | 'sepTokenId'>

/** The tokens of a batch. @throws ERR_ARGUMENT for a bad batch size, or without a segment */
export function assertBudget({ segments, batchSize }: BatchOptions): number {
  if (!Number.isInteger(batchSize) || batchSize < 1) {
    throw new VoltaicError('ERR_ARGUMENT', `batch size is ${batchSize}; expected a whole number, 1 or more`)
  }
  if (segments.count === 0) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      'there is no segment to make batches of: the documents have no token',
    )
  }
  return batchSize * segments.sequenceLength
}

/** How many content tokens the next sequence takes, and how often its last [SEP] is repeated; see the rules above. */
function share(left: number, rest: number): { taken: number; repeated: number } {
  const free = rest - left - 2
  if (free < 0) return { taken: rest - 2, repeated: 0 }
  if (free === 0 || free > 2) return { taken: left, repeated: 0 }
  return left >= 4 - free ? { taken: left >> 1, repeated: 0 } : { taken: left, repeated: free }
}

/** Makes batches one after the other along a cursor, which moves on. */
export function createAssembler(
  { sequenceLength, clsTokenId, sepTokenId }: SegmentForm,
  budget: number,
): (cursor: Cursor, epoch: number) => Batch {
  const content = createSegmentContent(sequenceLength)
  const offsets = new Int32Array(Math.floor(budget / 3) + 1)

  return (cursor, epoch) => {
    const ids = new Int32Array(budget)
    const types = new Int32Array(budget)
    const positions = new Int32Array(budget)
    let sequences = 0
    let filled = 0
    let longest = 0
    while (filled < budget) {
      if (!cursor.read(content)) break
      while (cursor.offset < content.length && filled < budget) {
        const from = cursor.offset
        const { taken, repeated } = share(content.length - from, budget - filled)
        const start = filled
        ids[filled++] = clsTokenId
        ids.set(content.ids.subarray(from, from + taken), filled)
        filled += taken
        ids.fill(sepTokenId, filled, filled + 1 + repeated)
        filled += 1 + repeated
        // The second segment begins behind its [SEP]: [CLS] and the content up to the separator come before.
        const { separator } = content
        if (separator >= from && separator + 1 < from + taken)
          types.fill(1, start + separator - from + 2, filled)
        for (let at = start; at < filled; at++) positions[at] = at - start
        sequences += 1
        offsets[sequences] = filled
        longest = Math.max(longest, filled - start)
        cursor.offset = from + taken
        if (cursor.offset === separator) cursor.offset += 1
      }
      if (cursor.offset >= content.length) {
        cursor.offset = 0
        cursor.advance()
      }
    }
    const cut = (array: Int32Array): Int32Array => (filled === budget ? array : array.slice(0, filled))
    return {
      ids: cut(ids),
      types: cut(types),
      positions: cut(positions),
      offsets: offsets.slice(0, sequences + 1),
      epoch,
      longest,
    }
  }
}

function assertState(state: BatchState, segments: Segments): void {
  const { epoch, position, offset } = state
  if (state.segments !== segments.count || state.languages !== undefined) {
    throw new VoltaicError(
      'ERR_FORMAT',
      `the saved place in the data counts ${state.segments} segments, this data has ${segments.count}: ` +
        'it is not the data of the run that is resumed',
    )
  }
  const whole = [epoch, position, offset].every((value) => Number.isSafeInteger(value) && value >= 0)
  if (!whole || position >= segments.count || offset >= segments.sequenceLength) {
    throw new VoltaicError('ERR_FORMAT', `the saved place in the data is damaged: ${JSON.stringify(state)}`)
  }
}

/** An endless, deterministic stream of training batches. */
export interface BatchStream {
  /** Where the stream stands; resumes from here when passed as `state`. */
  readonly state: BatchState
  /** The next batch, of exactly batchSize x sequenceLength tokens. Its arrays are its own. */
  next(): Batch
}

/**
 * Opens the stream of training batches, at the beginning or at `state`. The order depends on (seed, epoch) alone.
 * @throws ERR_ARGUMENT for a bad batch size or seed or data without a segment, ERR_FORMAT for a state that does not fit the data.
 */
export function createBatchStream({ segments, batchSize, seed, state }: BatchStreamOptions): BatchStream {
  const budget = assertBudget({ segments, batchSize })
  seedKey(seed)
  if (state !== undefined) assertState(state, segments)
  let epoch = state?.epoch ?? 0
  let position = state?.position ?? 0
  let order = createPermutation(segments.count, seed, epoch)
  const cursor: Cursor = {
    offset: state?.offset ?? 0,
    read(content) {
      segments.read(order(position), content)
      return true
    },
    advance() {
      position += 1
      if (position < segments.count) return
      epoch += 1
      position = 0
      order = createPermutation(segments.count, seed, epoch)
    },
  }
  const assemble = createAssembler(segments, budget)
  return {
    get state() {
      return { epoch, position, offset: cursor.offset, segments: segments.count }
    },
    next: () => assemble(cursor, epoch),
  }
}

/** All segments once, in their own order, in batches of the same budget; the last one is smaller. Throws ERR_ARGUMENT like the stream. */
export function* validationBatches({ segments, batchSize }: BatchOptions): Generator<Batch, void, void> {
  const assemble = createAssembler(segments, assertBudget({ segments, batchSize }))
  let position = 0
  const cursor: Cursor = {
    offset: 0,
    read(content) {
      if (position >= segments.count) return false
      segments.read(position, content)
      return true
    },
    advance() {
      position += 1
    },
  }
  while (position < segments.count) yield assemble(cursor, 0)
}
