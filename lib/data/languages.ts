/**
 * Several languages in one run. Left to their sizes, large ones drown small ones, so each is drawn with a probability between its part
 * and an equal one (Devlin's multilingual BERT; Conneau and Lample, 2019, section 3.1):
 *
 *   q = p^exponent / sum of p^exponent,  p: the part of all tokens (of a vocabulary's training: of all characters)
 *
 * Exponent 1 keeps the parts, 0 makes all equal.
 */
import { VoltaicError } from '../runtime/errors.js'
import type { Segments } from './segments.js'

/** Names of languages, or of other parts of a corpus, and the files and globs of each. */
export type LanguageFiles = Readonly<Record<string, readonly string[]>>

export const defaultLanguageExponent = 0.7

/** A language's segments, and its probability. */
export interface LanguageSegments {
  readonly name: string
  readonly segments: Segments
  /** Of all tokens that are trained on, the part that is to be this language's. */
  readonly share: number
}

/**
 * The shares of languages of these sizes.
 * @throws ERR_ARGUMENT for an exponent that is not 0 to 1, or a size that is not above 0
 */
export function languageShares(
  sizes: readonly number[],
  exponent: number = defaultLanguageExponent,
): number[] {
  if (!(exponent >= 0 && exponent <= 1)) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `the language exponent is ${exponent}; expected a number from 0 (all languages alike) to 1 (as large as they are)`,
    )
  }
  const empty = sizes.find((size) => !(size > 0))
  if (empty !== undefined) {
    throw new VoltaicError('ERR_ARGUMENT', `a language has a size of ${empty}; expected a number above 0`)
  }
  const total = sizes.reduce((sum, size) => sum + size, 0)
  const powers = sizes.map((size) => (size / total) ** exponent)
  const sum = powers.reduce((all, power) => all + power, 0)
  return powers.map((power) => power / sum)
}

/**
 * The names and patterns that were given.
 * @throws ERR_ARGUMENT when there is none, a name is empty, or a language has no pattern
 */
export function checkLanguages(languages: LanguageFiles): [name: string, patterns: readonly string[]][] {
  const entries = Object.entries(languages)
  const wrong = entries.find(([name, patterns]) => name.trim() === '' || patterns.length === 0)
  if (entries.length === 0 || wrong !== undefined) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      wrong === undefined
        ? 'languages names none; expected names with files and globs'
        : `language ${JSON.stringify(wrong[0])} has no name or no file; expected both`,
    )
  }
  return entries
}

/** Several sets of segments as one, one behind the other; the first's form is that of all. */
export function concatenateSegments(parts: readonly Segments[]): Segments {
  const [first] = parts as readonly [Segments]
  const starts: number[] = []
  let count = 0
  for (const part of parts) {
    starts.push(count)
    count += part.count
  }
  const sum = (of: (part: Segments) => number): number => parts.reduce((all, part) => all + of(part), 0)
  return {
    kind: first.kind,
    sequenceLength: first.sequenceLength,
    clsTokenId: first.clsTokenId,
    sepTokenId: first.sepTokenId,
    count,
    totalTokens: sum((part) => part.totalTokens),
    discardedTokens: sum((part) => part.discardedTokens),
    documentCount: sum((part) => part.documentCount),
    read(index, content) {
      const at = starts.findLastIndex((start) => start <= index)
      const part = parts[Math.max(0, at)] as Segments
      part.read(index - (starts[Math.max(0, at)] as number), content)
    },
  }
}

/**
 * The same in another order: at any place, each part has come in proportion to its size, so that the first batches are of all. 4 bytes
 * a segment: for validation.
 */
export function interleaveSegments(parts: readonly Segments[]): Segments {
  const all = concatenateSegments(parts)
  const places = new Float64Array(all.count)
  let at = 0
  for (const { count } of parts) for (let i = 0; i < count; i++) places[at++] = (i + 0.5) / count
  const order = Uint32Array.from(places.keys()).sort(
    (a, b) => (places[a] as number) - (places[b] as number) || a - b,
  )
  return { ...all, read: (index, content) => all.read(order[index] ?? index, content) }
}
