/**
 * Records of TSV and CSV. TSV knows no quotes: a tab always parts, as in GLUE's files. CSV follows RFC 4180: a field that starts with
 * a quote ends at the next single one, `""` inside stands for one, and commas and line ends inside belong to the field; a quote later
 * in a bare field is an ordinary character. Lines that are empty make no record.
 */
import { VoltaicError } from '../runtime/errors.js'
import { longestLine, type TextLine, textLines, wholeLines } from './text-file.js'

export interface DelimitedRecord {
  /** The line that it starts on, from 1. */
  readonly line: number
  readonly fields: readonly string[]
  /** Set when the record is malformed. */
  readonly problem?: string
}

/** More columns than any task has; a line of nothing but separators shall not fill the memory. */
export const mostColumns: number = 1000

function record(line: number, fields: readonly string[], problem?: string): DelimitedRecord {
  const wrong = fields.length > mostColumns ? `more than ${mostColumns} columns` : problem
  return { line, fields, ...(wrong === undefined ? {} : { problem: wrong }) }
}

export function* tsvRecords(bytes: Buffer): Generator<DelimitedRecord> {
  for (const { line, text: row } of textLines(bytes)) {
    if (row !== '') yield record(line, row.split('\t', mostColumns + 1))
  }
}

const quoteMark = 0x22

/** The first quote from here that is not doubled, or the text's end. */
function closingQuote(text: string, from: number): number {
  let at = from
  for (; at < text.length; at++) {
    if (text.charCodeAt(at) !== quoteMark) continue
    if (text.charCodeAt(at + 1) !== quoteMark) break
    at += 1
  }
  return at
}

/** The text with each `""` as one quote; with millions of them replaceAll takes seconds. */
function singleQuotes(text: string): string {
  if (!text.includes('"')) return text
  const bytes = Buffer.from(text)
  let length = 0
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] as number
    bytes[length++] = byte
    if (byte === quoteMark) at += 1
  }
  return bytes.toString('utf8', 0, length)
}

/** Reads fields from lines, going on to the next one inside quotes. */
class CsvLines {
  readonly #lines: Iterator<TextLine>
  /** What is read, and from where. */
  #text = ''
  #at = 0
  /** The number of that line, from 1. */
  line = 0

  constructor(
    bytes: Buffer,
    readonly file: string,
  ) {
    this.#lines = wholeLines(bytes)
  }

  /** Goes on to the next line; false when there is none. */
  next(): boolean {
    const { done, value } = this.#lines.next()
    if (done) return false
    this.#text = value.text
    this.#at = 0
    this.line = value.line
    return true
  }

  /** Whether a comma comes; it is passed over. */
  takesComma(): boolean {
    if (this.#text[this.#at] !== ',') return false
    this.#at += 1
    return true
  }

  /** The next field, which may have a problem. @param number of the field, from 1 */
  field(number: number): { readonly value: string; readonly problem?: string } {
    if (this.#text[this.#at] !== '"') return { value: this.#bare() }
    const value = this.#quoted(number)
    return this.#bare().trim() === ''
      ? { value }
      : {
          value,
          problem: `field ${number} goes on behind its closing quote; write "" for a quote inside quotes`,
        }
  }

  /** Up to the next comma or the line's end. */
  #bare(): string {
    const comma = this.#text.indexOf(',', this.#at)
    const start = this.#at
    this.#at = comma < 0 ? this.#text.length : comma
    const value = this.#text.slice(start, this.#at)
    return comma < 0 ? value.replace(/\r?\n?$/, '') : value
  }

  #quoted(number: number): string {
    const opening = this.line
    const parts: string[] = []
    let length = 0
    let from = this.#at + 1
    for (;;) {
      const quote = closingQuote(this.#text, from)
      const part = this.#text.slice(from, quote)
      length += part.length
      parts.push(part)
      if (quote < this.#text.length && length <= longestLine) {
        this.#at = quote + 1
        return singleQuotes(parts.join(''))
      }
      const problem =
        length > longestLine
          ? `goes on for more than ${longestLine / 2 ** 20} MiB`
          : !this.next() && 'is never closed'
      if (problem !== false) {
        // Where the rows behind it start is anyone's guess.
        throw new VoltaicError(
          'ERR_FORMAT',
          `${this.file}:${opening}: a quote opens field ${number} and ${problem}; ` +
            'close it, or write "" for a quote inside quotes',
        )
      }
      from = 0
    }
  }
}

/** @throws ERR_FORMAT for a quote that is never closed, or not within 1 MiB */
export function* csvRecords(bytes: Buffer, file: string): Generator<DelimitedRecord> {
  const lines = new CsvLines(bytes, file)
  while (lines.next()) {
    const { line } = lines
    const fields: string[] = []
    let problem: string | undefined
    do {
      const field = lines.field(fields.length + 1)
      problem ??= field.problem
      if (fields.length <= mostColumns) fields.push(field.value)
    } while (lines.takesComma())
    if (fields.length > 1 || fields[0] !== '') yield record(line, fields, problem)
  }
}
