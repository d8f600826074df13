/** The text of text-infilling: what was not filled stays as it was given, letter by letter; what was filled stands between. */
import type { TextTokens } from './windows.js'

export interface InfilledToken {
  /** The token's place in the row of the whole text, [CLS] included. */
  readonly index: number
  /** The piece as in the vocabulary. */
  readonly word: string
  /** The generator's probability for it where it was drawn last, before temperature, top_k and top_p. */
  readonly score: number
  /** Its place in the new text, in UTF-16 units. */
  readonly start: number
  readonly end: number
}

/** A token that was filled in. */
export interface Filling {
  readonly word: string
  readonly score: number
}

const isSpace = (text: string): boolean => /\s$/u.test(text)

/**
 * Puts fillings in the places of tokens. A continuation (##ing) goes directly behind what stands before it; a new word that would
 * touch another filling gets a space.
 * @param fillings by the token's place in the text
 * @param first where in the row the text begins
 */
export function infilledText(
  { text, offsets }: TextTokens,
  fillings: ReadonlyMap<number, Filling>,
  continuationPrefix: string,
  first: number,
): { readonly text: string; readonly tokens: InfilledToken[] } {
  const tokens: InfilledToken[] = []
  let result = ''
  let copied = 0
  for (const index of [...fillings.keys()].sort((a, b) => a - b)) {
    const { word, score } = fillings.get(index) as Filling
    const start = offsets[2 * index] as number
    result += text.slice(copied, start)
    const touches = copied === start && tokens.length > 0
    copied = Math.max(copied, offsets[2 * index + 1] as number)
    const continues = continuationPrefix !== '' && word.startsWith(continuationPrefix)
    const shown = continues ? word.slice(continuationPrefix.length) : word
    if (continues) result = result.trimEnd()
    else if (touches && !isSpace(result)) result += ' '
    tokens.push({
      index: first + index,
      word,
      score,
      start: result.length,
      end: result.length + shown.length,
    })
    result += shown
  }
  return { text: result + text.slice(copied), tokens }
}
