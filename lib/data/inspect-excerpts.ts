/** Pieces of text that a report keeps: where they stand, how they are shown, and how they are held. */

/** Where a text stands. */
export interface TextPlace {
  readonly file: string
  readonly line: number
}

export function codePointName(codePoint: number): string {
  return `U+${codePoint.toString(16).toUpperCase().padStart(4, '0')}`
}

/** Halves of surrogate pairs that an excerpt cuts at its ends. */
const halfCharacters = /^[\udc00-\udfff]|[\ud800-\udbff]$/g

/** A copy of its own. A slice as it is would hold the whole document that it was cut from. */
export function ownText(slice: string): string {
  return Buffer.from(slice, 'utf16le').toString('utf16le')
}

/** An excerpt on one line; characters that do not show, or that a terminal would obey, are written as <U+XXXX>. */
export function visibleExcerpt(slice: string): string {
  const shown = slice
    .replace(halfCharacters, '')
    .replace(/\s+/g, (run) => (/[^ \t\n\r]/.test(run) ? run : ' '))
    .replace(
      /[^\S ]|[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\u115f\u1160\u3164]/gu,
      (character) => `<${codePointName(character.codePointAt(0) as number)}>`,
    )
  return ownText(shown)
}
