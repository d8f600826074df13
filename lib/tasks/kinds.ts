/** Every task by its name: the kinds that pipelines name too, GLUE's tasks, and what a fine-tuned model says of its own. */
import type { ElectraConfig } from '../formats/electra-config.js'
import { VoltaicError } from '../runtime/errors.js'
import { calibrationOf } from './calibration.js'
import { type GlueTask, glueTask, glueTaskNames } from './glue.js'
import { multipleChoice } from './multiple-choice.js'
import { type QuestionAnsweringOptions, questionAnswering } from './question-answering.js'
import type { TaskKind } from './task.js'
import { type ClassificationOptions, textClassification } from './text-classification.js'
import { type RegressionOptions, textRegression } from './text-regression.js'
import { type TokenClassificationOptions, tokenClassification } from './token-classification.js'

/** What a kind may be told before it reads a file. A kind ignores what is not its own. */
export interface TaskKindOptions
  extends ClassificationOptions,
    RegressionOptions,
    TokenClassificationOptions,
    QuestionAnsweringOptions {}

const kinds: Readonly<Record<string, (options: TaskKindOptions) => TaskKind>> = {
  'text-classification': (options) => textClassification(options),
  'text-regression': (options) => textRegression(options),
  'multiple-choice': () => multipleChoice(),
  'token-classification': (options) => tokenClassification(options),
  'question-answering': (options) => questionAnswering(options),
  squad: (options) => questionAnswering({ ...options, version: 1 }),
  'squad-v2': (options) => questionAnswering({ ...options, version: 2 }),
}

function glueKind(task: GlueTask, options: TaskKindOptions): TaskKind {
  return task.labels.length === 0 ? textRegression(options, task) : textClassification(options, task)
}

/** The names that `taskKind` takes; GLUE's also without their dashes. */
export const taskNames: readonly string[] = [...Object.keys(kinds), ...glueTaskNames]

/**
 * A kind of task by its name: one of `taskNames`.
 * @throws ERR_CONFIG for another name; ERR_ARGUMENT for options that do not fit
 */
export function taskKind(name: string, options: TaskKindOptions = {}): TaskKind {
  if (Object.hasOwn(kinds, name)) return (kinds[name] as (options: TaskKindOptions) => TaskKind)(options)
  let task: GlueTask
  try {
    task = glueTask(name)
  } catch (cause) {
    throw new VoltaicError('ERR_CONFIG', `no task '${name}'; expected one of ${taskNames.join(', ')}`, {
      cause,
    })
  }
  return glueKind(task, options)
}

/**
 * What a fine-tuned model's configuration says of the files of its task, such as the name of what is out of scope:
 * `taskKind(name, { ...kindOptionsOf(config), ...options })` reads them as its validation file was read.
 */
export function kindOptionsOf(config: ElectraConfig): TaskKindOptions {
  const isMultiple = config.problemType === 'multi_label_classification'
  const outOfScope = calibrationOf(config)?.outOfScopeLabel
  return { ...(isMultiple && { labels: 'multiple' }), ...(outOfScope !== undefined && { outOfScope }) }
}
