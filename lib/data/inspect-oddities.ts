/**
 * What does not belong in a text: odd characters, UTF-8 that was read as Latin-1 or Windows-1252 (mojibake), and remains of HTML. For
 * each kind: how often, in how many documents, the most frequent forms, and the first places with the text around.
 */
import { type OddKind, oddKinds } from './inspect-code-points.js'
import { codePointName, ownText, type TextPlace, visibleExcerpt } from './inspect-excerpts.js'

export type OddityKind = OddKind | 'mojibake' | 'tag' | 'entity'

export const oddityKinds: readonly OddityKind[] = [...oddKinds, 'mojibake', 'tag', 'entity']

export interface OddityExample extends TextPlace {
  /** The text around; characters that do not show are written as <U+XXXX>. */
  readonly text: string
}

export interface Oddity {
  readonly kind: OddityKind
  readonly count: number
  /** Documents with at least one. */
  readonly documents: number
  /** The most frequent forms; characters as U+XXXX. */
  readonly frequent: readonly { readonly form: string; readonly count: number }[]
  readonly examples: readonly OddityExample[]
}

/** A byte 0x80 to 0xBF, as Latin-1 or Windows-1252 shows it. */
const trail = '[\\u0080-\\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]'
/** Two or three bytes of one character as a letter and what follows: alone where nobody writes that, else several of them in a row. */
const mojibake = new RegExp(
  `â€${trail}|[ÂÃ]${trail}|ï»¿|ï¿½|(?:[ÐÑ]${trail}){2,}|(?:[à-é]${trail}{2}){2,}|[Â-ô][\\u0080-\\u009f]${trail}?`,
  'g',
)
const tag = /<\/?[a-z][a-z0-9]{0,15}(?:\s[^<>\n]{0,200})?\s?\/?>|<!--|<!doctype\b/gi
const entity = /&(?:[a-z]{2,8}|#\d{1,6}|#x[0-9a-f]{1,6});/gi
const tagName = /^<\/?[a-z0-9]+/i

/** Different forms that are counted for a kind; later ones are not listed. */
const maximumForms = 4096
const around = 30

function tagForm(match: string): string {
  const name = tagName.exec(match)?.[0]
  return name === undefined ? ownText(match) : ownText(`${name}>`)
}

/** A document being looked at. */
export interface OddityDocument {
  readonly text: string
  readonly place: TextPlace
  /** Whether line feeds in the text are lines of the file. */
  readonly hasLines: boolean
}

class KindCounter {
  count = 0
  documents = 0
  lastDocument: OddityDocument | undefined
  readonly forms = new Map<string, number>()
  readonly examples: OddityExample[] = []
}

function exampleAt({ text, place, hasLines }: OddityDocument, start: number, end: number): OddityExample {
  let line = place.line
  if (hasLines)
    for (let at = text.indexOf('\n'); at >= 0 && at < start; at = text.indexOf('\n', at + 1)) line += 1
  const from = Math.max(0, text.lastIndexOf('\n', start - 1) + 1, start - around)
  const lineEnd = text.indexOf('\n', end)
  const to = Math.min(lineEnd < 0 ? text.length : lineEnd, end + around)
  return { file: place.file, line, text: visibleExcerpt(text.slice(from, to)) }
}

export class OddityCounter {
  readonly #kinds: readonly KindCounter[] = oddityKinds.map(() => new KindCounter())
  readonly #wanted: number

  /** `examples`: how many places and forms of each kind are kept. */
  constructor(examples: number) {
    this.#wanted = examples
  }

  /** An odd character: the number of its kind, itself, and where it stands. */
  addCharacter(kind: number, codePoint: number, document: OddityDocument, at: number): void {
    this.#add(kind, codePointName(codePoint), document, at, at + (codePoint > 0xffff ? 2 : 1))
  }

  /** Sequences: `hasMojibake` says that a character that begins one is there. */
  addSequences(document: OddityDocument, hasMojibake: boolean): void {
    const { text } = document
    if (hasMojibake) this.#addMatches('mojibake', mojibake, document)
    if (text.includes('<')) this.#addMatches('tag', tag, document)
    if (text.includes('&')) this.#addMatches('entity', entity, document)
  }

  #addMatches(kind: OddityKind, pattern: RegExp, document: OddityDocument): void {
    const number = oddityKinds.indexOf(kind)
    for (const { 0: match, index } of document.text.matchAll(pattern)) {
      const form = kind === 'tag' ? tagForm(match) : visibleExcerpt(match)
      this.#add(number, form, document, index, index + match.length)
    }
  }

  #add(kind: number, form: string, document: OddityDocument, start: number, end: number): void {
    const counter = this.#kinds[kind] as KindCounter
    counter.count += 1
    const count = counter.forms.get(form)
    if (count !== undefined || counter.forms.size < maximumForms) counter.forms.set(form, (count ?? 0) + 1)
    if (counter.lastDocument === document) return
    counter.lastDocument = document
    counter.documents += 1
    // One example a document shows more than several from the first.
    if (counter.examples.length < this.#wanted) counter.examples.push(exampleAt(document, start, end))
  }

  /** The kinds that occurred, in the order of `oddityKinds`. */
  summary(): Oddity[] {
    return this.#kinds.flatMap(({ count, documents, forms, examples }, kind) => {
      if (count === 0) return []
      const frequent = [...forms]
        .sort(([, a], [, b]) => b - a)
        .slice(0, Math.max(5, this.#wanted))
        .map(([form, count]) => ({ form, count }))
      return [{ kind: oddityKinds[kind] as OddityKind, count, documents, frequent, examples }]
    })
  }
}
