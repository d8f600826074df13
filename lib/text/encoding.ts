/** From texts to rows: what a tokenizer's call takes and gives, special tokens, truncation, overflowing parts. */
import { VoltaicError } from '../runtime/errors.js'
import { type NativeTokenizer, smallInt32Array, type UnicodeEdition } from '../runtime/tokenizer.js'
import type { Template, TemplatePiece } from './specification.js'
import { type Part, type TruncationStrategy, truncate } from './truncation.js'

/**
 * A text, a list of texts, or a list of pairs. With `isSplitIntoWords`: the words of a text, or a list of such lists.
 */
export type TokenizerInput =
  | string
  | readonly string[]
  | readonly (readonly [string, string])[]
  | readonly (readonly string[])[]

export interface EncodeOptions {
  /** The second text of each pair; of the same form as the first argument. */
  readonly textPair?: string | readonly string[] | readonly (readonly string[])[] | undefined
  /** Put [CLS] and [SEP] around the texts. Default true. */
  readonly addSpecialTokens?: boolean | undefined
  /** The most tokens a row may have, special tokens included. Default: the model's, where `truncation` asks for one. */
  readonly maxLength?: number | undefined
  /** Default: `longest_first` when `maxLength` is given, else false. True is `longest_first`. */
  readonly truncation?: boolean | TruncationStrategy | undefined
  /** How many tokens an overflowing part shares with the part before. Default 0. */
  readonly stride?: number | undefined
  /** Give what truncation cuts off as further rows, behind the row of their text. Default false. */
  readonly returnOverflowingTokens?: boolean | undefined
  /** Give each token's place in its text. Default false. */
  readonly returnOffsetsMapping?: boolean | undefined
  /** Give each token's word. Default false. */
  readonly returnWordIds?: boolean | undefined
  /** The input is words, not texts: each is tokenized by itself, offsets count within the word. Default false. */
  readonly isSplitIntoWords?: boolean | undefined
}

/**
 * One row a text (or more, with `returnOverflowingTokens`), each of its own length: nothing is padded. Short rows share memory, as
 * those of Buffer.allocUnsafe do: `slice()` a row before moving its buffer to another thread.
 */
export interface Encoding {
  readonly inputIds: Int32Array[]
  /** 0 for the first text of a pair and its special tokens, 1 for the second. */
  readonly tokenTypeIds: Int32Array[]
  /** [begin, end) of each token in its text, two numbers a token, in UTF-16 units as `slice` counts. Special tokens: 0, 0. */
  readonly offsetsMapping?: Int32Array[]
  /** The index of each token's word in its text (of the given word with `isSplitIntoWords`). Special tokens: -1. */
  readonly wordIds?: Int32Array[]
  /** The text that each row comes from; with `returnOverflowingTokens`. */
  readonly overflowToSampleMapping?: Int32Array
}

/** The tokens of one text. */
interface Sequence {
  readonly ids: Int32Array
  readonly offsets?: Int32Array
  readonly words?: Int32Array
}

type Text = string | readonly string[]

export interface EncoderSettings {
  readonly native: NativeTokenizer
  readonly template: Template
  readonly tokenId: (token: string) => number
  readonly truncationOrder: UnicodeEdition
  readonly modelMaxLength: number | null
}

function refuse(message: string): never {
  throw new VoltaicError('ERR_ARGUMENT', `tokenizer: ${message}`)
}

const isList = (value: unknown): value is readonly unknown[] => Array.isArray(value)

function describe(value: unknown): string {
  return value === null ? 'null' : isList(value) ? `an array of ${value.length}` : `a ${typeof value}`
}

/** One text, or the words of one, checked. */
function checkText(value: unknown, split: boolean, place: string): Text {
  if (!split && typeof value === 'string') return value
  if (split && isList(value)) {
    const wrong = value.findIndex((word) => typeof word !== 'string')
    if (wrong < 0) return value as readonly string[]
    refuse(`${place} has ${describe(value[wrong])} as word ${wrong}, expected a string`)
  }
  return refuse(
    `${place} is ${describe(value)}, expected ${split ? 'a list of words (isSplitIntoWords)' : 'a string'}`,
  )
}

/** The texts of each row: [first] or [first, second]. */
function rowsOf(input: TokenizerInput, options: EncodeOptions): (readonly [Text, Text?])[] {
  const { textPair, isSplitIntoWords: split = false } = options
  const isOne = (value: unknown): boolean =>
    split ? isList(value) && (value.length === 0 || typeof value[0] === 'string') : typeof value === 'string'
  const listOf = (value: unknown, name: string): readonly unknown[] =>
    isOne(value)
      ? [value]
      : isList(value)
        ? value
        : refuse(`${name} is ${describe(value)}, expected a text or a list of texts`)
  // An empty list is no text at all, except where a list is one text's words.
  const texts = listOf(input, 'the input')
  if (textPair === undefined) {
    return texts.map((text, i) => {
      if (split || !isList(text)) return [checkText(text, split, `text ${i}`)]
      if (text.length !== 2) {
        refuse(
          `text ${i} is ${describe(text)}, expected a pair of strings; for lists of words set isSplitIntoWords`,
        )
      }
      return [
        checkText(text[0], false, `the first text of pair ${i}`),
        checkText(text[1], false, `the second text of pair ${i}`),
      ]
    })
  }
  const pairs = listOf(textPair, 'textPair')
  if (pairs.length !== texts.length) refuse(`textPair has ${pairs.length} texts, the input ${texts.length}`)
  return texts.map((text, i) => [
    checkText(text, split, `text ${i}`),
    checkText(pairs[i], split, `textPair ${i}`),
  ])
}

function joined(arrays: readonly Int32Array[], length: number): Int32Array {
  const result = new Int32Array(length)
  let end = 0
  for (const array of arrays) {
    result.set(array, end)
    end += array.length
  }
  return result
}

/** Tokenizes one text, or its words one by one. */
function encodeText(native: NativeTokenizer, text: Text, details: boolean): Sequence {
  if (typeof text === 'string') {
    return details ? native.encodeDetailed(text) : { ids: native.encode(text) }
  }
  if (!details) {
    const ids = text.map((word) => native.encode(word))
    return {
      ids: joined(
        ids,
        ids.reduce((sum, { length }) => sum + length, 0),
      ),
    }
  }
  const words = text.map((word) => native.encodeDetailed(word))
  const count = words.reduce((sum, { ids }) => sum + ids.length, 0)
  return {
    ids: joined(
      words.map(({ ids }) => ids),
      count,
    ),
    offsets: joined(
      words.map(({ offsets }) => offsets),
      2 * count,
    ),
    words: joined(
      words.map(({ ids }, index) => new Int32Array(ids.length).fill(index)),
      count,
    ),
  }
}

/** Makes the function behind a tokenizer's call. */
export function createEncoder(
  settings: EncoderSettings,
): (input: TokenizerInput, options?: EncodeOptions) => Encoding {
  const { native, template, tokenId, truncationOrder, modelMaxLength } = settings
  const bare = (pair: boolean): TemplatePiece[] =>
    pair
      ? [
          { sequence: 'A', type: 0 },
          { sequence: 'B', type: 1 },
        ]
      : [{ sequence: 'A', type: 0 }]

  function strategyOf({
    truncation,
    maxLength,
  }: EncodeOptions): { strategy: TruncationStrategy; most: number } | undefined {
    if (maxLength !== undefined && !(Number.isInteger(maxLength) && maxLength >= 0)) {
      refuse(`maxLength is ${maxLength}, expected a whole number of tokens`)
    }
    const wanted = truncation ?? maxLength !== undefined
    if (wanted === false) return undefined
    const strategy = wanted === true ? 'longest_first' : wanted
    if (!['longest_first', 'only_first', 'only_second'].includes(strategy)) {
      refuse(`truncation is '${strategy}', expected true, false, longest_first, only_first or only_second`)
    }
    const most = maxLength ?? modelMaxLength
    return most === null ? undefined : { strategy, most }
  }

  return (input, options = {}) => {
    const { addSpecialTokens = true, stride = 0, returnOverflowingTokens = false } = options
    const { returnOffsetsMapping = false, returnWordIds = false } = options
    if (!Number.isInteger(stride) || stride < 0)
      refuse(`stride is ${stride}, expected a whole number of tokens`)
    const truncation = strategyOf(options)
    const inputIds: Int32Array[] = []
    const tokenTypeIds: Int32Array[] = []
    const offsetsMapping: Int32Array[] = []
    const wordIds: Int32Array[] = []
    const samples: number[] = []

    function pushRow(
      pieces: readonly TemplatePiece[],
      sequences: readonly Sequence[],
      parts: readonly Part[],
    ): void {
      const partOf = (piece: { sequence: 'A' | 'B' }): Part => parts[piece.sequence === 'A' ? 0 : 1] ?? [0, 0]
      let length = 0
      for (const piece of pieces) length += 'token' in piece ? 1 : partOf(piece)[1] - partOf(piece)[0]
      const ids = smallInt32Array(length)
      const types = smallInt32Array(length)
      const offsets = returnOffsetsMapping ? smallInt32Array(2 * length) : undefined
      const words = returnWordIds ? smallInt32Array(length).fill(-1) : undefined
      let at = 0
      for (const piece of pieces) {
        const start = at
        if ('token' in piece) {
          ids[at++] = tokenId(piece.token)
        } else {
          const [begin, end] = partOf(piece)
          const sequence = sequences[piece.sequence === 'A' ? 0 : 1]
          if (sequence === undefined) continue
          ids.set(sequence.ids.subarray(begin, end), at)
          if (sequence.offsets) offsets?.set(sequence.offsets.subarray(2 * begin, 2 * end), 2 * at)
          if (sequence.words) words?.set(sequence.words.subarray(begin, end), at)
          at += end - begin
        }
        if (piece.type !== 0) types.fill(piece.type, start, at)
      }
      inputIds.push(ids)
      tokenTypeIds.push(types)
      if (offsets) offsetsMapping.push(offsets)
      if (words) wordIds.push(words)
    }

    const rows = rowsOf(input, options)
    rows.forEach((texts, sample) => {
      const sequences = texts
        .filter((text) => text !== undefined)
        .map((text) => encodeText(native, text, returnOffsetsMapping || returnWordIds))
      const isPair = sequences.length === 2
      const pieces = addSpecialTokens ? (isPair ? template.pair : template.single) : bare(isPair)
      const whole = sequences.map(({ ids }): Part => [0, ids.length])
      if (truncation === undefined) {
        pushRow(pieces, sequences, whole)
        samples.push(sample)
        return
      }
      const { strategy, most } = truncation
      const room = most - pieces.filter((piece) => 'token' in piece).length
      if (room < 0) refuse(`maxLength is ${most}, too small for the ${most - room} special tokens of a row`)
      const lengths: [number, number?] = [whole[0]?.[1] ?? 0]
      if (isPair) lengths.push(whole[1]?.[1] ?? 0)
      const [first, second] = truncate(lengths, {
        strategy,
        room,
        stride,
        overflow: returnOverflowingTokens,
        order: truncationOrder,
      })
      if (first === undefined) return
      // The order of Hugging Face's library: the row itself; each part cut off the first text with every part of the second;
      // the first text's kept part with what was cut off the second.
      const firsts = [first.kept, ...(returnOverflowingTokens ? first.overflow : [])]
      const seconds = second && [second.kept, ...(returnOverflowingTokens ? second.overflow : [])]
      const combinations: Part[][] =
        seconds === undefined
          ? firsts.map((part) => [part])
          : [
              [firsts[0] as Part, seconds[0] as Part],
              ...firsts.slice(1).flatMap((part) => seconds.map((other) => [part, other])),
              ...seconds.slice(1).map((other) => [firsts[0] as Part, other]),
            ]
      for (const parts of combinations) {
        pushRow(pieces, sequences, parts)
        samples.push(sample)
      }
    })
    return {
      inputIds,
      tokenTypeIds,
      ...(returnOffsetsMapping && { offsetsMapping }),
      ...(returnWordIds && { wordIds }),
      ...(returnOverflowingTokens && { overflowToSampleMapping: Int32Array.from(samples) }),
    }
  }
}
