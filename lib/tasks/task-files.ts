/**
 * Tables of a task's examples: TSV, CSV or JSON lines, plain or gzip, with the line of each row, so that whatever is wrong with one
 * can be told where it stands.
 */
import { parseJsonText } from '../formats/json-file.js'
import { VoltaicError } from '../runtime/errors.js'
import { csvRecords, type DelimitedRecord, mostColumns, tsvRecords } from './delimited.js'
import { RowChecks, type RowOptions, type SkippedRow } from './row-checks.js'
import { readTextBytes, textLines } from './text-file.js'

export interface TaskFileOptions extends RowOptions {
  /** `auto` (default): by the name: .tsv, .csv, .jsonl or .ndjson, also with .gz. */
  readonly format?: 'auto' | 'tsv' | 'csv' | 'jsonl' | undefined
  /** TSV and CSV: the names of the columns of a file without a header. By default the first line names them. */
  readonly columns?: readonly string[] | undefined
}

export interface TaskRow {
  /** From 1. */
  readonly line: number
  /** Strings in TSV and CSV, any JSON value in JSON lines; undefined where an object lacks the column. */
  readonly fields: readonly unknown[]
}

export interface TaskTable {
  readonly file: string
  /** By the header, or as given; in JSON lines all fields that occur, in order of appearance. */
  readonly columns: readonly string[]
  readonly rows: readonly TaskRow[]
  readonly skipped: readonly SkippedRow[]
}

function formatOf(file: string, { format = 'auto' }: TaskFileOptions): 'tsv' | 'csv' | 'jsonl' {
  if (format !== 'auto') return format
  const extension = /\.(tsv|csv|jsonl|ndjson)(\.gz)?$/i.exec(file)?.[1]?.toLowerCase()
  if (extension === 'tsv' || extension === 'csv') return extension
  if (extension !== undefined) return 'jsonl'
  throw new VoltaicError(
    'ERR_CONFIG',
    `${file}: the name does not tell the format; expected .tsv, .csv or .jsonl, or set format`,
  )
}

function fromRecords(records: Iterator<DelimitedRecord>, checks: RowChecks, options: TaskFileOptions) {
  let columns = options.columns
  if (columns === undefined) {
    const header = records.next()
    if (header.done)
      throw new VoltaicError('ERR_FORMAT', `${checks.file}: is empty, expected a header and rows`)
    if (header.value.problem !== undefined) {
      throw new VoltaicError('ERR_FORMAT', `${checks.file}:${header.value.line}: ${header.value.problem}`)
    }
    columns = header.value.fields.map((name) => name.trim())
  }
  const rows: TaskRow[] = []
  for (let record = records.next(); !record.done; record = records.next()) {
    const { line, fields, problem } = record.value
    if (problem !== undefined) checks.refuse(line, problem)
    else if (fields.length === columns.length) rows.push({ line, fields })
    else {
      const names = columns.slice(0, 12).join(', ')
      checks.refuse(line, `${fields.length} columns, expected the ${columns.length} of ${names}`)
    }
  }
  return { columns, rows }
}

function fromJsonLines(bytes: Buffer, checks: RowChecks, options: TaskFileOptions) {
  if (options.columns !== undefined) {
    throw new VoltaicError(
      'ERR_CONFIG',
      `${checks.file}: columns was given for JSON lines, which name their fields`,
    )
  }
  const places = new Map<string, number>()
  const rows: TaskRow[] = []
  for (const { line, text: json } of textLines(bytes)) {
    if (json.trim() === '') continue
    let value: unknown
    try {
      value = parseJsonText(json, 'this line')
    } catch (error) {
      checks.refuse(line, (error as Error).message)
      continue
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      checks.refuse(line, 'expected a JSON object')
      continue
    }
    const entries = Object.entries(value)
    if (places.size + entries.filter(([name]) => !places.has(name)).length > mostColumns) {
      checks.refuse(line, `more than ${mostColumns} different fields up to here`)
      continue
    }
    const fields: unknown[] = []
    for (const [name, field] of entries) {
      const place = places.get(name) ?? places.size
      places.set(name, place)
      fields[place] = field
    }
    rows.push({ line, fields })
  }
  return { columns: [...places.keys()], rows }
}

/**
 * Reads a table. Rows that are malformed (another number of columns than the header, no JSON object) are left out and listed in
 * `skipped`, or with `strict` end the reading.
 * @throws ERR_IO; ERR_CONFIG when the format is not known; ERR_FORMAT with file and line, and for a file without one good row
 */
export async function readTaskFile(file: string, options: TaskFileOptions = {}): Promise<TaskTable> {
  const format = formatOf(file, options)
  const bytes = await readTextBytes(file)
  const checks = new RowChecks(file, options.strict)
  const table =
    format === 'jsonl'
      ? fromJsonLines(bytes, checks, options)
      : fromRecords(format === 'tsv' ? tsvRecords(bytes) : csvRecords(bytes, file), checks, options)
  return { file, ...table, skipped: checks.finish(table.rows.length) }
}

/**
 * The place of a column.
 * @throws ERR_CONFIG when the table has none or several of that name
 */
export function columnOf(table: TaskTable, name: string, option: string): number {
  const place = table.columns.indexOf(name)
  if (place >= 0 && table.columns.lastIndexOf(name) === place) return place
  const found = table.columns.slice(0, 20).join(', ')
  throw new VoltaicError(
    'ERR_CONFIG',
    `${table.file}: ${place < 0 ? 'no column' : 'two columns'} '${name}' (${option}); the file has: ${found}`,
  )
}
