/** How well a vocabulary fits a corpus: unknown words, how words are split, entries that never occur. */
import type { Tokenizer } from '../text/index.js'
import { ownText, visibleExcerpt } from './inspect-excerpts.js'

export interface VocabularyCoverage {
  readonly vocabularySize: number
  readonly tokens: number
  /** Of all tokens: words that the vocabulary cannot spell. */
  readonly unknownShare: number
  /** The most frequent of them as they stand in the text. Exact while fewer than 65,536 differ, else at least. */
  readonly unknownWords: readonly { readonly word: string; readonly count: number }[]
  /** Tokens for each word of the tokenizer's own (punctuation marks are words). */
  readonly piecesPerWord: number
  /** Of all tokens: pieces of one letter, what the vocabulary falls back to where it has no longer piece. */
  readonly singleLetterShare: number
  /** Entries that never occur, without special tokens and the `[unusedN]` of BERT's vocabularies. */
  readonly unusedEntries: number
  readonly unusedExamples: readonly string[]
}

const maximumWords = 65_536

export class VocabularyCounter {
  readonly #tokenizer: Tokenizer
  readonly #counts: Float64Array
  #unknown = new Map<string, number>()

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer
    this.#counts = new Float64Array(tokenizer.vocabularySize)
  }

  /** Counts a document, given as text and in UTF-8; gives its number of tokens. */
  add(text: string, bytes: Uint8Array): number {
    const ids = this.#tokenizer.encodeBytes(bytes)
    const { unkTokenId } = this.#tokenizer
    const before = this.#counts[unkTokenId] as number
    for (const id of ids) this.#counts[id] = (this.#counts[id] as number) + 1
    if (this.#counts[unkTokenId] !== before) {
      for (const line of text.split('\n')) this.#addUnknown(line)
    }
    return ids.length
  }

  #addUnknown(line: string): void {
    const { unkTokenId } = this.#tokenizer
    if (!this.#tokenizer.encode(line).includes(unkTokenId)) return
    const encoding = this.#tokenizer(line, { addSpecialTokens: false, returnOffsetsMapping: true })
    const offsets = encoding.offsetsMapping?.[0]
    for (const [at, id] of (encoding.inputIds[0] ?? []).entries()) {
      if (id !== unkTokenId) continue
      const word = line.slice(offsets?.[2 * at], offsets?.[2 * at + 1])
      const count = this.#unknown.get(word)
      this.#unknown.set(count === undefined ? ownText(word) : word, (count ?? 0) + 1)
    }
    if (this.#unknown.size <= maximumWords) return
    const sorted = [...this.#unknown].sort(([, a], [, b]) => b - a)
    this.#unknown = new Map(sorted.slice(0, maximumWords / 2))
  }

  summary(examples: number): VocabularyCoverage {
    const { vocabulary, specialTokenIds, specification, unkTokenId } = this.#tokenizer
    const prefix = specification.continuationPrefix
    const special = new Set(specialTokenIds)
    let tokens = 0
    let words = 0
    let letters = 0
    const unused: string[] = []
    for (const [id, token] of vocabulary.entries()) {
      const count = this.#counts[id] as number
      const isContinuation = token.startsWith(prefix) && token.length > prefix.length
      tokens += count
      if (!isContinuation) words += count
      if (/^\p{L}$/u.test(isContinuation ? token.slice(prefix.length) : token)) letters += count
      if (count === 0 && token !== '' && !special.has(id) && !/^\[unused\d+\]$/.test(token))
        unused.push(token)
    }
    const share = (count: number): number => (tokens === 0 ? 0 : count / tokens)
    // From all over the vocabulary: its beginning is often an alphabet.
    const step = Math.max(1, Math.floor(unused.length / (2 * examples)))
    return {
      vocabularySize: vocabulary.length,
      tokens,
      unknownShare: share(this.#counts[unkTokenId] as number),
      unknownWords: [...this.#unknown]
        .sort(([, a], [, b]) => b - a)
        .slice(0, 2 * examples)
        .map(([word, count]) => ({ word: visibleExcerpt(word), count })),
      piecesPerWord: words === 0 ? 0 : tokens / words,
      singleLetterShare: share(letters),
      unusedEntries: unused.length,
      unusedExamples: unused.filter((_, at) => at % step === 0).slice(0, 2 * examples),
    }
  }
}
