/**
 * Metrics of classification, by scikit-learn's definitions: accuracy, precision, recall, F1 and their averages, Matthews' correlation,
 * the confusion matrix. Classes are numbers from 0. What would divide by zero is 0.
 */
import { VoltaicError } from '../runtime/errors.js'

/** Classes, one an example. */
export type Classes = ArrayLike<number>

export interface Scores {
  readonly precision: number
  readonly recall: number
  readonly f1: number
  /** The true examples (or entities) that the scores are about. */
  readonly support: number
}

/** What was right, what was predicted and what was true, of one class. */
export interface Counts {
  readonly correct: number
  readonly predicted: number
  readonly actual: number
}

const ratio = (part: number, whole: number): number => (whole === 0 ? 0 : part / whole)
const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)

export function scoresOf({ correct, predicted, actual }: Counts): Scores {
  return {
    precision: ratio(correct, predicted),
    recall: ratio(correct, actual),
    f1: ratio(2 * correct, predicted + actual),
    support: actual,
  }
}

/**
 * One score for several classes. `micro` pools the counts; `macro` is the plain mean over classes, `weighted` that by support.
 * F1 is averaged too, not computed from averaged precision and recall.
 */
export function averageScores(counts: readonly Counts[], average: 'micro' | 'macro' | 'weighted'): Scores {
  const total = (pick: (count: Counts) => number): number => sum(counts.map(pick))
  const support = total(({ actual }) => actual)
  if (average === 'micro') {
    return scoresOf({
      correct: total(({ correct }) => correct),
      predicted: total(({ predicted }) => predicted),
      actual: support,
    })
  }
  const mean = (pick: (scores: Scores) => number): number => {
    const weight = (scores: Scores): number => (average === 'macro' ? 1 : scores.support)
    const scores = counts.map(scoresOf)
    return ratio(sum(scores.map((score) => weight(score) * pick(score))), sum(scores.map(weight)))
  }
  return {
    precision: mean(({ precision }) => precision),
    recall: mean(({ recall }) => recall),
    f1: mean(({ f1 }) => f1),
    support,
  }
}

/** @throws ERR_ARGUMENT unless both have the same length, and an element */
export function requireSameLength(
  labels: ArrayLike<unknown>,
  predictions: ArrayLike<unknown>,
  what = 'labels',
): void {
  if (labels.length > 0 && labels.length === predictions.length) return
  throw new VoltaicError(
    'ERR_ARGUMENT',
    `${labels.length} ${what} and ${predictions.length} predictions: expected as many of both, at least one`,
  )
}

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

function countsOf(matrix: readonly (readonly number[])[]): Counts[] {
  return matrix.map((row, label) => ({
    correct: row[label] as number,
    predicted: sum(matrix.map((other) => other[label] as number)),
    actual: sum(row),
  }))
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
  requireSameLength(labels, predictions)
  const present = new Set([...Array.from(labels), ...Array.from(predictions)])
  const most = classes ?? Math.max(positive, ...present) + 1
  const counts = countsOf(confusionMatrix(labels, predictions, most))
  if (average === 'binary') return scoresOf(counts[positive] ?? { correct: 0, predicted: 0, actual: 0 })
  return averageScores(
    classes === undefined ? counts.filter((_, label) => present.has(label)) : counts,
    average,
  )
}

/**
 * Matthews' correlation coefficient, for any number of classes (Gorodkin's R_K): the correlation of labels and predictions, 0 when
 * either is all one class.
 */
export function matthewsCorrelation(labels: Classes, predictions: Classes): number {
  requireSameLength(labels, predictions)
  const classes = Math.max(...new Set([...Array.from(labels), ...Array.from(predictions)])) + 1
  const counts = countsOf(confusionMatrix(labels, predictions, classes))
  const examples = labels.length
  const correct = sum(counts.map((count) => count.correct))
  const over = (product: (count: Counts) => number): number => sum(counts.map(product))
  const both = correct * examples - over(({ predicted, actual }) => predicted * actual)
  const ofPredictions = examples ** 2 - over(({ predicted }) => predicted ** 2)
  const ofLabels = examples ** 2 - over(({ actual }) => actual ** 2)
  return ratio(both, Math.sqrt(ofPredictions * ofLabels))
}

export interface ClassificationReport {
  readonly accuracy: number
  /** One row a class. */
  readonly byLabel: readonly (Scores & { readonly label: string })[]
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
  const counts = countsOf(confusion)
  return {
    accuracy: accuracy(labels, predictions),
    byLabel: counts.map((count, label) => ({ label: names[label] as string, ...scoresOf(count) })),
    macro: averageScores(counts, 'macro'),
    weighted: averageScores(counts, 'weighted'),
    confusion,
  }
}

export interface MultiLabelReport {
  /** The part of examples with every label right. */
  readonly subsetAccuracy: number
  readonly micro: Scores
  readonly macro: Scores
  readonly weighted: Scores
  readonly byLabel: readonly (Scores & { readonly label: string })[]
}

/**
 * Scores where an example has any number of labels.
 * @param labels for each example the classes that it has; `predictions` alike
 */
export function multiLabelReport(
  labels: readonly Iterable<number>[],
  predictions: readonly Iterable<number>[],
  names: readonly string[],
): MultiLabelReport {
  requireSameLength(labels, predictions)
  const counts = names.map(() => ({ correct: 0, predicted: 0, actual: 0 }))
  const countOf = (label: number): { correct: number; predicted: number; actual: number } => {
    const count = counts[label]
    if (count !== undefined) return count
    throw new VoltaicError('ERR_ARGUMENT', `the class ${label}, expected 0 to ${names.length - 1}`)
  }
  let exact = 0
  for (const [at, given] of labels.entries()) {
    const actual = new Set(given)
    const predicted = new Set(predictions[at])
    for (const label of actual) countOf(label).actual += 1
    for (const label of predicted) countOf(label).predicted += 1
    const common = [...actual].filter((label) => predicted.has(label))
    for (const label of common) countOf(label).correct += 1
    if (common.length === actual.size && common.length === predicted.size) exact += 1
  }
  return {
    subsetAccuracy: exact / labels.length,
    micro: averageScores(counts, 'micro'),
    macro: averageScores(counts, 'macro'),
    weighted: averageScores(counts, 'weighted'),
    byLabel: counts.map((count, label) => ({ label: names[label] as string, ...scoresOf(count) })),
  }
}
