/**
 * The tasks of GLUE by name: where their files have texts and labels, the order of the labels, and the metrics, as the original
 * ELECTRA code has them (F1 for MRPC and QQP, and Pearson's correlation, as Hugging Face reports them too).
 */
import { VoltaicError } from '../runtime/errors.js'
import { accuracy, type Classes, matthewsCorrelation, precisionRecallF1 } from './metrics-classification.js'
import { meanSquaredError, pearsonCorrelation, spearmanCorrelation } from './metrics-regression.js'
import { RowChecks, type RowOptions } from './row-checks.js'
import { readTaskFile, type TaskRow } from './task-files.js'
import { numberOf, type TextExample, type TextExamples } from './text-examples.js'

export type GlueSplit = 'train' | 'dev' | 'test' | 'diagnostic'
type Metric = 'accuracy' | 'f1' | 'matthewsCorrelation' | 'pearson' | 'spearman' | 'meanSquaredError'

export interface GlueTask {
  readonly name: string
  /** In the order of the classes' numbers; empty for regression. */
  readonly labels: readonly string[]
  /** All metrics that the task is reported with; the first decides which checkpoint is the best. */
  readonly metrics: readonly Metric[]
  /** Whether the two texts may be swapped: the original trains on both orders. */
  readonly unordered: boolean
  /** Columns from 0, negative ones from the right. */
  readonly columns: {
    readonly texts: readonly number[]
    readonly label: number
    readonly testTexts: readonly number[]
    readonly diagnosticTexts?: readonly number[]
    /** Names of the columns where train and dev have no header; the test file has one always. */
    readonly unnamed?: readonly string[]
  }
}

const binary = ['0', '1']
const entailment = ['entailment', 'not_entailment']

function task(
  name: string,
  labels: readonly string[],
  metrics: readonly Metric[],
  columns: GlueTask['columns'],
  unordered = false,
): GlueTask {
  return { name, labels, metrics, columns, unordered }
}

const tasks: readonly GlueTask[] = [
  task('cola', binary, ['matthewsCorrelation', 'accuracy'], {
    texts: [3],
    label: 1,
    testTexts: [1],
    unnamed: ['source', 'label', 'mark', 'sentence'],
  }),
  task('sst-2', binary, ['accuracy'], { texts: [0], label: 1, testTexts: [1] }),
  task('mrpc', binary, ['accuracy', 'f1'], { texts: [3, 4], label: 0, testTexts: [3, 4] }, true),
  task(
    'sts-b',
    [],
    ['spearman', 'pearson', 'meanSquaredError'],
    { texts: [-3, -2], label: -1, testTexts: [-2, -1] },
    true,
  ),
  task('qqp', binary, ['accuracy', 'f1'], { texts: [3, 4], label: 5, testTexts: [1, 2] }),
  task('mnli', ['contradiction', 'entailment', 'neutral'], ['accuracy'], {
    texts: [8, 9],
    label: -1,
    testTexts: [8, 9],
    diagnosticTexts: [1, 2],
  }),
  task('qnli', entailment, ['accuracy'], { texts: [1, 2], label: 3, testTexts: [1, 2] }),
  task('rte', entailment, ['accuracy'], { texts: [1, 2], label: 3, testTexts: [1, 2] }),
]

/** The names that `glueTask` takes: GLUE's folders in lower case; dashes do not matter, and sst and sts will do. */
export const glueTaskNames: readonly string[] = tasks.map(({ name }) => name)

const plain = (name: string): string => name.toLowerCase().replace(/[-_]/g, '')
const shortNames: Readonly<Record<string, string>> = { sst: 'sst2', sts: 'stsb' }

/** @throws ERR_CONFIG for another name */
export function glueTask(name: string): GlueTask {
  const wanted = plain(name)
  const found = tasks.find((one) => plain(one.name) === wanted || plain(one.name) === shortNames[wanted])
  if (found !== undefined) return found
  throw new VoltaicError('ERR_CONFIG', `no GLUE task '${name}'; expected one of ${glueTaskNames.join(', ')}`)
}

/** The example of a row, or the problem with it. */
function exampleOf(
  { line, fields }: TaskRow,
  task: GlueTask,
  texts: readonly number[],
  labelled: boolean,
): TextExample | string {
  const [text, pair] = texts.map((column) => fields.at(column))
  if (typeof text !== 'string' || (texts.length === 2 && typeof pair !== 'string')) {
    return `${fields.length} columns are too few for ${task.name}`
  }
  const example = { text, ...(typeof pair === 'string' ? { pair } : {}), line }
  if (!labelled) return example
  const field = fields.at(task.columns.label)
  if (task.labels.length === 0) {
    const label = numberOf(field)
    return label === undefined ? `the score is '${field ?? ''}', expected a number` : { ...example, label }
  }
  const label = typeof field === 'string' ? field.trim() : ''
  if (task.labels.includes(label)) return { ...example, label }
  return `the label is '${label.slice(0, 80)}', expected one of ${task.labels.join(', ')}`
}

/**
 * Reads a file of a GLUE task as GLUE ships it (TSV, also gzip). Labels are names, of STS-B numbers from 0 to 5; `test` and
 * `diagnostic` have none.
 * @throws ERR_CONFIG for an unknown task, or a split that it lacks; ERR_IO; ERR_FORMAT with file and line
 */
export async function readGlue(
  name: string,
  file: string,
  split: GlueSplit,
  options: RowOptions = {},
): Promise<TextExamples> {
  const task = glueTask(name)
  const { texts, testTexts, diagnosticTexts, unnamed } = task.columns
  const labelled = split === 'train' || split === 'dev'
  const columns = labelled ? texts : split === 'test' ? testTexts : diagnosticTexts
  if (columns === undefined) {
    throw new VoltaicError('ERR_CONFIG', `${task.name} has no split '${split}'; expected train, dev or test`)
  }
  const table = await readTaskFile(file, {
    ...options,
    format: 'tsv',
    ...(labelled && unnamed !== undefined ? { columns: unnamed } : {}),
  })
  const checks = new RowChecks(file, options.strict, table.skipped)
  const examples: TextExample[] = []
  for (const row of table.rows) {
    const example = exampleOf(row, task, columns, labelled)
    if (typeof example === 'string') checks.refuse(row.line, example)
    else examples.push(example)
  }
  return { examples, skipped: checks.finish(examples.length) }
}

const computed: Readonly<Record<Metric, (labels: Classes, predictions: Classes) => number>> = {
  accuracy,
  f1: (labels, predictions) => precisionRecallF1(labels, predictions).f1,
  matthewsCorrelation,
  pearson: pearsonCorrelation,
  spearman: spearmanCorrelation,
  meanSquaredError,
}

/**
 * A task's metrics, as fractions, the first the one that decides.
 * @param labels classes by `glueTask(name).labels`, or scores for STS-B; `predictions` alike
 */
export function glueMetrics(name: string, labels: Classes, predictions: Classes): Record<string, number> {
  return Object.fromEntries(
    glueTask(name).metrics.map((metric) => [metric, computed[metric](labels, predictions)]),
  )
}
