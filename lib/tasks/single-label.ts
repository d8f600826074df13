/** Classification into one of several labels, and intents: one of several labels, or out of scope. */
import { ElectraForSequenceClassification } from '../electra/index.js'
import type { ElectraConfig } from '../formats/electra-config.js'
import { VoltaicError } from '../runtime/errors.js'
import {
  type Calibration,
  calibratedScores,
  calibrationConfig,
  fitTemperature,
  isOutOfScope,
  type LabelledLogits,
  thresholdForBalance,
  thresholdForRecall,
} from './calibration.js'
import { bestClass } from './class-scores.js'
import { type GlueTask, glueMetrics } from './glue.js'
import {
  accuracy,
  classificationReport,
  matthewsCorrelation,
  precisionRecallF1,
} from './metrics-classification.js'
import { openSetAuc } from './metrics-open-set.js'
import { confusionTable, scoreTable } from './report-table.js'
import type { Outputs, Task } from './task.js'
import type { TextExample } from './text-examples.js'
import {
  logitsOf,
  predictionsOf,
  sequenceLogits,
  sequenceLoss,
  type TextFeature,
  targetOf,
  textFeatures,
} from './text-sequences.js'

export interface TextPrediction {
  /** A name; of several labels at once, those with a probability of one half or more, likeliest first. */
  readonly label: string | readonly string[]
  /**
   * The probability of the label; of one that is out of scope, 1 less that of the best label; of several labels at once, the highest,
   * predicted or not.
   */
  readonly score: number
  /** The probabilities of all labels, in the order of their numbers. */
  readonly scores: Float64Array
}

/** How the texts are told that belong to no label. */
export interface Scope {
  /** The label that they have in files, and get in predictions. */
  readonly label: string
  /** The part of the others that is to be kept, where validation has no text out of scope. */
  readonly recall: number
}

export interface SingleLabelSettings {
  /** In the order of the classes. */
  readonly labels: readonly string[]
  readonly unordered: boolean
  readonly glue?: GlueTask | undefined
  readonly scope?: Scope | undefined
  readonly calibration?: Calibration | undefined
}

/** The configuration of a classifier with these labels. */
export function labelsConfig(labels: readonly string[]): Partial<ElectraConfig> {
  return {
    architectures: ['ElectraForSequenceClassification'],
    numLabels: labels.length,
    id2label: Object.fromEntries(labels.entries()),
    label2id: Object.fromEntries(labels.map((label, id) => [label, id])),
  }
}

/** The number of a label. @throws ERR_ARGUMENT for an example without one, or with another */
export function classOf(label: unknown, line: number, classes: ReadonlyMap<string, number>): number {
  const found = typeof label === 'string' ? classes.get(label) : undefined
  if (found !== undefined) return found
  const shown = label === undefined ? 'no label' : `the label ${JSON.stringify(label).slice(0, 80)}`
  throw new VoltaicError(
    'ERR_ARGUMENT',
    `the example of line ${line} has ${shown}; expected one of ${[...classes.keys()].slice(0, 20).join(', ')}`,
  )
}

/** The texts of an example, and where it stands, for the predictions file. */
export function recordOf({ line, text, pair, label }: TextExample): Record<string, unknown> {
  return { line, text, ...(pair === undefined ? {} : { pair }), ...(label === undefined ? {} : { label }) }
}

/** How well texts out of scope are told from the others; what has no example is left out. */
function scopeMetrics(
  labels: readonly number[],
  predicted: readonly number[],
  predictions: readonly TextPrediction[],
  outside: number,
) {
  const places = [...labels.keys()]
  const others = places.filter((at) => labels[at] === outside)
  const inside = places.filter((at) => labels[at] !== outside)
  const part = (places: readonly number[], fits: (at: number) => boolean): number =>
    places.filter(fits).length / places.length
  const scored = (at: number) => {
    const { scores } = predictions[at] as TextPrediction
    const best = bestClass(scores)
    return { score: scores[best] as number, isRight: best === labels[at] }
  }
  return {
    ...(inside.length > 0 && {
      openSetAuc: openSetAuc(
        inside.map(scored),
        others.map((at) => scored(at).score),
      ),
      inScopeAccuracy: part(inside, (at) => labels[at] === predicted[at]),
      inScopeRecall: part(inside, (at) => predicted[at] !== outside),
    }),
    ...(others.length > 0 && { outOfScopeRecall: part(others, (at) => predicted[at] === outside) }),
  }
}

export function singleLabelTask(
  settings: SingleLabelSettings,
): Task<TextExample, TextFeature<number>, TextPrediction> {
  const { labels, unordered, glue, scope, calibration } = settings
  const classes = new Map(labels.map((label, id) => [label, id]))
  // What is out of scope counts as a class behind the others.
  const names = scope === undefined ? labels : [...labels, scope.label]
  const named = new Map(names.map((label, id) => [label, id]))
  const numbersOf = (examples: readonly TextExample[], predictions: readonly TextPrediction[]) => ({
    actual: examples.map(({ label, line }) => classOf(label, line, named)),
    predicted: predictions.map(({ label }, at) => classOf(label, examples[at]?.line ?? 0, named)),
  })

  const task: Task<TextExample, TextFeature<number>, TextPrediction> = {
    name: 'text-classification',
    model: ElectraForSequenceClassification,
    config: { problemType: 'single_label_classification', ...labelsConfig(labels) },
    // Accuracy does not see, before there is a threshold, whether there will be a good one.
    metric: glue?.metrics[0] ?? (scope === undefined ? 'accuracy' : 'openSetAuc'),

    features: (examples, tokenizer, options) =>
      textFeatures(examples, tokenizer, options, {
        unordered,
        targetOf: ({ label, line }) =>
          label === undefined || label === scope?.label ? undefined : classOf(label, line, classes),
      }),

    loss: (model, batch) => sequenceLoss(model, batch, batch.map(targetOf)),
    outputs: sequenceLogits,

    decode: (examples, features, outputs) =>
      predictionsOf(examples, features, outputs, (logits) => {
        const scores = calibratedScores(logits, calibration)
        const best = bestClass(scores)
        const score = scores[best] as number
        if (scope !== undefined && calibration !== undefined && isOutOfScope(scores, calibration)) {
          return { label: scope.label, score: 1 - score, scores }
        }
        return { label: labels[best] as string, score, scores }
      }),

    metrics(examples, predictions) {
      const { actual, predicted } = numbersOf(examples, predictions)
      if (glue !== undefined) {
        const classOfGlue = (which: number): number => glue.labels.indexOf(names[which] as string)
        return glueMetrics(glue.name, actual.map(classOfGlue), predicted.map(classOfGlue))
      }
      const macro = precisionRecallF1(actual, predicted, { average: 'macro' })
      const weighted = precisionRecallF1(actual, predicted, { average: 'weighted' })
      return {
        accuracy: accuracy(actual, predicted),
        macroF1: macro.f1,
        macroPrecision: macro.precision,
        macroRecall: macro.recall,
        weightedF1: weighted.f1,
        matthewsCorrelation: matthewsCorrelation(actual, predicted),
        ...(scope === undefined ? {} : scopeMetrics(actual, predicted, predictions, labels.length)),
      }
    },

    report(examples, predictions) {
      const { actual, predicted } = numbersOf(examples, predictions)
      const { byLabel, confusion } = classificationReport(actual, predicted, names)
      const averages = (['macro', 'weighted'] as const).map((average) => ({
        label: `${average} average`,
        ...precisionRecallF1(actual, predicted, { average }),
      }))
      return [scoreTable(byLabel, averages), confusionTable(names, confusion)]
        .filter((table) => table !== '')
        .join('\n\n')
    },

    record: (example, { label, score }) => ({ ...recordOf(example), prediction: label, score }),
  }
  if (scope === undefined) return task
  return {
    ...task,
    calibrate(examples, features, outputs) {
      return calibrationConfig(calibrated(examples, features, outputs, { classes, scope }))
    },
  }
}

/**
 * Temperature from the texts in scope; threshold from those out of scope where there are any, else from the wanted recall.
 * @throws ERR_CONFIG when no text is in scope
 */
function calibrated(
  examples: readonly TextExample[],
  features: readonly TextFeature[],
  outputs: readonly Outputs[],
  { classes, scope }: { classes: ReadonlyMap<string, number>; scope: Scope },
): Calibration {
  const inside: LabelledLogits[] = []
  const outside: Float32Array[] = []
  features.forEach(({ example }, at) => {
    const { label, line } = examples[example] as TextExample
    const logits = logitsOf(outputs[at])
    if (label === scope.label) outside.push(logits)
    else if (label !== undefined) inside.push({ logits, label: classOf(label, line, classes) })
  })
  if (inside.length === 0) {
    throw new VoltaicError(
      'ERR_CONFIG',
      `no validation example has a label other than '${scope.label}'; a threshold needs some that are in scope`,
    )
  }
  const temperature = fitTemperature(inside)
  const best = (logits: ArrayLike<number>): number => Math.max(...calibratedScores(logits, { temperature }))
  const kept = inside.map(({ logits }) => best(logits))
  const threshold =
    outside.length > 0 ? thresholdForBalance(kept, outside.map(best)) : thresholdForRecall(kept, scope.recall)
  return { temperature, threshold, outOfScopeLabel: scope.label }
}
