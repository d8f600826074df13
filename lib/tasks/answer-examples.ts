/**
 * Questions with their contexts and answers for a task: SQuAD's JSON, or a table (TSV, CSV, JSON lines) with a question a row, such
 * as Hugging Face's datasets have it.
 */
import { RowChecks, skippedPlaces } from './row-checks.js'
import { readSquad, type SquadAnswer, type SquadExample } from './squad-files.js'
import type { TaskExamples, TaskReadOptions } from './task.js'
import { columnOf, readTaskFile, type TaskTable } from './task-files.js'

/** What was found in a field, or the problem with it. */
type Found<T> = { readonly value: T } | { readonly problem: string }

const shown = (value: unknown): string => (JSON.stringify(value) ?? 'missing').slice(0, 80)

/** The UTF-16 unit of a code point. */
function unitOf(text: string, codePoint: number): number {
  let unit = 0
  for (let left = codePoint; left > 0 && unit < text.length; left--) {
    unit += (text.codePointAt(unit) as number) > 0xffff ? 2 : 1
  }
  return unit
}

/** Where an answer stands: where `start` (in code points) says, without one where the text occurs first. */
function placed(context: string, text: unknown, start: unknown): Found<SquadAnswer> {
  if (typeof text !== 'string' || text === '')
    return { problem: `an answer is ${shown(text)}, expected a text` }
  if (start === undefined || start === null || start === '') {
    const at = context.indexOf(text)
    return at < 0
      ? { problem: `the context does not hold the answer '${text.slice(0, 80)}'` }
      : { value: { text, start: at } }
  }
  const codePoint = Number(start)
  const at = Number.isInteger(codePoint) && codePoint >= 0 ? unitOf(context, codePoint) : -1
  if (at >= 0 && context.startsWith(text, at)) return { value: { text, start: at } }
  return {
    problem: `the answer '${text.slice(0, 80)}' does not stand at ${shown(start)} of the context; offsets count code points`,
  }
}

/** Texts with their starts, of whatever form the field has; none of an empty one. */
function answersIn(field: unknown, start: unknown): Found<(readonly [text: unknown, start: unknown])[]> {
  if (field === undefined || field === null || field === '') return { value: [] }
  if (typeof field === 'string') return { value: [[field, start]] }
  if (Array.isArray(field)) {
    return {
      value: field.map((item: unknown) => {
        const { text, answer_start: at } = Object(item) as Readonly<Record<string, unknown>>
        return typeof item === 'string' ? [item, undefined] : [text, at]
      }),
    }
  }
  const { text, answer_start: starts = [] } = Object(field) as Readonly<Record<string, unknown>>
  if (
    Array.isArray(text) &&
    Array.isArray(starts) &&
    (starts.length === 0 || starts.length === text.length)
  ) {
    return { value: text.map((each: unknown, index) => [each, starts[index]]) }
  }
  return { problem: `the answers are ${shown(field)}, expected a text, a list, or { text, answer_start }` }
}

const answerColumns = ['answers', 'answer']

/** The place of a column, or undefined where the table has none of the usual name. */
function optional(table: TaskTable, name: string): number | undefined {
  return table.columns.includes(name) ? columnOf(table, name, name) : undefined
}

function columnsOf(table: TaskTable, { textColumn, pairColumn, labelColumn, unlabelled }: TaskReadOptions) {
  const named = labelColumn ?? answerColumns.find((name) => table.columns.includes(name))
  const isRead = named !== undefined || unlabelled !== true
  return {
    context: columnOf(table, textColumn ?? 'context', 'textColumn'),
    question: columnOf(table, pairColumn ?? 'question', 'pairColumn'),
    answers: isRead ? columnOf(table, named ?? 'answers', 'labelColumn') : undefined,
    start: optional(table, 'answer_start'),
    id: optional(table, 'id'),
  }
}

async function readTable(file: string, options: TaskReadOptions): Promise<TaskExamples<SquadExample>> {
  const table = await readTaskFile(file, { strict: options.strict })
  const columns = columnsOf(table, options)
  const checks = new RowChecks(file, options.strict, table.skipped)
  const examples: SquadExample[] = []
  const ids = new Set<string>()

  function exampleOf(line: number, fields: readonly unknown[]): Found<SquadExample> {
    const at = (column: number | undefined): unknown => (column === undefined ? undefined : fields[column])
    const [context, question] = [at(columns.context), at(columns.question)]
    if (typeof context !== 'string') return { problem: `the context is ${shown(context)}, expected a text` }
    if (typeof question !== 'string')
      return { problem: `the question is ${shown(question)}, expected a text` }
    const id = String(at(columns.id) ?? line)
    if (ids.has(id)) return { problem: `the id ${id.slice(0, 80)} occurs twice` }
    const found = answersIn(at(columns.answers), at(columns.start))
    if ('problem' in found) return found
    const answers: SquadAnswer[] = []
    for (const [text, start] of found.value) {
      const answer = placed(context, text, start)
      if ('problem' in answer) return answer
      answers.push(answer.value)
    }
    ids.add(id)
    const impossible = columns.answers !== undefined && answers.length === 0
    return { value: { id, title: '', context, question, answers, impossible } }
  }

  for (const { line, fields } of table.rows) {
    const found = exampleOf(line, fields)
    if ('problem' in found) checks.refuse(line, found.problem)
    else examples.push(found.value)
  }
  return { examples, skipped: skippedPlaces(checks.finish(examples.length, 'questions')) }
}

/**
 * Reads questions. A table has the columns context (`textColumn`), question (`pairColumn`), answers or answer (`labelColumn`; empty
 * where there is none), and if need be answer_start and id. Answers are a text, a list of texts, or as SQuAD has them; without a start
 * an answer is where its text occurs first.
 * @throws ERR_IO; ERR_CONFIG for missing columns; ERR_FORMAT with file and place
 */
export async function readAnswerExamples(
  file: string,
  options: TaskReadOptions = {},
): Promise<TaskExamples<SquadExample>> {
  if (/\.(tsv|csv|jsonl|ndjson)(\.gz)?$/i.test(file)) return readTable(file, options)
  const { examples, skipped } = await readSquad(file, { strict: options.strict ?? false })
  return { examples, skipped }
}
