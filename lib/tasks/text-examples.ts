/** Texts, or pairs of texts, with labels, from a task file: what classification and regression learn from. */
import { VoltaicError } from '../runtime/errors.js'
import { RowChecks, type SkippedRow } from './row-checks.js'
import { columnOf, readTaskFile, type TaskFileOptions, type TaskTable } from './task-files.js'

export interface TextExample {
  readonly text: string
  readonly pair?: string
  /** One name, several (`labels: 'multiple'` or 'auto'), or a number (`labels: 'number'`); absent with `labels: 'none'`. */
  readonly label?: string | readonly string[] | number
  /** Where it stands in the file, from 1. */
  readonly line: number
}

export interface TextExampleOptions extends TaskFileOptions {
  /** Default: the first of text, sentence, text_a, sentence1, premise, question1 that the file has. */
  readonly textColumn?: string | undefined
  /** Default: without `textColumn`, the first of text_b, sentence2, hypothesis, question2 that the file has; else single texts. */
  readonly pairColumn?: string | undefined
  /** Default 'label', or 'labels' where there is no such column. */
  readonly labelColumn?: string | undefined
  /**
   * What labels are: `single` (default) a name, `multiple` any number of names, `auto` a name, or an array of names in JSON lines,
   * `number` a finite number, `none`: not read.
   */
  readonly labels?: 'single' | 'multiple' | 'auto' | 'number' | 'none' | undefined
  /** `multiple` in TSV and CSV: what parts the names. Default ','. JSON lines have arrays as well. */
  readonly labelSeparator?: string | undefined
  /** The names that may occur; a row with another is malformed. Default: any. */
  readonly labelNames?: readonly string[] | undefined
  /** The column of labels may be missing, and a label empty; such examples have none. Default false. */
  readonly unlabelled?: boolean | undefined
}

export interface TextExamples {
  readonly examples: readonly TextExample[]
  readonly skipped: readonly SkippedRow[]
}

const textColumns = ['text', 'sentence', 'text_a', 'sentence1', 'premise', 'question1']
const pairColumns = ['text_b', 'sentence2', 'hypothesis', 'question2']
const labelColumns = ['label', 'labels']

const firstOf = (names: readonly string[], { columns }: TaskTable): string | undefined =>
  names.find((name) => columns.includes(name))

/** A label as its name; undefined when the field holds none. */
function nameOf(field: unknown): string | undefined {
  if (typeof field === 'number' || typeof field === 'boolean') return String(field)
  return typeof field === 'string' && field.trim() !== '' ? field.trim() : undefined
}

function namesOf(field: unknown, separator: string): readonly string[] | undefined {
  const parts =
    typeof field === 'string' ? field.split(separator).filter((part) => part.trim() !== '') : field
  if (!Array.isArray(parts)) return undefined
  const names = parts.map(nameOf)
  return names.includes(undefined) ? undefined : [...new Set(names as string[])]
}

/** A finite number, or undefined. Number('') is 0, so text must hold something. */
export function numberOf(field: unknown): number | undefined {
  const value = typeof field === 'string' && field.trim() !== '' ? Number(field) : field
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined
}

const shown = (field: unknown): string => JSON.stringify(field)?.slice(0, 80) ?? 'nothing'

type Label = TextExample['label']

/** The label of a field, or the problem with it. */
function labelOf(field: unknown, options: TextExampleOptions): { label: Label } | { problem: string } {
  const { labels = 'single', labelNames, labelSeparator = ',' } = options
  const isEmpty = field === undefined || field === null || field === ''
  if (options.unlabelled === true && isEmpty) return { label: undefined }
  if (labels === 'number') {
    const label = numberOf(field)
    return label === undefined ? { problem: `the label is ${shown(field)}, expected a number` } : { label }
  }
  const isSeveral = labels === 'multiple' || (labels === 'auto' && Array.isArray(field))
  const label = isSeveral ? namesOf(field, labelSeparator) : nameOf(field)
  if (label === undefined) return { problem: `the label is ${shown(field)}, expected a name` }
  const unknown = [label].flat().find((name) => labelNames?.includes(name) === false)
  if (unknown === undefined) return { label }
  return {
    problem: `the label '${unknown.slice(0, 80)}' is unknown, expected one of ${labelNames?.slice(0, 20).join(', ')}`,
  }
}

/**
 * Reads texts and labels. Columns are found by the header's names, or named; others are ignored.
 * @throws ERR_CONFIG when a column is missing; ERR_FORMAT as `readTaskFile`
 */
export async function readTextExamples(
  file: string,
  options: TextExampleOptions = {},
): Promise<TextExamples> {
  const table = await readTaskFile(file, options)
  const textName = options.textColumn ?? firstOf(textColumns, table)
  if (textName === undefined) {
    throw new VoltaicError(
      'ERR_CONFIG',
      `${file}: no column of texts (${textColumns.join(', ')}); the file has: ` +
        `${table.columns.slice(0, 20).join(', ')}. Name it with textColumn`,
    )
  }
  const text = columnOf(table, textName, 'textColumn')
  const guessed = options.textColumn === undefined ? firstOf(pairColumns, table) : undefined
  const pairName = options.pairColumn ?? guessed
  const pair = pairName === undefined ? undefined : columnOf(table, pairName, 'pairColumn')
  const labelName = options.labelColumn ?? firstOf(labelColumns, table)
  const isRead = options.labels !== 'none' && (labelName !== undefined || options.unlabelled !== true)
  const label = isRead ? columnOf(table, labelName ?? 'label', 'labelColumn') : undefined

  const checks = new RowChecks(file, options.strict, table.skipped)
  const examples: TextExample[] = []
  for (const { line, fields } of table.rows) {
    const texts = (pair === undefined ? [text] : [text, pair]).map((place) => fields[place])
    const missing = texts.findIndex((value) => typeof value !== 'string')
    if (missing >= 0) {
      checks.refuse(
        line,
        `'${missing === 0 ? textName : pairName}' is ${shown(texts[missing])}, expected a text`,
      )
      continue
    }
    const found = label === undefined ? { label: undefined } : labelOf(fields[label], options)
    if ('problem' in found) {
      checks.refuse(line, found.problem)
      continue
    }
    const [first, second] = texts as [string, string?]
    examples.push({
      text: first,
      ...(second === undefined ? {} : { pair: second }),
      ...(found.label === undefined ? {} : { label: found.label }),
      line,
    })
  }
  return { examples, skipped: checks.finish(examples.length) }
}

/** The names that occur as labels, sorted by code units. */
export function labelNamesOf(examples: readonly TextExample[]): string[] {
  const names = examples.flatMap(({ label }) =>
    typeof label === 'number' || label === undefined ? [] : label,
  )
  return [...new Set(names)].sort()
}
