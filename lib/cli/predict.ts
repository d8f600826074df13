/** `voltaic predict`: any pipeline over the lines of a file, or of standard input; one JSON line for each, in their order. */
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { type Command, Option } from 'commander'
import { type PipelineOptions, pipeline, pipelineTaskOf } from '../pipelines/index.js'
import { pipelineNames, taskOfName } from '../pipelines/tasks.js'
import { type ErrorCode, VoltaicError } from '../runtime/errors.js'
import { ioError } from '../runtime/mapped-file.js'
import { addDeviceOptions } from './common-options.js'
import { inputLines } from './input-lines.js'
import { parsePositive } from './parse.js'
import { addPipelineOptions, callOptions } from './predict-options.js'
import { predictor, type Row } from './predict-rows.js'

interface Options extends Pick<PipelineOptions, 'device' | 'precision' | 'threads' | 'batchTokens'> {
  readonly model: string
  readonly task?: string
  readonly format: 'auto' | 'text' | 'jsonl'
  readonly strict?: boolean
  readonly context?: string
  readonly candidates?: string
  readonly candidateLabels?: readonly string[]
}

export function addPredictCommand(program: Command): void {
  const command = program
    .command('predict')
    .description('run a model over a file, or standard input, line by line: one JSON line a line')
    .argument('[file]', 'lines of text, or JSON lines; left out: standard input')
    .requiredOption('--model <dir>', 'a model folder, or a name on the hub')
    .addOption(
      new Option('--task <name>', 'what to do (default: what the model is for)').choices(pipelineNames),
    )
    .addOption(
      new Option('--format <kind>', 'how lines are read (auto: JSON where the first line begins with {)')
        .choices(['auto', 'text', 'jsonl'])
        .default('auto'),
    )
    .option('--strict', 'end at the first line that cannot be answered')
    .option('--batch-tokens <n>', 'tokens of a forward pass at most', parsePositive)
  addPipelineOptions(addDeviceOptions(command)).action(predict)
}

async function readWhole(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    throw ioError('read', file, cause)
  }
}

function parseRow(line: string): Row {
  let row: unknown
  try {
    row = JSON.parse(line)
  } catch (cause) {
    throw new VoltaicError('ERR_FORMAT', `no JSON: ${(cause as Error).message}`, { cause })
  }
  if (typeof row === 'object' && row !== null && !Array.isArray(row)) return row as Row
  throw new VoltaicError('ERR_FORMAT', 'expected a JSON object with named fields')
}

/** What is a line's own fault; anything else ends the command. */
const lineErrors: readonly ErrorCode[] = ['ERR_ARGUMENT', 'ERR_FORMAT']

/** Lines in work at most, and their characters: what keeps memory bounded. */
const mostLines = 1024
const mostCharacters = 4 * 2 ** 20

/** Answers lines as they come, and writes the answers in the lines' order. */
async function answerLines(
  lines: AsyncIterable<string>,
  answer: (line: string, number: number) => Promise<unknown>,
): Promise<void> {
  const inWork: { readonly written: Promise<void>; readonly characters: number }[] = []
  let last = Promise.resolve()
  let characters = 0
  let number = 0
  let isOver = false
  for await (const line of lines) {
    if (isOver) break
    const result = answer(line, ++number)
    last = last.then(async () => {
      const text = JSON.stringify(await result)
      // A slow reader is waited for, so that answers do not pile up in memory.
      if (!process.stdout.write(`${text}\n`)) await once(process.stdout, 'drain')
    })
    // Whoever waits next gets the error, the first line's first.
    result.catch(() => undefined)
    last.catch(() => {
      isOver = true
    })
    inWork.push({ written: last, characters: line.length })
    characters += line.length
    while (inWork.length >= mostLines || (characters > mostCharacters && inWork.length > 1)) {
      const [first] = inWork.splice(0, 1) as [(typeof inWork)[number]]
      characters -= first.characters
      await first.written
    }
  }
  await last
}

async function predict(file: string | undefined, given: Options, command: Command): Promise<void> {
  const { model, device, precision, threads, batchTokens, format, strict = false } = given
  const task = given.task === undefined ? await pipelineTaskOf(model) : taskOfName(given.task)
  const options = callOptions(task, { ...given }, command)
  const [context, candidates] = await Promise.all(
    [given.context, given.candidates].map((name) => name && readWhole(name)),
  )
  const shared = {
    context,
    candidates: candidates?.split(/\r?\n/).filter((text) => text !== ''),
    candidateLabels: given.candidateLabels,
  }
  await using opened = await pipeline(task, model, { device, precision, threads, batchTokens })
  const run = predictor(opened, shared, options)
  let isJson = format === 'jsonl'
  let answered = 0
  let firstError: VoltaicError | undefined
  await answerLines(inputLines(file), async (given, number) => {
    const line = number === 1 ? given.replace(/^\ufeff/, '') : given
    if (number === 1 && format === 'auto') isJson = line.trimStart().startsWith('{')
    try {
      const result = await run(isJson ? parseRow(line) : { text: line })
      answered++
      return result
    } catch (error) {
      if (!(error instanceof VoltaicError && lineErrors.includes(error.code))) throw error
      const located = new VoltaicError(
        error.code,
        `${file ?? 'standard input'}:${number}: ${error.message}`,
        { cause: error },
      )
      if (strict) throw located
      firstError ??= located
      return { error: error.message, code: error.code, line: number }
    }
  })
  // An option that fits no line, most likely.
  if (answered === 0 && firstError !== undefined) throw firstError
}
