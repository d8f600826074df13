/** The tokenizer of a run: read from files, or trained from the run's corpus and kept beside it. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { hashPlainData } from '../data/hash.js'
import {
  type Corpus,
  checkLanguages,
  defaultLanguageExponent,
  type LanguageFiles,
  languageShares,
  openCorpus,
} from '../data/index.js'
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

/** A language, or another part of the text, with a share of its own. */
export interface LanguageCorpus {
  readonly name: string
  readonly corpus: Corpus
}

/** Text in several languages, which count by their shares (lib/data/languages.ts). */
export interface BalancedCorpus {
  readonly languages: readonly LanguageCorpus[]
  /** Default 0.7. */
  readonly exponent: number
}

const isBalanced = (text: Corpus | BalancedCorpus): text is BalancedCorpus => 'languages' in text

/**
 * Trains a WordPiece vocabulary on a corpus; deterministic. Of several languages, words count by the languages' shares, and the
 * alphabet may take up a quarter of the vocabulary instead of 1,000 characters: scripts add up.
 */
export async function trainTokenizer(
  text: Corpus | BalancedCorpus,
  options: TrainTokenizerOptions,
): Promise<Tokenizer> {
  const { vocabSize, cased = false, minFrequency = 2, signal } = options
  const balanced = isBalanced(text)
  const vocabulary = await trainVocabulary(balanced ? balancedTexts(text) : texts(text), {
    vocabularySize: vocabSize,
    minFrequency,
    ...(balanced && { limitAlphabet: Math.max(1000, Math.floor(vocabSize / 4)) }),
    lowercase: !cased,
    signal,
  })
  return createTokenizer({ vocabulary, lowercase: !cased })
}

async function* texts(corpus: Corpus): AsyncGenerator<Uint8Array> {
  for await (const document of corpus.documents()) yield document.bytes
}

async function countCharacters(corpus: Corpus): Promise<number> {
  let characters = 0
  for await (const bytes of texts(corpus)) {
    // Every byte of UTF-8 but those that go on within a character.
    for (let at = 0; at < bytes.length; at++) if (((bytes[at] as number) & 0xc0) !== 0x80) characters += 1
  }
  return characters
}

/**
 * Every document, as often as its language's share asks for, the largest share's once: document n of a language with rate r comes
 * floor((n + 1) r) - floor(n r) times, which adds up to r.
 */
async function* balancedTexts({ languages, exponent }: BalancedCorpus): AsyncGenerator<Uint8Array> {
  const sizes: number[] = []
  for (const { corpus } of languages) sizes.push(await countCharacters(corpus))
  const ratios = languageShares(sizes, exponent).map((share, at) => share / (sizes[at] as number))
  const least = Math.min(...ratios)
  for (const [at, { corpus }] of languages.entries()) {
    const rate = (ratios[at] as number) / least
    let index = 0
    for await (const bytes of texts(corpus)) {
      const times = Math.floor((index + 1) * rate) - Math.floor(index * rate)
      for (let time = 0; time < times; time++) yield bytes
      index += 1
    }
  }
}

/**
 * The tokenizer trained for a run, in `OUTPUT/tokenizer/KEY`, KEY a hash of all it depends on: found there, or trained. Written whole
 * or not at all, so a killed run finds either the finished vocabulary or none; another corpus does not touch this one's.
 */
export async function trainedTokenizer(
  text: Corpus | BalancedCorpus,
  output: string,
  options: TrainTokenizerOptions,
  announce: () => void,
): Promise<Tokenizer> {
  const read = ({ files, format, textField }: Corpus) => ({ files, format, textField })
  const key = hashPlainData({
    ...(isBalanced(text)
      ? {
          exponent: text.exponent,
          languages: text.languages.map(({ name, corpus }) => ({ name, ...read(corpus) })),
        }
      : read(text)),
    vocabSize: options.vocabSize,
    cased: options.cased ?? false,
    minFrequency: options.minFrequency ?? 2,
  }).slice(0, 32)
  const parent = join(output, 'tokenizer')
  const folder = join(parent, key)
  if (existsSync(folder)) return loadTokenizer(folder)
  announce()
  const tokenizer = await trainTokenizer(text, options)
  makeFolder(parent)
  await removeLeftovers(parent)
  await writeFolderAtomically(folder, (place) => tokenizer.save(place))
  return tokenizer
}

/** Opens the corpora of languages. @throws as `openCorpus`; ERR_ARGUMENT for names or an exponent that do not fit */
export async function openLanguages(
  languages: LanguageFiles,
  exponent: number = defaultLanguageExponent,
  signal?: AbortSignal | undefined,
): Promise<BalancedCorpus> {
  languageShares([1], exponent)
  const opened: LanguageCorpus[] = []
  for (const [name, patterns] of checkLanguages(languages)) {
    opened.push({ name, corpus: await openCorpus(patterns, signal && { signal }) })
  }
  return { languages: opened, exponent }
}
