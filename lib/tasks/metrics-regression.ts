/** Metrics of regression, by SciPy's definitions. A correlation with something constant is not defined: NaN, as there. */
import { VoltaicError } from '../runtime/errors.js'
import { requireSameLength } from './metric-counts.js'

type Numbers = ArrayLike<number>

/** The mean of the squared differences. */
export function meanSquaredError(labels: Numbers, predictions: Numbers): number {
  requireSameLength(labels, predictions)
  let total = 0
  for (let at = 0; at < labels.length; at++) {
    total += ((labels[at] as number) - (predictions[at] as number)) ** 2
  }
  return total / labels.length
}

/** Differences from the mean, divided by their norm; undefined for a constant. */
function standardized(values: Numbers): Float64Array | undefined {
  const numbers = Float64Array.from(values)
  if (numbers.every((value) => value === numbers[0])) return undefined
  const mean = numbers.reduce((total, value) => total + value, 0) / numbers.length
  const differences = numbers.map((value) => value - mean)
  const largest = differences.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
  // Divided by the largest first, so that no square over- or underflows.
  const scaled = differences.map((value) => value / largest)
  const norm = Math.sqrt(scaled.reduce((total, value) => total + value * value, 0))
  return scaled.map((value) => value / norm)
}

/** Pearson's correlation coefficient. @throws ERR_ARGUMENT for fewer than two examples */
export function pearsonCorrelation(labels: Numbers, predictions: Numbers): number {
  requireSameLength(labels, predictions)
  if (labels.length < 2)
    throw new VoltaicError('ERR_ARGUMENT', 'a correlation of one example, expected two or more')
  const x = standardized(labels)
  const y = standardized(predictions)
  if (x === undefined || y === undefined) return Number.NaN
  const r = x.reduce((total, value, at) => total + value * (y[at] as number), 0)
  return Math.max(-1, Math.min(1, r))
}

/** Places in ascending order, from 1; equal numbers share the mean of their places. A NaN makes every rank NaN. */
export function averageRanks(values: Numbers): Float64Array {
  const numbers = Float64Array.from(values)
  const ranks = new Float64Array(numbers.length)
  if (numbers.some(Number.isNaN)) return ranks.fill(Number.NaN)
  const order = Uint32Array.from(numbers.keys()).sort(
    (a, b) => (numbers[a] as number) - (numbers[b] as number),
  )
  for (let first = 0; first < order.length; ) {
    let end = first + 1
    while (end < order.length && numbers[order[end] as number] === numbers[order[first] as number]) end += 1
    for (const place of order.subarray(first, end)) ranks[place] = (first + 1 + end) / 2
    first = end
  }
  return ranks
}

/** Spearman's rank correlation: Pearson's of the ranks. */
export function spearmanCorrelation(labels: Numbers, predictions: Numbers): number {
  return pearsonCorrelation(averageRanks(labels), averageRanks(predictions))
}
