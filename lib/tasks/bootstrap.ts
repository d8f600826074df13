/**
 * Confidence intervals by the bootstrap (Efron, 1979): the statistic of many samples drawn from the data with replacement, and the
 * percentiles of those. What belongs together is drawn together (a cluster: the pairs of one occupation, say), because numbers that
 * depend on each other count for less than as many independent ones.
 */
import { createDraws, randomSite } from '../data/random.js'
import { VoltaicError } from '../runtime/errors.js'

export interface BootstrapOptions {
  /** Samples. Default 2,000. */
  readonly samples?: number | undefined
  /** Default 0.95. */
  readonly confidence?: number | undefined
  /** Default 0. */
  readonly seed?: number | undefined
}

export interface Estimate {
  readonly value: number
  /** Both ends of the interval; NaN where there are not two clusters to draw from. */
  readonly low: number
  readonly high: number
}

interface Sum {
  readonly sum: number
  readonly count: number
}

/** The number at a fraction of a sorted list, between neighbours where it falls there. */
function quantile(sorted: Float64Array, fraction: number): number {
  const place = fraction * (sorted.length - 1)
  const below = Math.floor(place)
  const low = sorted[below] as number
  const high = sorted[Math.min(below + 1, sorted.length - 1)] as number
  return low + (place - below) * (high - low)
}

/**
 * The mean of numbers in clusters, with its interval. The same for the same numbers in the same order, and seed.
 * @throws ERR_ARGUMENT without a number, or for options out of range
 */
export function bootstrapMean(
  clusters: readonly (readonly number[])[],
  { samples = 2000, confidence = 0.95, seed = 0 }: BootstrapOptions = {},
): Estimate {
  if (!Number.isSafeInteger(samples) || samples < 100 || samples > 1_000_000) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `bootstrap: samples is ${samples}; expected a whole number from 100 to 1,000,000`,
    )
  }
  if (!(confidence > 0 && confidence < 1)) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `bootstrap: confidence is ${confidence}; expected a number between 0 and 1`,
    )
  }
  const sums: Sum[] = clusters
    .filter((numbers) => numbers.length > 0)
    .map((numbers) => ({ sum: numbers.reduce((a, b) => a + b, 0), count: numbers.length }))
  if (sums.length === 0) throw new VoltaicError('ERR_ARGUMENT', 'bootstrap: there is no number')
  /** The mean over as many clusters as there are, each chosen by `choose`. */
  const mean = (choose: (place: number) => number): number => {
    let [total, numbers] = [0, 0]
    for (let place = 0; place < sums.length; place++) {
      const { sum, count } = sums[choose(place)] as Sum
      total += sum
      numbers += count
    }
    return total / numbers
  }
  const value = mean((place) => place)
  if (sums.length < 2) return { value, low: Number.NaN, high: Number.NaN }
  const draws = createDraws(seed, randomSite.bootstrap)
  const means = Float64Array.from({ length: samples }, (_, sample) => {
    draws.restart(sample)
    return mean(() => draws.integer(0, sums.length - 1))
  }).sort()
  const tail = (1 - confidence) / 2
  return { value, low: quantile(means, tail), high: quantile(means, 1 - tail) }
}
