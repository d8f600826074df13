/**
 * Metrics of classification, by scikit-learn's definitions: accuracy, precision, recall, F1 and their averages, Matthews' correlation,
 * the confusion matrix. Classes are numbers from 0.
 */
import { VoltaicError } from '../runtime/errors.js'
import {
  averageScores,
  ratio,
  requireSameLength,
  type Scores,
  scoresOf,
  sum,
  Tally,
} from './metric-counts.js'

/** Classes, one an example. */
export type Classes = ArrayLike<number>

export type LabelScores = Scores & { readonly label: string }

/** The part of examples whose prediction is the label. */
export function accuracy(labels: Classes, predictions: Classes): number {
  requireSameLength(labels, predictions)
  let right = 0
  for (let at = 0; at < labels.length; at++) if (labels[at] === predictions[at]) right += 1
  return right / labels.length
}

/** `matrix[label][prediction]`: how many examples. @throws ERR_ARGUMENT for a class outside 0 to `classes` - 1 */
export function confusionMatrix(labels: Classes, predictions: Classes, classes: number): number[][] {
  requireSameLength(labels, predictions)
  const matrix = Array.from({ length: classes }, () => new Array<number>(classes).fill(0))
  for (let at = 0; at < labels.length; at++) {
    const label = labels[at] as number
    const prediction = predictions[at] as number
    const row = matrix[label]
    if (row?.[prediction] === undefined) {
      throw new VoltaicError(
        'ERR_ARGUMENT',
        `example ${at} has label ${label} and prediction ${prediction}, expected classes 0 to ${classes - 1}`,
      )
    }
    row[prediction] += 1
  }
  return matrix
}

function tallyOf(labels: Classes, predictions: Classes): Tally<number> {
  requireSameLength(labels, predictions)
  const tally = new Tally<number>()
  for (let at = 0; at < labels.length; at++) {
    const label = labels[at] as number
    const prediction = predictions[at] as number
    tally.add(label, 'actual')
    tally.add(prediction, 'predicted')
    if (label === prediction) tally.add(label, 'correct')
  }
  return tally
}

export interface PrecisionRecallOptions {
  /** `binary` (default): of the class `positive` alone. */
  readonly average?: 'binary' | 'micro' | 'macro' | 'weighted'
  /** For `binary`. Default 1. */
  readonly positive?: number
  /** Averages are over classes 0 to this less one. Default: over the classes that occur, as scikit-learn does. */
  readonly classes?: number
}

/** Precision, recall and F1. */
export function precisionRecallF1(
  labels: Classes,
  predictions: Classes,
  { average = 'binary', positive = 1, classes }: PrecisionRecallOptions = {},
): Scores {
  const tally = tallyOf(labels, predictions)
  if (average === 'binary') return scoresOf(tally.get(positive))
  const counts = Array.from({ length: classes ?? 0 }, (_, label) => tally.get(label))
  return averageScores(classes === undefined ? tally.counts() : counts, average)
}

/**
 * Matthews' correlation coefficient, for any number of classes (Gorodkin's R_K): the correlation of labels and predictions, 0 when
 * either is all one class.
 */
export function matthewsCorrelation(labels: Classes, predictions: Classes): number {
  const counts = tallyOf(labels, predictions).counts()
  const examples = labels.length
  const correct = sum(counts.map((count) => count.correct))
  const both = correct * examples - sum(counts.map(({ predicted, actual }) => predicted * actual))
  const ofPredictions = examples ** 2 - sum(counts.map(({ predicted }) => predicted ** 2))
  const ofLabels = examples ** 2 - sum(counts.map(({ actual }) => actual ** 2))
  return ratio(both, Math.sqrt(ofPredictions * ofLabels))
}

/** A row for each label, with the averages over all of them. */
function tableOf(tally: Tally<number>, names: readonly string[]) {
  const counts = names.map((_, label) => tally.get(label))
  return {
    byLabel: counts.map(
      (count, label): LabelScores => ({ label: names[label] as string, ...scoresOf(count) }),
    ),
    macro: averageScores(counts, 'macro'),
    weighted: averageScores(counts, 'weighted'),
    micro: averageScores(counts, 'micro'),
  }
}

export interface ClassificationReport {
  readonly accuracy: number
  /** One row a class. */
  readonly byLabel: readonly LabelScores[]
  readonly macro: Scores
  readonly weighted: Scores
  /** `confusion[label][prediction]`. */
  readonly confusion: readonly (readonly number[])[]
}

/** The table that ends a training run: every class's scores, the averages, the confusion matrix. */
export function classificationReport(
  labels: Classes,
  predictions: Classes,
  names: readonly string[],
): ClassificationReport {
  const confusion = confusionMatrix(labels, predictions, names.length)
  const { byLabel, macro, weighted } = tableOf(tallyOf(labels, predictions), names)
  return { accuracy: accuracy(labels, predictions), byLabel, macro, weighted, confusion }
}

export interface MultiLabelReport {
  /** The part of examples with every label right. */
  readonly subsetAccuracy: number
  readonly micro: Scores
  readonly macro: Scores
  readonly weighted: Scores
  readonly byLabel: readonly LabelScores[]
}

/**
 * Scores where an example has any number of labels.
 * @param labels for each example the classes that it has; `predictions` alike
 * @throws ERR_ARGUMENT for a class without a name
 */
export function multiLabelReport(
  labels: readonly Iterable<number>[],
  predictions: readonly Iterable<number>[],
  names: readonly string[],
): MultiLabelReport {
  requireSameLength(labels, predictions)
  const tally = new Tally<number>()
  let exact = 0
  for (const [at, given] of labels.entries()) {
    const actual = new Set(given)
    const predicted = new Set(predictions[at])
    for (const label of actual) tally.add(label, 'actual')
    for (const label of predicted) tally.add(label, 'predicted')
    const common = [...actual].filter((label) => predicted.has(label))
    for (const label of common) tally.add(label, 'correct')
    if (common.length === actual.size && common.length === predicted.size) exact += 1
  }
  const unknown = tally.classes().find((label) => names[label] === undefined)
  if (unknown !== undefined) {
    throw new VoltaicError('ERR_ARGUMENT', `the class ${unknown}, expected 0 to ${names.length - 1}`)
  }
  return { subsetAccuracy: exact / labels.length, ...tableOf(tally, names) }
}
