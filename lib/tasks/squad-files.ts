/**
 * SQuAD 1.1 and 2.0 (and XQuAD): JSON to questions with their contexts. The files count offsets in code points; here they count UTF-16
 * units, so that `context.slice(start, start + text.length)` is the answer.
 */
import { parseJsonText } from '../formats/json-file.js'
import { VoltaicError } from '../runtime/errors.js'
import { readTextFile } from './text-file.js'

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

class Malformed extends Error {}

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
    `the answer '${text.slice(0, 80)}' does not stand at answer_start ${JSON.stringify(codePoint)} of the context; ` +
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

function refuse(file: string, place: string, problem: string): never {
  throw new VoltaicError('ERR_FORMAT', `${file}: ${place}: ${problem}; expected SQuAD's JSON`)
}

function objectsIn(file: string, object: Json, name: string, place: string): [string, Json][] {
  const list = object[name]
  const path = place === '' ? name : `${place}.${name}`
  if (!Array.isArray(list)) return refuse(file, path, 'is missing or not a list')
  return list.map((value: unknown, index) => {
    const at = `${path}[${index}]`
    return isObject(value) ? [at, value] : refuse(file, at, 'is not an object')
  })
}

/**
 * Reads a SQuAD file, plain or gzip.
 * @throws ERR_IO; ERR_FORMAT for another kind of file, and for a file without one good question
 */
export async function readSquad(file: string, { strict = false }: SquadOptions = {}): Promise<SquadFile> {
  const document = parseJsonText(await readTextFile(file), file)
  if (!isObject(document)) return refuse(file, 'the file', 'is not an object')
  const examples: SquadExample[] = []
  const skipped: SkippedQuestion[] = []
  const ids = new Set<string>()

  function add(value: unknown, place: string, paragraph: Paragraph): void {
    try {
      const example = exampleOf(value, paragraph)
      if (ids.has(example.id)) throw new Malformed(`the id ${example.id} occurs twice`)
      ids.add(example.id)
      examples.push(example)
    } catch (error) {
      if (!(error instanceof Malformed)) throw error
      if (strict) throw new VoltaicError('ERR_FORMAT', `${file}: ${place}: ${error.message}`)
      skipped.push({ place, problem: error.message })
    }
  }

  for (const [articlePlace, article] of objectsIn(file, document, 'data', '')) {
    const title = typeof article.title === 'string' ? article.title : ''
    for (const [place, paragraph] of objectsIn(file, article, 'paragraphs', articlePlace)) {
      const { context, qas } = paragraph
      if (typeof context !== 'string') refuse(file, `${place}.context`, 'is missing or not a string')
      if (!Array.isArray(qas)) refuse(file, `${place}.qas`, 'is missing or not a list')
      const shared = { title, context, unit: unitsOf(context) }
      for (const [index, value] of qas.entries()) add(value, `${place}.qas[${index}]`, shared)
    }
  }
  if (examples.length === 0) {
    const [first] = skipped
    refuse(file, first?.place ?? 'data', first?.problem ?? 'holds no question')
  }
  const { version } = document
  return { version: typeof version === 'string' ? version : '', examples, skipped }
}
