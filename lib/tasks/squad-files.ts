/**
 * SQuAD 1.1 and 2.0 (and XQuAD): JSON to questions with their contexts. The files count offsets in code points; here they count UTF-16
 * units, so that `context.slice(start, start + text.length)` is the answer.
 */
import { VoltaicError } from '../runtime/errors.js'
import { JsonWalk } from './json-walk.js'
import { mostSkipped } from './row-checks.js'
import { readTextBytes } from './text-file.js'

export interface SquadAnswer {
  readonly text: string
  /** Where it starts in the context, in UTF-16 units. */
  readonly start: number
}

export interface SquadExample {
  readonly id: string
  readonly title: string
  readonly context: string
  readonly question: string
  /** The annotators' answers; none when the context does not answer the question. */
  readonly answers: readonly SquadAnswer[]
  /** SQuAD 2.0: the context does not answer it. */
  readonly impossible: boolean
}

export interface SkippedQuestion {
  /** Where in the file: data[0].paragraphs[3].qas[1]. */
  readonly place: string
  readonly problem: string
}

export interface SquadFile {
  /** As the file names it: 1.1, v2.0; '' where it does not. */
  readonly version: string
  readonly examples: readonly SquadExample[]
  readonly skipped: readonly SkippedQuestion[]
}

export interface SquadOptions {
  /** A malformed question ends the reading with ERR_FORMAT. Default false: it is left out, and listed in `skipped`. */
  readonly strict?: boolean
}

type Json = Readonly<Record<string, unknown>>

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** No Error: its stack would take most of the time of a file with many of them. */
class Malformed {
  constructor(readonly message: string) {}
}

function stringIn(object: Json, name: string): string {
  const value = object[name]
  if (typeof value === 'string') return value
  throw new Malformed(`'${name}' is ${JSON.stringify(value)?.slice(0, 80) ?? 'missing'}, expected a string`)
}

/** The UTF-16 unit of each code point of a text, made when the text has one beyond the first plane. */
function unitsOf(text: string): (codePoint: number) => number {
  if (!/[\ud800-\udbff]/.test(text)) return (codePoint) => codePoint
  const units: number[] = []
  for (let at = 0; at < text.length; at += (text.codePointAt(at) as number) > 0xffff ? 2 : 1) units.push(at)
  return (codePoint) => units[codePoint] ?? text.length
}

function answerOf(value: unknown, context: string, unit: (codePoint: number) => number): SquadAnswer {
  if (!isObject(value)) throw new Malformed('an answer is not an object with text and answer_start')
  const text = stringIn(value, 'text')
  const codePoint = value.answer_start
  const start = Number.isInteger(codePoint) && (codePoint as number) >= 0 ? unit(codePoint as number) : -1
  if (start >= 0 && context.startsWith(text, start)) return { text, start }
  throw new Malformed(
    `the answer '${text.slice(0, 80)}' does not stand at answer_start ${JSON.stringify(codePoint)?.slice(0, 80)} of the context; ` +
      'offsets count code points',
  )
}

interface Paragraph {
  readonly title: string
  readonly context: string
  readonly unit: (codePoint: number) => number
}

function exampleOf(value: unknown, { title, context, unit }: Paragraph): SquadExample {
  if (!isObject(value)) throw new Malformed('not an object')
  const impossible = value.is_impossible === true
  const answers = value.answers ?? []
  if (!Array.isArray(answers)) throw new Malformed(`'answers' is not a list`)
  if (impossible && answers.length > 0) throw new Malformed('is_impossible, and yet there are answers')
  return {
    id: stringIn(value, 'id'),
    title,
    context,
    question: stringIn(value, 'question'),
    answers: answers.map((answer: unknown) => answerOf(answer, context, unit)),
    impossible,
  }
}

/** The questions of a file as they come, and what was wrong with others. */
class Questions {
  readonly examples: SquadExample[] = []
  readonly skipped: SkippedQuestion[] = []
  readonly #ids = new Set<string>()

  constructor(
    readonly file: string,
    readonly strict: boolean,
  ) {}

  add(value: unknown, place: string, paragraph: Paragraph): void {
    try {
      const example = exampleOf(value, paragraph)
      if (this.#ids.has(example.id)) throw new Malformed(`the id ${example.id.slice(0, 80)} occurs twice`)
      this.#ids.add(example.id)
      this.examples.push(example)
    } catch (error) {
      if (!(error instanceof Malformed)) throw error
      if (this.strict) throw new VoltaicError('ERR_FORMAT', `${this.file}: ${place}: ${error.message}`)
      const [first] = this.skipped
      if (first !== undefined && this.skipped.length >= mostSkipped) {
        throw new VoltaicError(
          'ERR_FORMAT',
          `${this.file}: more than ${mostSkipped} malformed questions, the first at ${first.place}: ${first.problem}`,
        )
      }
      this.skipped.push({ place, problem: error.message })
    }
  }
}

const expected = `; expected SQuAD's JSON`

function readParagraph(walk: JsonWalk, place: string, title: string, questions: Questions): void {
  const paragraph = walk.value(place)
  if (!isObject(paragraph)) walk.refuse(place, `is not an object${expected}`)
  const { context, qas } = paragraph
  if (typeof context !== 'string') walk.refuse(`${place}.context`, `is missing or not a string${expected}`)
  if (!Array.isArray(qas)) walk.refuse(`${place}.qas`, `is missing or not a list${expected}`)
  const shared = { title, context, unit: unitsOf(context) }
  for (const [index, value] of qas.entries()) questions.add(value, `${place}.qas[${index}]`, shared)
}

function readArticle(walk: JsonWalk, place: string, questions: Questions): void {
  if (!walk.is('object')) walk.refuse(place, `is not an object${expected}`)
  const path = `${place}.paragraphs`
  let title = ''
  let paragraphs: number | undefined
  for (const name of walk.members(place)) {
    if (name === 'title') {
      const value = walk.value(`${place}.title`)
      title = typeof value === 'string' ? value : ''
    } else {
      if (name === 'paragraphs') paragraphs = walk.at
      walk.skip(place)
    }
  }
  const end = walk.at
  // Behind the title, wherever that stands.
  walk.at = paragraphs ?? end
  if (paragraphs === undefined || !walk.is('list')) walk.refuse(path, `is missing or not a list${expected}`)
  for (const index of walk.elements(path)) readParagraph(walk, `${path}[${index}]`, title, questions)
  walk.at = end
}

/**
 * Reads a SQuAD file, plain or gzip.
 * @throws ERR_IO; ERR_FORMAT for another kind of file, and for a file without one good question
 */
export async function readSquad(file: string, { strict = false }: SquadOptions = {}): Promise<SquadFile> {
  const walk = new JsonWalk(await readTextBytes(file, Number.POSITIVE_INFINITY), file)
  const questions = new Questions(file, strict)
  let version = ''
  let hasData = false
  if (!walk.is('object')) walk.refuse('the file', `is not an object${expected}`)
  for (const name of walk.members('the file')) {
    if (name === 'version') {
      const value = walk.value('version')
      version = typeof value === 'string' ? value : ''
    } else if (name === 'data' && walk.is('list')) {
      hasData = true
      for (const index of walk.elements('data')) readArticle(walk, `data[${index}]`, questions)
    } else walk.skip('the file')
  }
  walk.end()
  if (!hasData) walk.refuse('data', `is missing or not a list${expected}`)
  const { examples, skipped } = questions
  if (examples.length === 0) {
    const [first] = skipped
    walk.refuse(first?.place ?? 'data', `${first?.problem ?? 'holds no question'}${expected}`)
  }
  return { version, examples, skipped }
}
