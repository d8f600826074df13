/**
 * Text classification as a kind of task: texts or pairs, one label each or several, own files or GLUE's, with or without texts that
 * are out of scope.
 */
import type { ElectraConfig } from '../formats/electra-config.js'
import { VoltaicError } from '../runtime/errors.js'
import { calibrationOf } from './calibration.js'
import { type GlueTask, readGlue } from './glue.js'
import { multiLabelTask } from './multi-label.js'
import { skippedPlaces } from './row-checks.js'
import { type Scope, singleLabelTask, type TextPrediction } from './single-label.js'
import type { Task, TaskDefaults, TaskExamples, TaskKind, TaskReadOptions } from './task.js'
import { labelNamesOf, readTextExamples, type TextExample, type TextExampleOptions } from './text-examples.js'
import { requireArchitecture, type TextFeature } from './text-sequences.js'

export interface ClassificationOptions {
  /** Default: several labels at once where a JSON line has an array of them, else one. */
  readonly labels?: 'single' | 'multiple' | undefined
  /** `multiple` in TSV and CSV: what parts the labels. Default ','. */
  readonly labelSeparator?: string | undefined
  /** Pairs may be swapped: both orders are learned from. Default false, but for MRPC and STS-B. */
  readonly unordered?: boolean | undefined
  /**
   * The label of texts that belong to no other. Such examples are not learned from; what validation says of them, or of the others
   * alone, sets the threshold below which a text gets this label. Default: every text gets the best of the labels.
   */
  readonly outOfScope?: string | undefined
  /** The part of the texts in scope to keep, where validation has none out of scope. Default 0.95. */
  readonly inScopeRecall?: number | undefined
}

type ClassificationKind = TaskKind<TextExample, TextFeature, TextPrediction>
type ClassificationTask = Task<TextExample, TextFeature, TextPrediction>

/** The original's: ten epochs for the two small sets, else three. */
export function textDefaults(glue: GlueTask | undefined): TaskDefaults {
  return { epochs: glue?.name === 'rte' || glue?.name === 'sts-b' ? 10 : 3, maxLength: 128 }
}

/** Examples from a file of one's own, or one of GLUE's. */
export async function readTexts(
  file: string,
  { split = 'dev', ...options }: TaskReadOptions & TextExampleOptions,
  glue: GlueTask | undefined,
): Promise<TaskExamples<TextExample>> {
  const { examples, skipped } =
    glue === undefined
      ? await readTextExamples(file, options)
      : await readGlue(glue.name, file, split, { strict: options.strict })
  return { examples, skipped: skippedPlaces(skipped) }
}

function checkOptions({ labels, outOfScope, inScopeRecall = 0.95 }: ClassificationOptions): void {
  if (!(inScopeRecall > 0 && inScopeRecall <= 1)) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `inScopeRecall is ${inScopeRecall}; expected more than 0, at most 1`,
    )
  }
  if (labels === 'multiple' && outOfScope !== undefined) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      "outOfScope goes with one label a text; with labels: 'multiple' a text may have none as it is",
    )
  }
}

/** Numbers in their order, names by code units. */
function inOrder(labels: readonly string[]): readonly string[] {
  const areNumbers = labels.every((label) => /^(0|[1-9]\d{0,14})$/.test(label))
  return areNumbers ? labels.toSorted((a, b) => Number(a) - Number(b)) : labels
}

const isDefaultName = (name: string, id: number): boolean => name === `LABEL_${id}`
const folded = (name: string): string => name.toLowerCase().replace(/[-_ ]/g, '')

/**
 * GLUE's labels in the order of a model's: by name where the names are GLUE's but for case and dashes; by number where the model has
 * as many and its names are LABEL_0 and so on, or GLUE's are numbers.
 */
function glueOrder({ name, labels }: GlueTask, own: readonly string[]): readonly string[] {
  const found = own.map((label) => labels.find((one) => folded(one) === folded(label)))
  if (own.length === labels.length && new Set(found).size === labels.length && !found.includes(undefined)) {
    return found as string[]
  }
  const byNumber = own.every(isDefaultName) || labels.every((label, id) => label === String(id))
  if (own.length === labels.length && byNumber) return labels
  throw new VoltaicError(
    'ERR_CONFIG',
    `the model has ${own.length} labels (${own.slice(0, 8).join(', ')}); ${name} has ${labels.join(', ')}`,
  )
}

function namesOfModel({ id2label, numLabels }: ElectraConfig): string[] {
  return Array.from({ length: numLabels }, (_, id) => id2label[id] as string)
}

export function textClassification(options: ClassificationOptions = {}, glue?: GlueTask): ClassificationKind {
  checkOptions(options)
  const { outOfScope, inScopeRecall = 0.95 } = options
  const unordered = options.unordered ?? glue?.unordered ?? false
  const scopeOf = (label: string | undefined): Scope | undefined =>
    label === undefined ? undefined : { label, recall: inScopeRecall }

  return {
    name: 'text-classification',
    defaults: textDefaults(glue),

    read(file, { labelNames, ...reading }) {
      const known = outOfScope === undefined ? labelNames : labelNames?.concat(outOfScope)
      const { labels = 'auto', labelSeparator } = options
      return readTexts(file, { ...reading, labels, labelSeparator, labelNames: known }, glue)
    },

    learn(examples): ClassificationTask {
      if (glue !== undefined) return singleLabelTask({ labels: glue.labels, unordered, glue })
      const isMultiple = options.labels === 'multiple' || examples.some(({ label }) => Array.isArray(label))
      const labels = inOrder(labelNamesOf(examples).filter((label) => label !== outOfScope))
      if (labels.length < (isMultiple ? 1 : 2)) {
        const found = labels.length === 0 ? 'no label' : `one label only, '${labels[0]}'`
        throw new VoltaicError(
          'ERR_CONFIG',
          `the training examples have ${found}; expected ${isMultiple ? 'one' : 'two'} or more`,
        )
      }
      if (!isMultiple) return singleLabelTask({ labels, unordered, scope: scopeOf(outOfScope) })
      checkOptions({ ...options, labels: 'multiple' })
      return multiLabelTask({ labels, unordered })
    },

    restore(config): ClassificationTask {
      requireArchitecture(config, 'ElectraForSequenceClassification', 'text-classification')
      const labels = namesOfModel(config)
      if (config.problemType === 'regression' || (config.problemType === null && labels.length === 1)) {
        throw new VoltaicError('ERR_CONFIG', 'the model gives a number; evaluate it as text-regression')
      }
      const isMultiple = config.problemType === 'multi_label_classification'
      if ((options.labels ?? (isMultiple ? 'multiple' : 'single')) !== (isMultiple ? 'multiple' : 'single')) {
        throw new VoltaicError(
          'ERR_CONFIG',
          `labels: '${options.labels}', and the model was made for ${isMultiple ? 'several labels' : 'one label'} a text`,
        )
      }
      if (glue !== undefined) return singleLabelTask({ labels: glueOrder(glue, labels), unordered, glue })
      if (isMultiple) return multiLabelTask({ labels, unordered })
      const calibration = calibrationOf(config)
      const scope = scopeOf(outOfScope ?? calibration?.outOfScopeLabel)
      return singleLabelTask({ labels, unordered, scope, calibration })
    },
  }
}
