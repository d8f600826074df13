/**
 * Records of TSV and CSV. TSV knows no quotes: a tab always parts, as in GLUE's files. CSV follows RFC 4180: a field that starts with
 * a quote ends at the next single one, `""` inside stands for one, and commas and line ends inside belong to the field; a quote later
 * in a bare field is an ordinary character. Lines that are empty make no record.
 */
import { VoltaicError } from '../runtime/errors.js'
import { textLines } from './text-file.js'

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

export function* tsvRecords(text: string): Generator<DelimitedRecord> {
  for (const { line, text: row } of textLines(text)) {
    if (row !== '') yield record(line, row.split('\t', mostColumns + 1))
  }
}

interface Quoted {
  readonly value: string
  /** Behind the closing quote. */
  readonly end: number
}

/** The field whose opening quote stands at `start`; undefined when nothing closes it. */
function quotedField(text: string, start: number): Quoted | undefined {
  const parts: string[] = []
  for (let from = start + 1; ; ) {
    const quote = text.indexOf('"', from)
    if (quote < 0) return undefined
    parts.push(text.slice(from, quote))
    if (text[quote + 1] !== '"') return { value: parts.join('"'), end: quote + 1 }
    from = quote + 2
  }
}

const lineFeeds = (text: string): number => text.split('\n').length - 1

/** @throws ERR_FORMAT for a quote that is never closed: where the rows behind it start is anyone's guess */
export function* csvRecords(text: string, file: string): Generator<DelimitedRecord> {
  const bare = /[^,\n]*/y
  const bareField = (start: number): string => {
    bare.lastIndex = start
    const [field = ''] = bare.exec(text) ?? []
    return field
  }
  let at = 0
  let line = 1
  while (at < text.length) {
    const start = line
    const fields: string[] = []
    let problem: string | undefined
    for (let more = true; more; ) {
      let value = ''
      if (text[at] === '"') {
        const quoted = quotedField(text, at)
        if (quoted === undefined) {
          throw new VoltaicError(
            'ERR_FORMAT',
            `${file}:${line}: a quote opens field ${fields.length + 1} and is never closed; ` +
              'close it, or write "" for a quote inside quotes',
          )
        }
        value = quoted.value
        line += lineFeeds(value)
        const rest = bareField(quoted.end)
        at = quoted.end + rest.length
        if (rest.trim() !== '') {
          problem ??= `field ${fields.length + 1} goes on behind its closing quote; write "" for a quote inside quotes`
        }
      } else {
        value = bareField(at)
        at += value.length
        if (text[at] !== ',' && value.endsWith('\r')) value = value.slice(0, -1)
      }
      if (fields.length <= mostColumns) fields.push(value)
      more = text[at] === ','
      at += 1
    }
    line += 1
    if (fields.length === 1 && fields[0] === '') continue
    yield record(start, fields, problem)
  }
}
