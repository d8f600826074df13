/** A line of input as the arguments of a pipeline's call, and its result as it is printed. */
import type { AnyPipeline, FeatureTensor, Pipelines, PipelineTask } from '../pipelines/index.js'
import { VoltaicError } from '../runtime/errors.js'
import { pairColumns, textColumns } from '../tasks/text-examples.js'

/** The fields of a line: a JSON object's, or the one that a line of text is. */
export type Row = Readonly<Record<string, unknown>>

/** What all lines share. */
export interface SharedInputs {
  readonly context?: string | undefined
  readonly candidates?: readonly string[] | undefined
  readonly candidateLabels?: readonly string[] | undefined
}

type Predict = (row: Row) => Promise<unknown>

/** The first of some fields that is there. @throws ERR_FORMAT when none is */
function field(row: Row, names: readonly string[]): unknown {
  const name = names.find((each) => row[each] !== undefined)
  if (name !== undefined) return row[name]
  const present = Object.keys(row).slice(0, 10).join(', ')
  throw new VoltaicError(
    'ERR_FORMAT',
    `no field '${names[0]}'${names.length > 1 ? ` (or ${names.slice(1).join(', ')})` : ''}; the line has ${present || 'none'}`,
  )
}

const text = (row: Row): string => field(row, textColumns) as string

function textOrPair(row: Row): { text: string; text_pair?: string } {
  const pair = ['text_pair', ...pairColumns].find((name) => row[name] !== undefined)
  return { text: text(row), ...(pair !== undefined && { text_pair: row[pair] as string }) }
}

/** How a task reads a row. The options were checked by name against the same task. */
type Reader<Task extends PipelineTask> = (
  call: Pipelines[Task],
  row: Row,
  shared: SharedInputs,
  options: object,
) => Promise<unknown>

const readers: { readonly [Task in PipelineTask]: Reader<Task> } = {
  'text-classification': (call, row, _, options) => call(textOrPair(row), options),
  'token-classification': (call, row, _, options) => call(text(row), options),
  'fill-mask': (call, row, _, options) => call(text(row), options),
  'replaced-token-detection': (call, row, _, options) => call(text(row), options),
  'text-infilling': (call, row, _, options) =>
    call(
      text(row),
      row.spans === undefined ? options : { ...options, spans: row.spans as [number, number][] },
    ),
  'feature-extraction': async (call, row, _, options) => {
    const tensor = (await call(text(row), options)) as FeatureTensor
    return tensor.tolist()[0]
  },
  'zero-shot-classification': (call, row, { candidateLabels }, options) =>
    call(text(row), candidateLabels ?? (field(row, ['candidate_labels']) as string[]), options),
  'question-answering': (call, row, { context }, options) =>
    call(
      field(row, context === undefined ? ['question'] : ['question', ...textColumns]) as string,
      context ?? (field(row, ['context']) as string),
      options,
    ),
  'text-ranking': (call, row, { candidates }, options) =>
    call(
      field(row, candidates === undefined ? ['query'] : ['query', ...textColumns]) as string,
      candidates ?? (field(row, ['candidates']) as string[]),
      options,
    ),
}

/** Runs a pipeline over rows. */
export function predictor(opened: AnyPipeline, shared: SharedInputs, options: object): Predict {
  const read = readers[opened.task as PipelineTask] as Reader<PipelineTask>
  return async (row) => read(opened as never, row, shared, options)
}
