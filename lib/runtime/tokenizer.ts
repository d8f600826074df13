/** The native tokenizer and vocabulary trainer: thin wrappers, the only code that calls native/addon/text.cpp. */
import { addon } from './addon.js'
import { type ErrorCode, VoltaicError } from './errors.js'

/** Which tables and order of steps: Hugging Face's tokenizers, or the original TensorFlow code's. */
export type UnicodeEdition = 'huggingface' | 'google'

export interface NativeNormalizerOptions {
  readonly unicode: UnicodeEdition
  readonly cleanText: boolean
  readonly handleChineseChars: boolean
  readonly stripAccents: boolean
  readonly lowercase: boolean
}

export interface NativeAddedToken {
  readonly content: string
  readonly id: number
  readonly normalized: boolean
  readonly singleWord: boolean
  readonly leftStrip: boolean
  readonly rightStrip: boolean
}

export interface NativeTokenizerOptions extends NativeNormalizerOptions {
  /** One token a line, line number = id. */
  readonly vocabulary: string
  readonly unknownId: number
  readonly continuationPrefix: string
  readonly maxInputCharsPerWord: number
  readonly addedTokens: readonly NativeAddedToken[]
}

export interface NativeTrainingOptions {
  readonly vocabularySize: number
  readonly minFrequency: number
  readonly limitAlphabet: number
  readonly specialTokens: readonly string[]
}

declare const tokenizerBrand: unique symbol
declare const trainerBrand: unique symbol
type TokenizerHandle = { readonly [tokenizerBrand]: true }
type TrainerHandle = { readonly [trainerBrand]: true }

/** The native functions of native/addon/text.cpp. Errors carry a `code`. */
export interface TextAddon {
  tokenizerCreate(options: NativeTokenizerOptions): TokenizerHandle
  tokenizerEncode(tokenizer: TokenizerHandle, text: string): Int32Array
  tokenizerEncodeBytes(tokenizer: TokenizerHandle, utf8: Uint8Array): Int32Array
  tokenizerEncodeDetailed(tokenizer: TokenizerHandle, text: string): Int32Array
  vocabularyTrainerCreate(options: NativeNormalizerOptions): TrainerHandle
  vocabularyTrainerFeed(trainer: TrainerHandle, utf8: Uint8Array): void
  vocabularyTrainerEndText(trainer: TrainerHandle): void
  vocabularyTrainerWords(trainer: TrainerHandle): number
  vocabularyTrainerTrain(trainer: TrainerHandle, options: NativeTrainingOptions): Promise<string[]>
  vocabularyTrainerCancel(trainer: TrainerHandle): void
}

function rethrow(error: unknown): never {
  const { code, message } = error as { code?: ErrorCode; message?: string }
  if (code === undefined) throw error
  throw new VoltaicError(code, message ?? 'the native tokenizer failed', { cause: error })
}

function checked<T>(call: () => T): T {
  try {
    return call()
  } catch (error) {
    rethrow(error)
  }
}

/** The tokens of one text, in columns. */
export interface DetailedTokens {
  readonly ids: Int32Array
  /** Begin and end of each token in the text, in UTF-16 units: two numbers a token. */
  readonly offsets: Int32Array
  /** The index of the word that each token belongs to, from 0. */
  readonly words: Int32Array
}

/** A tokenizer in native memory, without special tokens around the text. Freed when nothing refers to it. */
export interface NativeTokenizer {
  encode(text: string): Int32Array
  /** Malformed bytes count as U+FFFD. */
  encodeBytes(utf8: Uint8Array): Int32Array
  encodeDetailed(text: string): DetailedTokens
}

export function createNativeTokenizer(options: NativeTokenizerOptions): NativeTokenizer {
  const handle = checked(() => addon.tokenizerCreate(options))
  return {
    encode: (text) => checked(() => addon.tokenizerEncode(handle, text)),
    encodeBytes: (utf8) => checked(() => addon.tokenizerEncodeBytes(handle, utf8)),
    encodeDetailed(text) {
      const columns = checked(() => addon.tokenizerEncodeDetailed(handle, text))
      const count = columns.length / 4
      return {
        ids: columns.subarray(0, count),
        offsets: columns.subarray(count, 3 * count),
        words: columns.subarray(3 * count),
      }
    },
  }
}

/** Counts words, then merges. `train` runs on another thread; nothing else may be called until it has ended. */
export interface NativeVocabularyTrainer {
  /** The next piece of a UTF-8 text, cut anywhere. */
  feed(utf8: Uint8Array): void
  /** Ends a text: its last word does not go on in what comes next. */
  endText(): void
  /** How many words were counted so far. */
  words(): number
  train(options: NativeTrainingOptions): Promise<string[]>
  /** Makes a running `train` end early; what it gives then is of no use. */
  cancel(): void
}

export function createNativeVocabularyTrainer(options: NativeNormalizerOptions): NativeVocabularyTrainer {
  const handle = checked(() => addon.vocabularyTrainerCreate(options))
  return {
    feed: (utf8) => checked(() => addon.vocabularyTrainerFeed(handle, utf8)),
    endText: () => checked(() => addon.vocabularyTrainerEndText(handle)),
    words: () => checked(() => addon.vocabularyTrainerWords(handle)),
    train: (trainingOptions) =>
      checked(() => addon.vocabularyTrainerTrain(handle, trainingOptions)).catch(rethrow),
    cancel: () => addon.vocabularyTrainerCancel(handle),
  }
}
