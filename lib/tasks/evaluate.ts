/** A fine-tuned model on a file with answers: predictions, metrics, a table. */
import { dirname } from 'node:path'
import { ElectraPreTrainedModel, type Precision } from '../electra/index.js'
import type { ElectraConfig } from '../formats/electra-config.js'
import { resolveModelFolder } from '../formats/hub.js'
import { readModelConfig } from '../formats/model-folder.js'
import { writeFileAtomically } from '../runtime/atomic-file.js'
import { VoltaicError } from '../runtime/errors.js'
import { type Device, type DeviceName, setThreads } from '../runtime/index.js'
import { makeFolder } from '../runtime/make-folder.js'
import { loadTokenizer } from '../text/index.js'
import { refuse } from '../training/option-checks.js'
import { labelNamesOfTask, readTaskExamples } from './finetune-data.js'
import { kindOptionsOf, type TaskKindOptions, taskKind, taskNames } from './kinds.js'
import { outputsOf, predictionLines } from './predictions.js'
import type { TaskExamples, TaskKind, TaskName } from './task.js'

export interface EvaluateOptions extends TaskKindOptions {
  /** A fine-tuned model's folder, or its name on the hub. */
  readonly model: string
  /** A task's name, or a task of your own. Default: what the folder says. */
  readonly task?: string | TaskKind | undefined
  /** The file with texts and answers. */
  readonly data: string
  /** Where the predictions are written, as JSON Lines. Default: nowhere. */
  readonly output?: string | undefined
  /** Where they are written as the task's own evaluation script reads them: SQuAD's. Default: nowhere. */
  readonly official?: string | undefined
  /** Tokens of a sequence at most. Default: the task's, or the model's positions where they are fewer. */
  readonly maxLength?: number | undefined
  /** Tokens that windows of a long text share. Default: the task's. */
  readonly stride?: number | undefined
  readonly textColumn?: string | undefined
  readonly pairColumn?: string | undefined
  readonly labelColumn?: string | undefined
  /** A malformed row ends the reading. Default false: it is left out, and listed. */
  readonly strict?: boolean | undefined
  /** Default 'auto'. */
  readonly device?: DeviceName | Device | undefined
  /** Default 'auto'. */
  readonly precision?: Precision | undefined
  /** CPU threads. Never changes a result. */
  readonly threads?: number | undefined
  /** Stops between two batches, with ERR_ABORTED. */
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((done: number, all: number) => void) | undefined
}

export interface Evaluation {
  /** As it was asked for, or as the folder says. */
  readonly task: string
  readonly model: string
  readonly data: string
  readonly examples: number
  readonly skipped: TaskExamples['skipped']
  /** The metric that the task's models are chosen by. */
  readonly metric: string
  readonly metrics: Readonly<Record<string, number>>
  /** A table by label, or a confusion matrix; empty where the task has none. */
  readonly report: string
}

const byArchitecture: Readonly<Record<string, TaskName>> = {
  ElectraForTokenClassification: 'token-classification',
  ElectraForQuestionAnswering: 'question-answering',
  ElectraForJointQuestionAnswering: 'question-answering',
  ElectraForMultipleChoice: 'multiple-choice',
}

/**
 * The task that a model's configuration names: the one it was fine-tuned for, or what its head can do.
 * @throws ERR_CONFIG for a model without a task's head
 */
export function taskNameOf(config: ElectraConfig): string {
  const { architectures, problemType, numLabels, extra } = config
  const named = extra.finetuning_task
  if (typeof named === 'string' && taskNames.includes(named)) return named
  const architecture = architectures[0] ?? 'no class'
  if (architecture === 'ElectraForSequenceClassification') {
    const isRegression = problemType === 'regression' || (problemType === null && numLabels === 1)
    return isRegression ? 'text-regression' : 'text-classification'
  }
  const task = byArchitecture[architecture]
  if (task !== undefined) return task
  throw new VoltaicError(
    'ERR_CONFIG',
    `the model is ${architecture}, which has no head for a task; fine-tune it first, or name the task`,
  )
}

/**
 * Evaluates a fine-tuned model.
 * @throws ERR_CONFIG when the model was made for another task; ERR_IO, ERR_FORMAT for files, also where no row has a label that the
 * model knows; ERR_ABORTED after `signal`
 */
export async function evaluate(options: EvaluateOptions): Promise<Evaluation> {
  const { model: source, data: file, output, official, stride, strict = false, threads } = options
  const { textColumn, pairColumn, labelColumn } = options
  if (threads !== undefined) setThreads(threads)
  const folder = await resolveModelFolder(source)
  const config = readModelConfig(folder)
  const name = options.task ?? taskNameOf(config)
  const kind =
    typeof name === 'object' ? name : taskKind(name, { ...kindOptionsOf(config), ...given(options) })
  const task = kind.restore(config)
  if (official !== undefined && task.official === undefined)
    refuse('official', official, `nothing for ${task.name}: it has no file format of its own`)
  const maxLength = options.maxLength ?? Math.min(kind.defaults.maxLength, config.maxPositionEmbeddings)
  const columns = { textColumn, pairColumn, labelColumn }
  const labelNames = labelNamesOfTask(task)
  const { examples, skipped } = await readTaskExamples({ kind, columns, strict }, file, {
    split: 'dev',
    labelNames,
  })
  const tokenizer = await loadTokenizer(folder)
  const { device, precision = 'auto', signal, onProgress } = options
  const model = await ElectraPreTrainedModel.fromPretrained.call(task.model, folder, { device, precision })
  try {
    const features = task.features(examples, tokenizer, { maxLength, stride, training: false })
    const outputs = await outputsOf(task, model, features, { signal, onProgress })
    const predictions = task.decode(examples, features, outputs)
    if (output !== undefined) await writeResult(output, predictionLines(task, examples, predictions))
    if (official !== undefined && task.official !== undefined)
      await writeResult(official, task.official(examples, predictions))
    return {
      task: typeof name === 'object' ? name.name : name,
      model: source,
      data: file,
      examples: examples.length,
      skipped,
      metric: task.metric,
      metrics: task.metrics(examples, predictions),
      report: task.report(examples, predictions),
    }
  } finally {
    model.dispose()
  }
}

async function writeResult(path: string, content: string): Promise<void> {
  makeFolder(dirname(path))
  await writeFileAtomically(path, content)
}

/** What was given, so that it overrides what the folder says. */
function given<T extends object>(options: T): Partial<T> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Partial<T>
}
