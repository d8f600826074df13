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

type Encode<Text> = (
  tokenizer: TokenizerHandle,
  text: Text,
  shared: Int32Array,
  from: number,
) => number | Int32Array

/** The native functions of native/addon/text.cpp. Errors carry a `code`. */
export interface TextAddon {
  tokenizerCreate(options: NativeTokenizerOptions): TokenizerHandle
  /** Numbers go into `shared` from `from` on where they fit, and the result is how many; else into the array that is the result. */
  tokenizerEncode: Encode<string>
  tokenizerEncodeBytes: Encode<Uint8Array>
  tokenizerEncodeDetailed: Encode<string>
  tokenizerEncodeDocuments(
    tokenizer: TokenizerHandle,
    utf8: Uint8Array,
    ends: Uint32Array,
    wide: boolean,
  ): TokenizedDocuments
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

export type TokenArray = Uint16Array | Int32Array

/** Tokens of consecutive documents. */
export interface TokenizedDocuments {
  readonly tokens: TokenArray
  /** First sentence of each document, one more than there are documents. */
  readonly documents: Uint32Array
  /** First token of each sentence, one more than there are sentences. */
  readonly sentences: Uint32Array
}

// Results are views on memory that they share, as those of Buffer.allocUnsafe are: V8 needs 1.5 µs to make a typed array with memory
// of its own, as long as encoding 300 bytes takes.
const sharedLength = 16 * 1024
/** A longer result may get memory of its own. */
const reserved = 1024
let shared = new Int32Array(0)
let used = 0

function makeRoom(): void {
  // Its length is 0 when someone has moved its memory to another thread.
  if (shared.length - used >= reserved) return
  shared = new Int32Array(sharedLength)
  used = 0
}

function take(length: number): Int32Array {
  const view = new Int32Array(shared.buffer, 4 * used, length)
  used += length
  return view
}

/** Zeros; short arrays are views on shared memory. */
export function smallInt32Array(length: number): Int32Array {
  if (length > reserved) return new Int32Array(length)
  makeRoom()
  return take(length)
}

function encodeShared<Text>(encode: Encode<Text>, handle: TokenizerHandle, text: Text): Int32Array {
  makeRoom()
  const result = checked(() => encode(handle, text, shared, used))
  return typeof result === 'number' ? take(result) : result
}

/** A tokenizer in native memory, without special tokens around the text. Freed when nothing refers to it. */
export interface NativeTokenizer {
  encode(text: string): Int32Array
  /** Malformed bytes count as U+FFFD. */
  encodeBytes(utf8: Uint8Array): Int32Array
  encodeDetailed(text: string): DetailedTokens
  /**
   * Documents that lie one behind the other, each to its end in `ends`. A line with a token is a sentence. `wide`: ids of 32 bits, not 16.
   * @throws ERR_ARGUMENT for ends that do not ascend or lie outside.
   */
  encodeDocuments(utf8: Uint8Array, ends: Uint32Array, wide: boolean): TokenizedDocuments
}

export function createNativeTokenizer(options: NativeTokenizerOptions): NativeTokenizer {
  const handle = checked(() => addon.tokenizerCreate(options))
  return {
    encode: (text) => encodeShared(addon.tokenizerEncode, handle, text),
    encodeBytes: (utf8) => encodeShared(addon.tokenizerEncodeBytes, handle, utf8),
    encodeDetailed(text) {
      const columns = encodeShared(addon.tokenizerEncodeDetailed, handle, text)
      const count = columns.length / 4
      return {
        ids: columns.subarray(0, count),
        offsets: columns.subarray(count, 3 * count),
        words: columns.subarray(3 * count),
      }
    },
    encodeDocuments: (utf8, ends, wide) =>
      checked(() => addon.tokenizerEncodeDocuments(handle, utf8, ends, wide)),
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
