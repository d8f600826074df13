/**
 * The original's examples of one or two segments (google-research/electra, build_pretraining_dataset.py):
 *
 * 1. Sentences (lines) of a document are collected until they reach a target length, or the document ends. The target is the
 *    sequence length M, or with probability 0.05 a whole number from 5 to M.
 * 2. With probability 0.1 the example has a single segment: the first segment's target is 100000; else it is (M' - 3) // 2, M' being
 *    the example's target length.
 * 3. Each sentence goes to A if A is empty, or len(A) + len(sentence) is below A's target, or, with probability 0.5, if B is empty and
 *    len(A) is below A's target (only here a number is drawn); else to B. A short sentence may join A after B has begun.
 * 4. A keeps its first M - 2 tokens, B its first max(0, M - len(A) - 3); the rest is discarded. [CLS] A [SEP], or [CLS] A [SEP] B [SEP].
 *
 * The original draws from one running generator. Here each example has draws of its own, counted by its first sentence, in the
 * order: target length (u, then the number if u < 0.05), single segment, then step 3's. So an example can be made without those
 * before it. The first example of a corpus has the target M, as in the original.
 */
import { createDraws, randomSite } from './random.js'
import type { DocumentCutter, DocumentView, SegmentContent } from './segments.js'

export interface PairOptions {
  readonly sequenceLength: number
  readonly sepTokenId: number
  readonly seed: number
}

const singleSegmentTarget = 100000
const singleSegmentProbability = 0.1
const shortTargetProbability = 0.05
const joinFirstProbability = 0.5
const shortestTarget = 5

/** The examples of a document. */
export function createPairCutter({ sequenceLength, sepTokenId, seed }: PairOptions): DocumentCutter {
  const draws = createDraws(seed, randomSite.pairs)

  /** The target length of the example that was begun last. */
  let target = 0

  /** Begins the example at a sentence: draws its target, gives the sentence past its last. The draws go on in `distribute`. */
  const begin = ({ shard, endSentence, sentenceBase }: DocumentView, start: number): number => {
    const { sentences } = shard
    draws.restart(sentenceBase + start)
    const short = draws.uniform() < shortTargetProbability
    target = short ? draws.integer(shortestTarget, sequenceLength) : sequenceLength
    if (sentenceBase + start === 0) target = sequenceLength
    const enough = (sentences[start] as number) + target
    let end = start + 1
    while (end < endSentence && (sentences[end] as number) < enough) end += 1
    return end
  }

  /** Puts the sentences of the example just begun into segments, telling `place`. Gives the lengths before cutting. */
  const distribute = (
    { shard }: DocumentView,
    start: number,
    end: number,
    place: (sentence: number, toFirst: boolean) => void,
  ): { first: number; second: number } => {
    const { sentences } = shard
    const single = draws.uniform() < singleSegmentProbability
    const firstTarget = single ? singleSegmentTarget : Math.floor((target - 3) / 2)
    let first = 0
    let second = 0
    for (let sentence = start; sentence < end; sentence++) {
      const length = (sentences[sentence + 1] as number) - (sentences[sentence] as number)
      const toFirst =
        first === 0 ||
        first + length < firstTarget ||
        (second === 0 && first < firstTarget && draws.uniform() < joinFirstProbability)
      if (toFirst) first += length
      else second += length
      place(sentence, toFirst)
    }
    return { first, second }
  }

  /** Lengths of A and B after cutting to the sequence length. */
  const cut = (lengths: { first: number; second: number }): { first: number; second: number } => {
    const first = Math.min(lengths.first, sequenceLength - 2)
    return { first, second: Math.min(lengths.second, Math.max(0, sequenceLength - first - 3)) }
  }

  return {
    indexDistance: 8,

    count(document) {
      let count = 0
      for (let start = document.firstSentence; start < document.endSentence; count++)
        start = begin(document, start)
      return count
    },

    measure(document) {
      let segments = 0
      let tokens = 0
      let discarded = 0
      for (let start = document.firstSentence; start < document.endSentence; ) {
        const end = begin(document, start)
        const whole = distribute(document, start, end, () => {})
        const { first, second } = cut(whole)
        tokens += first + 2 + (second > 0 ? second + 1 : 0)
        discarded += whole.first + whole.second - first - second
        segments += 1
        start = end
      }
      return { segments, tokens, discarded }
    },

    read(document: DocumentView, segment: number, content: SegmentContent) {
      let start = document.firstSentence
      for (let before = 0; before < segment; before++) start = begin(document, start)
      const { tokens, sentences } = document.shard
      const inFirst: number[] = []
      const inSecond: number[] = []
      const end = begin(document, start)
      const { first, second } = cut(
        distribute(document, start, end, (sentence, toFirst) =>
          (toFirst ? inFirst : inSecond).push(sentence),
        ),
      )
      const fill = (from: number, length: number, members: readonly number[]): void => {
        let room = length
        for (const sentence of members) {
          if (room === 0) break
          const begin = sentences[sentence] as number
          const taken = Math.min(room, (sentences[sentence + 1] as number) - begin)
          content.ids.set(tokens.subarray(begin, begin + taken), from + length - room)
          room -= taken
        }
      }
      fill(0, first, inFirst)
      content.length = first
      content.separator = -1
      if (second > 0) {
        content.separator = first
        content.ids[first] = sepTokenId
        fill(first + 1, second, inSecond)
        content.length = first + 1 + second
      }
    },
  }
}
