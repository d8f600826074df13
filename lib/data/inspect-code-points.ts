/**
 * What a code point is: its script, whether it is a letter or digit, whether it is odd in a corpus. Asked once for each code point
 * that occurs, of the runtime's Unicode tables: a report may change with them, a tokenizer's ids do not.
 */

/** What is counted as odd, and what it tells. */
export const oddKinds = [
  'replacement',
  'control',
  'private-use',
  'unassigned',
  'invisible',
  'direction-mark',
  'unusual-space',
] as const

export type OddKind = (typeof oddKinds)[number]

const scripts = [
  'Latin',
  'Cyrillic',
  'Greek',
  'Arabic',
  'Hebrew',
  'Devanagari',
  'Bengali',
  'Tamil',
  'Telugu',
  'Thai',
  'Lao',
  'Khmer',
  'Myanmar',
  'Tibetan',
  'Han',
  'Hiragana',
  'Katakana',
  'Hangul',
  'Armenian',
  'Georgian',
  'Ethiopic',
] as const

/** Names of scripts by number. The first stands for all that are not listed, such as marks that many scripts share. */
export const scriptNames: readonly string[] = ['other', ...scripts]

/** Written without spaces between words: each character counts as a word. */
const spaceless = new Set(['Thai', 'Lao', 'Khmer', 'Myanmar', 'Tibetan', 'Han', 'Hiragana', 'Katakana'])

const scriptPatterns = scripts.map((name) => new RegExp(`\\p{Script=${name}}`, 'u'))

const oddPatterns: readonly [kind: OddKind, pattern: RegExp][] = [
  ['replacement', /\ufffd/],
  ['control', /(?![\t-\r])\p{Cc}/u],
  ['private-use', /\p{Co}/u],
  ['unassigned', /\p{Cn}|\p{Cs}/u],
  // Joiners (U+200C, U+200D) are not odd: Persian, Indian scripts and emoji need them.
  ['invisible', /\u034f|[\u00ad\u115f\u1160\u180e\u200b\u2060-\u2064\u3164\ufeff\uffa0]/],
  ['direction-mark', /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/],
  ['unusual-space', /(?![ \u3000])[\p{Zs}\u2028\u2029]/u],
]

/** Bits of a class: a script's number, an odd kind's number from 1, and what else it is. */
export const scriptBits: number = 0x3f
export const oddShift: number = 6
export const oddBits: number = 0x0f << oddShift
export const letterBit: number = 1 << 10
/** A letter, digit or mark: part of a word. */
export const wordBit: number = 1 << 11
export const aloneBit: number = 1 << 12
export const spaceBit: number = 1 << 13
const knownBit = 1 << 14

const classes = new Uint16Array(0x110000)

function classify(codePoint: number): number {
  const character = String.fromCodePoint(codePoint)
  const script = scriptPatterns.findIndex((pattern) => pattern.test(character)) + 1
  const odd = oddPatterns.find(([, pattern]) => pattern.test(character))?.[0]
  let bits = knownBit | script
  if (odd !== undefined) bits |= (oddKinds.indexOf(odd) + 1) << oddShift
  if (/\p{L}/u.test(character)) bits |= letterBit
  if (/[\p{L}\p{N}\p{M}]/u.test(character)) bits |= wordBit
  if (spaceless.has(scriptNames[script] as string)) bits |= aloneBit
  if (/\s/.test(character)) bits |= spaceBit
  return bits
}

/** The class of a code point: the bits above. */
export function classOf(codePoint: number): number {
  const known = classes[codePoint] as number
  if (known !== 0) return known
  const found = classify(codePoint)
  classes[codePoint] = found
  return found
}
