/** Training a WordPiece vocabulary from text, reproducibly. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { VoltaicError } from '../runtime/errors.js'
import { createNativeVocabularyTrainer, type UnicodeEdition } from '../runtime/tokenizer.js'

export interface TrainVocabularyOptions {
  /** How many tokens to make, special tokens included. More when special tokens and alphabet alone are more. */
  readonly vocabularySize: number
  /** Pairs seen less often are not merged. Default 2. */
  readonly minFrequency?: number | undefined
  /** The most characters that tokens are made of, the most frequent ones; words lose the others. Default 1000. */
  readonly limitAlphabet?: number | undefined
  /** The first tokens. Default [PAD] [UNK] [CLS] [SEP] [MASK]. */
  readonly specialTokens?: readonly string[] | undefined
  /** Default true. */
  readonly lowercase?: boolean | undefined
  /** Default: as `lowercase`. */
  readonly stripAccents?: boolean | undefined
  /** Default true. */
  readonly handleChineseChars?: boolean | undefined
  /** Default true. */
  readonly cleanText?: boolean | undefined
  /** Default huggingface; see TokenizerSpecification. */
  readonly unicode?: UnicodeEdition | undefined
  /** The chunks are pieces of one text, cut anywhere (a file's read stream, say). Default false: each chunk is a text of its own. */
  readonly continuous?: boolean | undefined
  /** Ends the training with ERR_ABORTED. */
  readonly signal?: AbortSignal | undefined
}

/** How much is counted in one go; other work of the process waits that long (some ten milliseconds). */
const pieceSize = 1 << 18
const turnMilliseconds = 10

function* piecesOf(chunk: Uint8Array | string): Generator<Uint8Array> {
  for (let begin = 0; begin < chunk.length; ) {
    let end = Math.min(begin + pieceSize, chunk.length)
    if (typeof chunk !== 'string') {
      yield chunk.subarray(begin, end)
    } else {
      // Never between the two halves of a character.
      const last = chunk.charCodeAt(end - 1)
      if (last >= 0xd800 && last < 0xdc00 && end < chunk.length) end += 1
      yield Buffer.from(chunk.slice(begin, end))
    }
    begin = end
  }
}

function checkCount(value: number, name: string, least: number): number {
  if (Number.isSafeInteger(value) && value >= least) return value
  throw new VoltaicError(
    'ERR_ARGUMENT',
    `trainVocabulary: ${name} is ${value}, expected a whole number from ${least}`,
  )
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) {
    throw new VoltaicError('ERR_ABORTED', 'trainVocabulary: stopped by its signal', { cause: signal.reason })
  }
}

/**
 * Trains a WordPiece vocabulary (byte pair encoding with "##", as Hugging Face's trainer does). The same texts give the same
 * vocabulary, however they are divided into chunks with `continuous`, and in whatever order they come.
 * Counting takes turns with the event loop; merging runs on another thread.
 * @throws ERR_ARGUMENT for options out of range or texts without a word, ERR_ABORTED, ERR_OUT_OF_MEMORY.
 */
export async function trainVocabulary(
  chunks: AsyncIterable<Uint8Array | string> | Iterable<Uint8Array | string>,
  options: TrainVocabularyOptions,
): Promise<string[]> {
  const { lowercase = true, unicode = 'huggingface', continuous = false, signal } = options
  const { specialTokens = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'] } = options
  const broken = specialTokens.find((token) => token === '' || token.includes('\n'))
  if (broken !== undefined) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `trainVocabulary: ${JSON.stringify(broken)} cannot be a special token`,
    )
  }
  const training = {
    vocabularySize: checkCount(options.vocabularySize, 'vocabularySize', 1),
    minFrequency: checkCount(options.minFrequency ?? 2, 'minFrequency', 0),
    limitAlphabet: checkCount(options.limitAlphabet ?? 1000, 'limitAlphabet', 1),
    specialTokens,
  }
  const trainer = createNativeVocabularyTrainer({
    unicode,
    lowercase,
    stripAccents: options.stripAccents ?? lowercase,
    handleChineseChars: options.handleChineseChars ?? true,
    cleanText: options.cleanText ?? true,
  })
  let turnStart = performance.now()
  for await (const chunk of typeof chunks === 'string' ? [chunks] : chunks) {
    for (const piece of piecesOf(chunk)) {
      throwIfAborted(signal)
      trainer.feed(piece)
      if (performance.now() - turnStart < turnMilliseconds) continue
      await nextTurn()
      turnStart = performance.now()
    }
    if (!continuous) trainer.endText()
  }
  trainer.endText()
  throwIfAborted(signal)
  if (trainer.words() === 0) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      'trainVocabulary: there is no word in the texts; nothing to train on',
    )
  }
  const cancel = (): void => trainer.cancel()
  signal?.addEventListener('abort', cancel, { once: true })
  try {
    const vocabulary = await trainer.train(training)
    throwIfAborted(signal)
    return vocabulary
  } finally {
    signal?.removeEventListener('abort', cancel)
  }
}
