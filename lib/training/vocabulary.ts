/** The tokenizer of a run: read from files, or trained from the run's corpus and kept beside it. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { hashPlainData } from '../data/hash.js'
import type { Corpus } from '../data/index.js'
import { removeLeftovers, writeFolderAtomically } from '../runtime/atomic-file.js'
import { makeFolder } from '../runtime/make-folder.js'
import { createTokenizer, loadTokenizer, type Tokenizer, trainVocabulary } from '../text/index.js'

export interface TrainTokenizerOptions {
  readonly vocabSize: number
  /** Keep case and accents. Default false. */
  readonly cased?: boolean
  /** Pairs seen less often are not merged. Default 2. */
  readonly minFrequency?: number
  readonly signal?: AbortSignal | undefined
}

/** Trains a WordPiece vocabulary on a corpus; deterministic. */
export async function trainTokenizer(corpus: Corpus, options: TrainTokenizerOptions): Promise<Tokenizer> {
  const { vocabSize, cased = false, minFrequency = 2, signal } = options
  const vocabulary = await trainVocabulary(texts(corpus), {
    vocabularySize: vocabSize,
    minFrequency,
    lowercase: !cased,
    signal,
  })
  return createTokenizer({ vocabulary, lowercase: !cased })
}

async function* texts(corpus: Corpus): AsyncGenerator<Uint8Array> {
  for await (const document of corpus.documents()) yield document.bytes
}

/**
 * The tokenizer trained for a run, in `OUTPUT/tokenizer/KEY`, KEY a hash of all it depends on: found there, or trained. Written whole
 * or not at all, so a killed run finds either the finished vocabulary or none; another corpus does not touch this one's.
 */
export async function trainedTokenizer(
  corpus: Corpus,
  output: string,
  options: TrainTokenizerOptions,
  announce: () => void,
): Promise<Tokenizer> {
  const key = hashPlainData({
    files: corpus.files,
    format: corpus.format,
    textField: corpus.textField,
    vocabSize: options.vocabSize,
    cased: options.cased ?? false,
    minFrequency: options.minFrequency ?? 2,
  }).slice(0, 32)
  const parent = join(output, 'tokenizer')
  const folder = join(parent, key)
  if (existsSync(folder)) return loadTokenizer(folder)
  announce()
  const tokenizer = await trainTokenizer(corpus, options)
  makeFolder(parent)
  await removeLeftovers(parent)
  await writeFolderAtomically(folder, (place) => tokenizer.save(place))
  return tokenizer
}
