/** The pipelines' options as options of `voltaic predict`: one table, with the tasks that each is for. */
import { type Command, InvalidArgumentError, Option } from 'commander'
import type { PipelineTask } from '../pipelines/index.js'
import { aggregationStrategies } from '../tasks/entities.js'
import { parseNumber, parsePositive, parseWhole } from './parse.js'

interface TaskOption {
  readonly flags: string
  readonly description: string
  readonly tasks: readonly PipelineTask[]
  readonly choices?: readonly string[]
  readonly parse?: (text: string) => unknown
  /** It is no option of the pipeline's call, but a file or list that goes into it. */
  readonly isInput?: true
}

const windowed: readonly PipelineTask[] = [
  'text-classification',
  'token-classification',
  'feature-extraction',
  'zero-shot-classification',
  'text-ranking',
  'replaced-token-detection',
]

/** Names with commas between them. */
function parseList(text: string): string[] {
  const names = text.split(',').map((name) => name.trim())
  if (names.includes('') && text !== '') throw new InvalidArgumentError(`'${text}' has an empty name.`)
  return text === '' ? [] : names
}

/** Infinity is all; commander would make null an empty text. */
const parseTop = (text: string): number => (text === 'all' ? Number.POSITIVE_INFINITY : parsePositive(text))

const taskOptions: readonly TaskOption[] = [
  {
    flags: '--top-k <n>',
    description: 'how many of the best to give (or to draw from), or all',
    tasks: ['text-classification', 'question-answering', 'fill-mask', 'text-ranking', 'text-infilling'],
    parse: parseTop,
  },
  {
    flags: '--function-to-apply <name>',
    description: 'from logits to scores',
    tasks: ['text-classification'],
    choices: ['softmax', 'sigmoid', 'none'],
  },
  {
    flags: '--aggregation-strategy <name>',
    description: 'entities instead of tokens',
    tasks: ['token-classification'],
    choices: aggregationStrategies,
  },
  {
    flags: '--ignore-labels <list>',
    description: 'labels that are left out, with commas between (default: O)',
    tasks: ['token-classification'],
    parse: parseList,
  },
  {
    flags: '--pooling <name>',
    description: 'a vector a text instead of one a token',
    tasks: ['feature-extraction'],
    choices: ['none', 'mean', 'cls'],
  },
  { flags: '--normalize', description: 'scale vectors to length 1', tasks: ['feature-extraction'] },
  {
    flags: '--candidate-labels <list>',
    description: 'labels, with commas between',
    tasks: ['zero-shot-classification'],
    parse: parseList,
    isInput: true,
  },
  {
    flags: '--hypothesis-template <text>',
    description: 'the hypothesis, {} for the label',
    tasks: ['zero-shot-classification'],
  },
  {
    flags: '--multi-label',
    description: 'several labels may fit',
    tasks: ['zero-shot-classification'],
  },
  {
    flags: '--context <file>',
    description: 'a text that all questions are about; each line is a question then',
    tasks: ['question-answering'],
    isInput: true,
  },
  {
    flags: '--max-answer-len <n>',
    description: 'tokens of an answer at most',
    tasks: ['question-answering'],
    parse: parsePositive,
  },
  {
    flags: '--max-seq-len <n>',
    description: 'tokens of a window at most',
    tasks: ['question-answering'],
    parse: parsePositive,
  },
  {
    flags: '--doc-stride <n>',
    description: 'tokens that windows share',
    tasks: ['question-answering'],
    parse: parseWhole,
  },
  {
    flags: '--max-question-len <n>',
    description: 'tokens of a question that are read',
    tasks: ['question-answering'],
    parse: parseWhole,
  },
  {
    flags: '--no-align-to-words',
    description: 'answers may begin and end within words',
    tasks: ['question-answering'],
  },
  {
    flags: '--handle-impossible-answer',
    description: 'no answer is an answer too',
    tasks: ['question-answering'],
  },
  {
    flags: '--candidates <file>',
    description: 'texts, one a line, that all queries are ranked against; each line is a query then',
    tasks: ['text-ranking'],
    isInput: true,
  },
  {
    flags: '--return-documents',
    description: "give the candidates' texts too",
    tasks: ['text-ranking'],
  },
  {
    flags: '--label <name>',
    description: 'the label that means that a candidate fits',
    tasks: ['text-ranking'],
  },
  {
    flags: '--temperature <x>',
    description: '0 takes the best token always',
    tasks: ['text-infilling'],
    parse: parseNumber,
  },
  {
    flags: '--top-p <x>',
    description: 'draw from the best tokens that together have this probability',
    tasks: ['text-infilling'],
    parse: parseNumber,
  },
  {
    flags: '--seed <n>',
    description: 'seed of the draws',
    tasks: ['text-infilling'],
    parse: parseWhole,
  },
  {
    flags: '--rounds <n>',
    description: 'passes over what is filled',
    tasks: ['text-infilling'],
    parse: parsePositive,
  },
  {
    flags: '--mask-probability <x>',
    description: 'the chance of every other token to be drawn anew',
    tasks: ['text-infilling'],
    parse: parseNumber,
  },
  {
    flags: '--num-return-sequences <n>',
    description: 'versions of each text',
    tasks: ['text-infilling'],
    parse: parsePositive,
  },
  {
    flags: '--max-length <n>',
    description: 'tokens of a window at most (default: all that the model takes)',
    tasks: [...windowed, 'fill-mask', 'text-infilling'],
    parse: parsePositive,
  },
  {
    flags: '--stride <n>',
    description: 'tokens that windows share (default: a quarter of a window)',
    tasks: windowed,
    parse: parseWhole,
  },
]

const made = taskOptions.map((entry) => {
  const option = new Option(entry.flags, entry.description)
  if (entry.choices !== undefined) option.choices(entry.choices)
  else if (entry.parse !== undefined) option.argParser(entry.parse)
  return { ...entry, option }
})

export function addPipelineOptions(command: Command): Command {
  for (const { option } of made) command.addOption(option)
  return command
}

/** As the pipelines have the name: topK is top_k there. */
const pipelineName = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)

/** The options that go into the pipeline's call, under its names. A given one that is not for the task is a usage error. */
export function callOptions(
  task: PipelineTask,
  given: Readonly<Record<string, unknown>>,
  command: Command,
): Record<string, unknown> {
  const options: Record<string, unknown> = {}
  for (const { option, tasks, isInput } of made) {
    const name = option.attributeName()
    const value = given[name]
    // --no-… is true where it is not given.
    if (value === undefined || (option.negate && value === true)) continue
    if (!tasks.includes(task))
      command.error(`error: ${option.long} is for ${tasks.join(', ')}, not for ${task}`)
    if (isInput !== true) options[pipelineName(name)] = value === Number.POSITIVE_INFINITY ? null : value
  }
  return options
}
