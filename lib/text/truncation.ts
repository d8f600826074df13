/** Cutting one text or two to a number of tokens, and the parts that a cut leaves over. */
import { VoltaicError } from '../runtime/errors.js'
import type { UnicodeEdition } from '../runtime/tokenizer.js'

export type TruncationStrategy = 'longest_first' | 'only_first' | 'only_second'

/** [begin, end) of the tokens of a text. */
export type Part = readonly [number, number]

/** What stays of a text, then what was cut off, in parts that overlap by the stride. */
export interface Truncated {
  readonly kept: Part
  readonly overflow: readonly Part[]
}

/** How many tokens each of two texts keeps under `longest_first`. */
export function longestFirst(
  first: number,
  second: number,
  room: number,
  order: UnicodeEdition,
): [number, number] {
  if (first + second <= room) return [first, second]
  if (order === 'google') {
    // The original takes one token at a time from the longer text, from the second when both are as long.
    const shorter = Math.min(first, second)
    if (shorter <= room - shorter) {
      return first > second ? [room - shorter, shorter] : [shorter, room - shorter]
    }
    return [Math.ceil(room / 2), Math.floor(room / 2)]
  }
  const swapped = first > second
  const shorter = swapped ? second : first
  let keptShorter = shorter
  let keptLonger = shorter > room ? shorter : Math.max(shorter, room - shorter)
  if (keptShorter + keptLonger > room) {
    keptShorter = Math.floor(room / 2)
    keptLonger = keptShorter + (room % 2)
  }
  return swapped ? [keptLonger, keptShorter] : [keptShorter, keptLonger]
}

/** Parts of at most `most` tokens that start at multiples of most - stride, to the first that reaches the end. */
export function cut(length: number, most: number, stride: number): Truncated {
  if (length <= most) return { kept: [0, length], overflow: [] }
  if (most === 0) return { kept: [0, 0], overflow: [[0, length]] }
  const overflow: Part[] = []
  for (let begin = most - stride; ; begin += most - stride) {
    const end = Math.min(begin + most, length)
    overflow.push([begin, end])
    if (end === length) return { kept: [0, most], overflow }
  }
}

export interface TruncationOptions {
  readonly strategy: TruncationStrategy
  /** Tokens that may stay, special tokens not counted. */
  readonly room: number
  /** Tokens that parts left over share with the part before. Unused when `overflow` is false. */
  readonly stride: number
  readonly overflow: boolean
  readonly order: UnicodeEdition
}

/**
 * Cuts a text, or a pair, to `room` tokens.
 * @throws ERR_ARGUMENT when the text to cut is shorter than what must go, or the stride leaves no progress.
 */
export function truncate(lengths: readonly [number, number?], options: TruncationOptions): Truncated[] {
  const { strategy, room, stride, overflow, order } = options
  const [first, second] = lengths
  const excess = first + (second ?? 0) - room
  let kept: number[]
  if (excess <= 0) kept = second === undefined ? [first] : [first, second]
  else if (strategy === 'longest_first') {
    kept = second === undefined ? [room] : longestFirst(first, second, room, order)
  } else {
    const target = strategy === 'only_first' ? first : second
    if (target === undefined) {
      throw new VoltaicError(
        'ERR_ARGUMENT',
        "tokenizer: truncation 'only_second' needs a second text (textPair)",
      )
    }
    if (target <= excess) {
      throw new VoltaicError(
        'ERR_ARGUMENT',
        `tokenizer: truncation '${strategy}' would have to cut ${excess} tokens from a text of ${target}; raise maxLength, or use ` +
          "truncation: 'longest_first'",
      )
    }
    kept = strategy === 'only_first' ? [first - excess] : [first, target - excess]
    if (strategy === 'only_first' && second !== undefined) kept.push(second)
  }
  return kept.map((most, i) => {
    const length = lengths[i] as number
    if (overflow && length > most && most > 0 && stride >= most) {
      throw new VoltaicError(
        'ERR_ARGUMENT',
        `tokenizer: stride is ${stride}, but only ${most} tokens of the text fit beside the rest; it must be smaller`,
      )
    }
    return overflow || length <= most ? cut(length, most, stride) : { kept: [0, most], overflow: [] }
  })
}
