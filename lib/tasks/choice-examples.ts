/** Questions with choices from a task file: SWAG's columns (sent1, sent2, ending0, …), a list of choices, or a column for each. */
import { VoltaicError } from '../runtime/errors.js'
import { RowChecks, type SkippedRow } from './row-checks.js'
import { columnOf, readTaskFile, type TaskFileOptions, type TaskTable } from './task-files.js'

export interface ChoiceExample {
  /** The question, or the text that a choice goes on. */
  readonly text: string
  /** Two or more. */
  readonly choices: readonly string[]
  /** The right choice, from 0. */
  readonly label?: number
  /** Where it stands in the file, from 1. */
  readonly line: number
}

export interface ChoiceExampleOptions extends TaskFileOptions {
  /** Default: the first of sent1, question, question_stem, text, prompt, premise, context that the file has. */
  readonly textColumn?: string | undefined
  /** What every choice begins with, as SWAG's sent2. Default: sent2, where the file has it; else nothing. */
  readonly pairColumn?: string | undefined
  /** Default: the first of label, answer, answerKey that the file has. A number from 0, or a letter from A. */
  readonly labelColumn?: string | undefined
  /** The column of labels may be missing, and a label empty; such examples have none. Default false. */
  readonly unlabelled?: boolean | undefined
}

export interface ChoiceExamples {
  readonly examples: readonly ChoiceExample[]
  readonly skipped: readonly SkippedRow[]
}

const textColumns = ['sent1', 'question', 'question_stem', 'text', 'prompt', 'premise', 'context']
const labelColumns = ['label', 'answer', 'answerKey']
const listColumns = ['choices', 'options', 'endings']
const numberedColumns = ['ending', 'choice', 'option']

interface ReadChoices {
  readonly choices: readonly string[]
  /** What labels call the choices, where the file says so. */
  readonly keys?: readonly string[]
}

const isText = (value: unknown): value is string => typeof value === 'string' && value.trim() !== ''
const areTexts = (value: unknown): value is string[] => Array.isArray(value) && value.every(isText)

/** A list of texts, or Hugging Face's `{ text: [...], label: ['A', ...] }`. */
function choicesOfList(field: unknown): ReadChoices | undefined {
  if (areTexts(field)) return { choices: field }
  if (typeof field !== 'object' || field === null) return undefined
  const { text, label } = field as Record<string, unknown>
  if (!areTexts(text)) return undefined
  return Array.isArray(label) && label.length === text.length
    ? { choices: text, keys: label.map(String) }
    : { choices: text }
}

/** The columns ending0, ending1, … (or from 1), in order; undefined when there are not two. */
function numberedPlaces({ columns }: TaskTable): number[] | undefined {
  for (const name of numberedColumns) {
    for (const first of [0, 1]) {
      const places: number[] = []
      for (let place = columns.indexOf(`${name}${first}`); place >= 0; ) {
        places.push(place)
        place = columns.indexOf(`${name}${first + places.length}`)
      }
      if (places.length > 1) return places
    }
  }
  return undefined
}

type ChoicesReader = (fields: readonly unknown[]) => ReadChoices | undefined

/** How a row's choices are found. @throws ERR_CONFIG when the file has none */
function choicesReader(table: TaskTable): ChoicesReader {
  const list = listColumns.find((name) => table.columns.includes(name))
  if (list !== undefined) {
    const place = columnOf(table, list, 'choices')
    return (fields) => choicesOfList(fields[place])
  }
  const places = numberedPlaces(table)
  if (places === undefined) {
    throw new VoltaicError(
      'ERR_CONFIG',
      `${table.file}: no choices; expected a column 'choices' with a list, or ending0, ending1, … ` +
        `(or choice0, choice1, …); the file has: ${table.columns.slice(0, 20).join(', ')}`,
    )
  }
  return (fields) => {
    const texts = places.map((place) => fields[place])
    // A question with fewer choices leaves the last columns empty.
    const choices = texts.slice(0, texts.findLastIndex(isText) + 1)
    return areTexts(choices) ? { choices } : undefined
  }
}

/** The number of the right choice; undefined when the field names none. */
function labelOf(field: unknown, { choices, keys }: ReadChoices): number | undefined {
  const name = typeof field === 'number' ? String(field) : typeof field === 'string' ? field.trim() : ''
  const known = keys?.indexOf(name) ?? -1
  if (known >= 0) return known
  const number = /^[A-Za-z]$/.test(name)
    ? name.toUpperCase().charCodeAt(0) - 0x41
    : /^\d{1,4}$/.test(name)
      ? Number(name)
      : -1
  return number >= 0 && number < choices.length ? number : undefined
}

const shown = (field: unknown): string => JSON.stringify(field)?.slice(0, 80) ?? 'nothing'

/**
 * Reads questions with choices.
 * @throws ERR_CONFIG when a column is missing; ERR_FORMAT as `readTaskFile`
 */
export async function readChoiceExamples(
  file: string,
  options: ChoiceExampleOptions = {},
): Promise<ChoiceExamples> {
  const table = await readTaskFile(file, options)
  const firstOf = (names: readonly string[]) => names.find((name) => table.columns.includes(name))
  const textName = options.textColumn ?? firstOf(textColumns) ?? 'question'
  const text = columnOf(table, textName, 'textColumn')
  const startName = options.pairColumn ?? firstOf(['sent2'])
  const start = startName === undefined ? undefined : columnOf(table, startName, 'pairColumn')
  const choicesOf = choicesReader(table)
  const labelName = options.labelColumn ?? firstOf(labelColumns)
  const isRead = labelName !== undefined || options.unlabelled !== true
  const label = isRead ? columnOf(table, labelName ?? 'label', 'labelColumn') : undefined

  const checks = new RowChecks(file, options.strict, table.skipped)
  const examples: ChoiceExample[] = []
  for (const { line, fields } of table.rows) {
    const question = fields[text]
    const opening = start === undefined ? '' : fields[start]
    const found = choicesOf(fields)
    const field = label === undefined ? undefined : fields[label]
    const isUnlabelled =
      options.unlabelled === true && (field === undefined || field === null || field === '')
    const right = found === undefined || isUnlabelled ? undefined : labelOf(field, found)
    if (typeof question !== 'string') {
      checks.refuse(line, `'${textName}' is ${shown(question)}, expected a text`)
    } else if (typeof opening !== 'string') {
      checks.refuse(line, `'${startName}' is ${shown(opening)}, expected a text`)
    } else if (found === undefined || found.choices.length < 2) {
      checks.refuse(line, 'expected two choices or more, none of them empty')
    } else if (right === undefined && !isUnlabelled) {
      const last = found.choices.length - 1
      checks.refuse(
        line,
        `the label is ${shown(field)}, expected 0 to ${last}, or A to ${String.fromCharCode(0x41 + last)}`,
      )
    } else {
      const choices = opening === '' ? found.choices : found.choices.map((choice) => `${opening} ${choice}`)
      examples.push({ text: question, choices, ...(right === undefined ? {} : { label: right }), line })
    }
  }
  return { examples, skipped: checks.finish(examples.length) }
}
