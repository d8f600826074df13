/** What precision, recall and F1 are made of, for classes, labels and entities alike. What would divide by zero is 0. */
import { VoltaicError } from '../runtime/errors.js'

/** What was right, what was predicted and what was true, of one class. */
export interface Counts {
  readonly correct: number
  readonly predicted: number
  readonly actual: number
}

export interface Scores {
  readonly precision: number
  readonly recall: number
  readonly f1: number
  /** The true examples (or entities) that the scores are about. */
  readonly support: number
}

/** Counts by class. A class that was never counted has zeros. */
export class Tally<Class> {
  readonly #counts = new Map<Class, { correct: number; predicted: number; actual: number }>()

  add(of: Class, what: keyof Counts): void {
    const counts = this.#counts.get(of) ?? { correct: 0, predicted: 0, actual: 0 }
    counts[what] += 1
    this.#counts.set(of, counts)
  }

  get(of: Class): Counts {
    return this.#counts.get(of) ?? { correct: 0, predicted: 0, actual: 0 }
  }

  /** The classes that were counted. */
  classes(): Class[] {
    return [...this.#counts.keys()]
  }

  counts(): Counts[] {
    return [...this.#counts.values()]
  }
}

export const ratio = (part: number, whole: number): number => (whole === 0 ? 0 : part / whole)

export const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)

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
  const support = sum(counts.map(({ actual }) => actual))
  if (average === 'micro') {
    return scoresOf({
      correct: sum(counts.map(({ correct }) => correct)),
      predicted: sum(counts.map(({ predicted }) => predicted)),
      actual: support,
    })
  }
  const scores = counts.map(scoresOf)
  const weights = scores.map((score) => (average === 'macro' ? 1 : score.support))
  const mean = (name: 'precision' | 'recall' | 'f1'): number =>
    ratio(sum(scores.map((score, at) => (weights[at] as number) * score[name])), sum(weights))
  return { precision: mean('precision'), recall: mean('recall'), f1: mean('f1'), support }
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
