/**
 * From documents to sequences: a numbered set of segments with random access, each at most `sequenceLength` tokens with its specials.
 *
 *   packed   a document is cut into consecutive runs of sequenceLength - 2 tokens: [CLS] run [SEP]. No token is lost.
 *   pairs    the original's examples of one or two segments (pairs.ts).
 *
 * Segments are a function of (shards, options, seed). Nothing is stored but a sparse index, 8 bytes for about 32 segments (pairs:
 * 8); what lies between is computed from the shards' boundaries, in microseconds. Made anew on each start, in 0.2 s for a
 * billion tokens (pairs: 2 s), which a stored index would not beat by much.
 */
import { VoltaicError } from '../runtime/errors.js'
import { createPairCutter } from './pairs.js'
import type { Shard } from './shard-file.js'
import type { TokenStore } from './shards.js'

export type SegmentKind = 'packed' | 'pairs'

/** Which documents, by their number in the corpus: all but every `period`-th, or only those (0, period, 2 period, ...). */
export interface DocumentSelection {
  readonly period: number
  readonly keep: 'others' | 'every'
}

export interface SegmentOptions {
  readonly kind: SegmentKind
  /** At most this many tokens with specials; at least 5. */
  readonly sequenceLength: number
  readonly clsTokenId: number
  readonly sepTokenId: number
  /** Draws of `pairs`. */
  readonly seed: number
  /** Default: all documents. */
  readonly documents?: DocumentSelection | undefined
}

/** What stands between [CLS] and the last [SEP] of a segment. */
export interface SegmentContent {
  /** Room for sequenceLength ids; the first `length` are the content. */
  readonly ids: Int32Array
  length: number
  /** Where the [SEP] between the first and second segment stands in the content; -1 where there is only one segment. */
  separator: number
}

export interface Segments {
  readonly kind: SegmentKind
  readonly sequenceLength: number
  readonly clsTokenId: number
  readonly sepTokenId: number
  /** How many there are; may be 0. */
  readonly count: number
  /** Tokens in all of them, special tokens counted. */
  readonly totalTokens: number
  /** Tokens of the chosen documents that are in no segment: 0 for `packed`, the overflow that `pairs` discards. */
  readonly discardedTokens: number
  /** Chosen documents that have at least one token. */
  readonly documentCount: number
  /** Fills `content` with segment `index` (0 to count - 1). */
  read(index: number, content: SegmentContent): void
}

/** A document within its shard. */
export interface DocumentView {
  readonly shard: Shard
  /** Its sentences, first and past the last. */
  readonly firstSentence: number
  readonly endSentence: number
  /** The shard's first sentence, counted over all shards. */
  readonly sentenceBase: number
}

/** What a document gives. */
export interface DocumentMeasure {
  readonly segments: number
  /** Lengths of its segments with specials, added up. */
  readonly tokens: number
  readonly discarded: number
}

/** Cuts one document into segments; both ways of doing so have this face. */
export interface DocumentCutter {
  /** Segments between two entries of the index: few where counting a document's segments takes long. */
  readonly indexDistance: number
  count(document: DocumentView): number
  measure(document: DocumentView): DocumentMeasure
  read(document: DocumentView, segment: number, content: SegmentContent): void
}

/** Room for one segment's content. */
export function createSegmentContent(sequenceLength: number): SegmentContent {
  return { ids: new Int32Array(sequenceLength), length: 0, separator: -1 }
}

function createPackedCutter(sequenceLength: number): DocumentCutter {
  const runLength = sequenceLength - 2
  const tokenRange = ({ shard, firstSentence, endSentence }: DocumentView): [number, number] => [
    shard.sentences[firstSentence] as number,
    shard.sentences[endSentence] as number,
  ]
  const count = (document: DocumentView): number => {
    const [start, end] = tokenRange(document)
    return Math.ceil((end - start) / runLength)
  }
  return {
    indexDistance: 32,
    count,
    measure(document) {
      const [start, end] = tokenRange(document)
      const segments = count(document)
      return { segments, tokens: end - start + 2 * segments, discarded: 0 }
    },
    read(document, segment, content) {
      const [start, end] = tokenRange(document)
      const from = start + segment * runLength
      const to = Math.min(end, from + runLength)
      content.ids.set(document.shard.tokens.subarray(from, to))
      content.length = to - from
      content.separator = -1
    },
  }
}

/** Rising numbers, compact, growing as they come. */
class NumberList {
  private values = new Uint32Array(1024)
  length = 0

  push(value: number): void {
    if (this.length === this.values.length) {
      const larger = new Uint32Array(2 * this.values.length)
      larger.set(this.values)
      this.values = larger
    }
    this.values[this.length++] = value
  }

  at(index: number): number {
    return this.values[index] as number
  }

  /** The last entry that is at most `value`; the first entry must be. */
  lastAtMost(value: number): number {
    let low = 0
    let high = this.length
    while (high - low > 1) {
      const middle = (low + high) >>> 1
      if (this.at(middle) <= value) low = middle
      else high = middle
    }
    return low
  }
}

/** Documents between two entries of the index at most: those without a token cost time too. */
const blockDocuments = 256

/**
 * Counts the segments of a corpus and gives access to each.
 * @throws ERR_ARGUMENT for a sequence length below 5, ERR_UNSUPPORTED for 2^32 documents or segments or more.
 */
export function createSegments(store: TokenStore, options: SegmentOptions): Segments {
  const { kind, sequenceLength, clsTokenId, sepTokenId, seed, documents: selection } = options
  if (!Number.isInteger(sequenceLength) || sequenceLength < 5) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `sequence length is ${sequenceLength}; expected a whole number, 5 or more ([CLS] a [SEP] b [SEP])`,
    )
  }
  const { shards } = store
  const cutter =
    kind === 'packed'
      ? createPackedCutter(sequenceLength)
      : createPairCutter({ sequenceLength, sepTokenId, seed })

  const documentBases: number[] = []
  const sentenceBases: number[] = []
  let documentTotal = 0
  let sentenceTotal = 0
  for (const { counts } of shards) {
    documentBases.push(documentTotal)
    sentenceBases.push(sentenceTotal)
    documentTotal += counts.documents
    sentenceTotal += counts.sentences
  }
  const isChosen = (document: number): boolean =>
    selection === undefined || (document % selection.period === 0) === (selection.keep === 'every')
  const viewOf = (document: number, shardNumber: number): DocumentView => {
    const shard = shards[shardNumber] as Shard
    const local = document - (documentBases[shardNumber] as number)
    return {
      shard,
      firstSentence: shard.documents[local] as number,
      endSentence: shard.documents[local + 1] as number,
      sentenceBase: sentenceBases[shardNumber] as number,
    }
  }

  // Block b holds the segments from blockFirstSegment[b] on, of the documents from blockFirstDocument[b] on.
  const blockFirstDocument = new NumberList()
  const blockFirstSegment = new NumberList()
  let count = 0
  let totalTokens = 0
  let discardedTokens = 0
  let documentCount = 0
  let inBlock = Number.POSITIVE_INFINITY
  shards.forEach((shard, shardNumber) => {
    const base = documentBases[shardNumber] as number
    for (let document = base; document < base + shard.counts.documents; document++) {
      if (!isChosen(document)) continue
      const view = viewOf(document, shardNumber)
      const { segments, tokens, discarded } = cutter.measure(view)
      if (segments === 0) continue
      const first = blockFirstDocument.length === 0 ? 0 : blockFirstDocument.at(blockFirstDocument.length - 1)
      if (inBlock >= cutter.indexDistance || document - first >= blockDocuments) {
        blockFirstDocument.push(document)
        blockFirstSegment.push(count)
        inBlock = 0
      }
      inBlock += segments
      count += segments
      totalTokens += tokens
      discardedTokens += discarded
      documentCount += 1
    }
  })
  if (documentTotal >= 2 ** 32 || count >= 2 ** 32) {
    throw new VoltaicError(
      'ERR_UNSUPPORTED',
      `the corpus has ${documentTotal} documents and ${count} segments; fewer than 2^32 of each fit`,
    )
  }

  const read = (index: number, content: SegmentContent): void => {
    if (!Number.isInteger(index) || index < 0 || index >= count) {
      throw new VoltaicError('ERR_ARGUMENT', `segment ${index} does not exist; there are ${count}`)
    }
    const block = blockFirstSegment.lastAtMost(index)
    let document = blockFirstDocument.at(block)
    let segment = index - blockFirstSegment.at(block)
    let shardNumber = shards.length - 1
    while ((documentBases[shardNumber] as number) > document) shardNumber -= 1
    for (; ; document++) {
      while (
        document >=
        (documentBases[shardNumber] as number) + (shards[shardNumber] as Shard).counts.documents
      ) {
        shardNumber += 1
      }
      if (!isChosen(document)) continue
      const view = viewOf(document, shardNumber)
      const here = cutter.count(view)
      if (segment < here) {
        cutter.read(view, segment, content)
        return
      }
      segment -= here
    }
  }
  return {
    kind,
    sequenceLength,
    clsTokenId,
    sepTokenId,
    count,
    totalTokens,
    discardedTokens,
    documentCount,
    read,
  }
}
