/**
 * What a corpus is like, before training: sizes, lengths, repeats, languages, odd characters, and how a vocabulary fits it. The
 * documents are those that training reads; each is looked at once and nothing of it is kept, so memory is bounded whatever
 * the size of the corpus (about 140 MB of tables when all are full; what each part keeps stands in its file).
 */
import { VoltaicError } from '../runtime/errors.js'
import type { Tokenizer } from '../text/index.js'
import { type CorpusDocument, type CorpusOptions, type CorpusWarning, openCorpus } from './corpus.js'
import {
  aloneBit,
  classOf,
  letterBit,
  oddBits,
  oddShift,
  scriptBits,
  spaceBit,
  wordBit,
} from './inspect-code-points.js'
import { LanguageCounter, type LanguageShare, type ScriptShare } from './inspect-languages.js'
import { LengthDistribution, type LengthSummary } from './inspect-lengths.js'
import { NearDuplicateFinder, type NearDuplicateSummary } from './inspect-near-duplicates.js'
import { type Oddity, OddityCounter, type OddityDocument } from './inspect-oddities.js'
import { hashText, RepeatCounter, type RepeatSummary } from './inspect-repeats.js'
import { VocabularyCounter, type VocabularyCoverage } from './inspect-vocabulary.js'

export interface InspectProgress {
  readonly documents: number
  /** Stored bytes read, and of all files. */
  readonly bytesRead: number
  readonly bytes: number
}

export interface InspectOptions extends CorpusOptions {
  /** Adds the coverage of this tokenizer's vocabulary. */
  readonly tokenizer?: Tokenizer | undefined
  /** How many examples of each finding are kept. Default 3. */
  readonly examples?: number | undefined
  /** Seed of the hashes behind repeats and near-duplicates. Default 1. */
  readonly seed?: number | undefined
  readonly onProgress?: ((progress: InspectProgress) => void) | undefined
}

export interface CorpusInspection {
  readonly files: number
  /** Bytes of the files as stored. */
  readonly storedBytes: number
  /** Bytes of the documents as UTF-8. */
  readonly bytes: number
  readonly documents: number
  /** Lines that are not blank. */
  readonly lines: number
  /** Runs without white space; in scripts without spaces they are not words. */
  readonly words: number
  /** Code points, line ends included. */
  readonly characters: number
  readonly lengths: {
    readonly documentCharacters: LengthSummary
    readonly documentWords: LengthSummary
    readonly lineCharacters: LengthSummary
    /** With a tokenizer. */
    readonly documentTokens?: LengthSummary
  }
  readonly duplicateDocuments: RepeatSummary
  readonly duplicateLines: RepeatSummary
  readonly nearDuplicates: NearDuplicateSummary
  readonly scripts: readonly ScriptShare[]
  readonly languages: readonly LanguageShare[]
  readonly oddities: readonly Oddity[]
  /** Files with malformed UTF-8, or with documents cut because they were too long. */
  readonly warnings: readonly CorpusWarning[]
  readonly vocabulary?: VocabularyCoverage
}

/** Different lines and documents that are held before they are sampled. */
const heldLines = 1 << 21
const heldDocuments = 1 << 19

class Inspection {
  bytes = 0
  documents = 0
  lines = 0
  words = 0
  characters = 0
  readonly documentCharacters = new LengthDistribution()
  readonly documentWords = new LengthDistribution()
  readonly lineCharacters = new LengthDistribution()
  readonly documentTokens = new LengthDistribution()
  readonly duplicateDocuments = new RepeatCounter(heldDocuments)
  readonly duplicateLines = new RepeatCounter(heldLines)
  readonly nearDuplicates: NearDuplicateFinder
  readonly languages: LanguageCounter
  readonly oddities: OddityCounter
  readonly vocabulary: VocabularyCounter | undefined
  readonly #seed: number

  constructor(seed: number, examples: number, tokenizer: Tokenizer | undefined) {
    this.#seed = seed
    this.nearDuplicates = new NearDuplicateFinder(seed, examples)
    this.languages = new LanguageCounter(seed)
    this.oddities = new OddityCounter(examples)
    this.vocabulary = tokenizer && new VocabularyCounter(tokenizer)
  }

  add(document: CorpusDocument): void {
    const { bytes, file, line, isJsonLine } = document
    const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString()
    const place = { file, line }
    const characters = this.#addCharacters({ text, place, hasLines: !isJsonLine })
    const hash = hashText(text, 0, text.trimEnd().length, this.#seed)
    const isRepeat = this.duplicateDocuments.add(hash, text, 0, text.length, characters, place)
    this.nearDuplicates.begin()
    this.#addWords(text.toLowerCase())
    this.nearDuplicates.end(hash, characters, place, isRepeat)
    this.languages.end()
    if (this.vocabulary) this.documentTokens.add(this.vocabulary.add(text, bytes))
    this.bytes += bytes.length
    this.documents += 1
  }

  /** One pass over the code points; gives their number. */
  #addCharacters(document: OddityDocument): number {
    const { text, place, hasLines } = document
    let characters = 0
    let words = 0
    let inWord = false
    let hasMojibake = false
    let lineStart = 0
    let lineCharacters = 0
    let lineNumber = place.line
    for (let at = 0; at < text.length; at++) {
      const codePoint = text.codePointAt(at) as number
      const bits = classOf(codePoint)
      characters += 1
      if ((bits & spaceBit) !== 0) inWord = false
      else if (!inWord) {
        inWord = true
        words += 1
      }
      if ((bits & letterBit) !== 0) this.languages.addLetter(bits & scriptBits)
      if ((bits & oddBits) !== 0)
        this.oddities.addCharacter(((bits & oddBits) >> oddShift) - 1, codePoint, document, at)
      // The first bytes of UTF-8 sequences, as Latin-1 shows them.
      if (codePoint >= 0xc2 && codePoint <= 0xf4) hasMojibake = true
      if (codePoint > 0xffff) at += 1
      if (codePoint === 0x0a) {
        this.#addLine(text, lineStart, at, lineCharacters, { file: place.file, line: lineNumber })
        lineStart = at + 1
        lineCharacters = 0
        if (hasLines) lineNumber += 1
      } else lineCharacters += 1
    }
    this.#addLine(text, lineStart, text.length, lineCharacters, { file: place.file, line: lineNumber })
    this.oddities.addSequences(document, hasMojibake)
    this.characters += characters
    this.words += words
    this.documentCharacters.add(characters)
    this.documentWords.add(words)
    return characters
  }

  #addLine(
    text: string,
    from: number,
    to: number,
    characters: number,
    place: { file: string; line: number },
  ): void {
    let start = from
    let end = to
    while (start < end && (classOf(text.charCodeAt(start)) & spaceBit) !== 0) start += 1
    while (end > start && (classOf(text.charCodeAt(end - 1)) & spaceBit) !== 0) end -= 1
    if (start === end) return
    this.lines += 1
    this.lineCharacters.add(characters)
    const hash = hashText(text, start, end, this.#seed)
    this.duplicateLines.add(hash, text, start, end, characters, place)
  }

  /** The words of a text in lower case: runs of letters and digits, or single characters in scripts without spaces. */
  #addWords(text: string): void {
    let start = -1
    const finish = (end: number): void => {
      if (start < 0) return
      const hash = hashText(text, start, end, this.#seed)
      this.nearDuplicates.addWord(hash)
      this.languages.addWord(hash)
      start = -1
    }
    for (let at = 0; at < text.length; at++) {
      const codePoint = text.codePointAt(at) as number
      const bits = classOf(codePoint)
      const units = codePoint > 0xffff ? 2 : 1
      if ((bits & wordBit) === 0 || (bits & aloneBit) !== 0) finish(at)
      if ((bits & wordBit) !== 0 && start < 0) start = at
      if ((bits & aloneBit) !== 0) finish(at + units)
      at += units - 1
    }
    finish(text.length)
  }
}

/**
 * Reads a corpus as training does and reports what it is like.
 * @param patterns files and globs, as for `openCorpus`
 * @throws ERR_ARGUMENT for options out of range; ERR_IO, ERR_FORMAT and ERR_UNSUPPORTED as reading a corpus does; ERR_ABORTED.
 */
export async function inspectCorpus(
  patterns: readonly string[],
  options: InspectOptions = {},
): Promise<CorpusInspection> {
  const { tokenizer, examples = 3, seed = 1, onProgress, ...reading } = options
  if (!Number.isInteger(examples) || examples < 1 || examples > 100)
    throw new VoltaicError('ERR_ARGUMENT', `examples is ${examples}, expected a whole number from 1 to 100`)
  if (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32)
    throw new VoltaicError('ERR_ARGUMENT', `seed is ${seed}, expected a whole number from 0 to 2^32 - 1`)
  const corpus = await openCorpus(patterns, reading)
  const found = new Inspection(seed, examples, tokenizer)
  for await (const document of corpus.documents()) {
    found.add(document)
    onProgress?.({ documents: found.documents, bytesRead: corpus.bytesRead, bytes: corpus.bytes })
  }
  return {
    files: corpus.files.length,
    storedBytes: corpus.bytes,
    bytes: found.bytes,
    documents: found.documents,
    lines: found.lines,
    words: found.words,
    characters: found.characters,
    lengths: {
      documentCharacters: found.documentCharacters.summary(),
      documentWords: found.documentWords.summary(),
      lineCharacters: found.lineCharacters.summary(),
      ...(tokenizer && { documentTokens: found.documentTokens.summary() }),
    },
    duplicateDocuments: found.duplicateDocuments.summary(examples),
    duplicateLines: found.duplicateLines.summary(examples),
    nearDuplicates: found.nearDuplicates.summary(),
    ...found.languages.summary(),
    oddities: found.oddities.summary(),
    warnings: corpus.warnings,
    ...(found.vocabulary && { vocabulary: found.vocabulary.summary(examples) }),
  }
}
