/**
 * Probabilities that mean what they say, and a threshold below which a text is out of scope: for the intents of a dialogue. A
 * temperature divides the logits (Guo et al. 2017, On calibration of modern neural networks); a text whose best label has a
 * probability below the threshold then belongs to none. Both are found on validation outputs and stand in config.json as
 * `voltaic_calibration`.
 */
import type { ElectraConfig } from '../formats/electra-config.js'
import { VoltaicError } from '../runtime/errors.js'
import { bestClass, softmax } from './class-scores.js'

export interface Calibration {
  /** Divides the logits. */
  readonly temperature: number
  /** A text whose best label's probability is below is out of scope. */
  readonly threshold: number
  /** The label that such a text gets. */
  readonly outOfScopeLabel: string
}

/** Of what tasks calibrate, in config.json; question answering has its `null_score_difference` there. */
export const calibrationKey = 'voltaic_calibration'
const lowest = 0.05
const highest = 20

/** The calibration that a classifier was saved with, or undefined. @throws ERR_CONFIG when it is damaged */
export function calibrationOf({ extra }: Pick<ElectraConfig, 'extra'>): Calibration | undefined {
  const saved = extra[calibrationKey]
  if (saved === undefined || saved === null) return undefined
  if (typeof saved === 'object' && 'null_score_difference' in saved) return undefined
  const { temperature, threshold, out_of_scope_label: outOfScopeLabel } = saved as Record<string, unknown>
  if (
    typeof temperature === 'number' &&
    temperature > 0 &&
    temperature < Number.POSITIVE_INFINITY &&
    typeof threshold === 'number' &&
    threshold >= 0 &&
    threshold <= 1 &&
    typeof outOfScopeLabel === 'string'
  ) {
    return { temperature, threshold, outOfScopeLabel }
  }
  throw new VoltaicError(
    'ERR_CONFIG',
    `config.json: ${calibrationKey} is ${JSON.stringify(saved).slice(0, 200)}; expected a temperature above 0, ` +
      'a threshold from 0 to 1 and an out_of_scope_label; take it out, or fine-tune again',
  )
}

/** What `calibrationOf` reads. */
export function calibrationConfig(calibration: Calibration): Pick<ElectraConfig, 'extra'> {
  const { temperature, threshold, outOfScopeLabel } = calibration
  return { extra: { [calibrationKey]: { temperature, threshold, out_of_scope_label: outOfScopeLabel } } }
}

/** Probabilities of the labels, by temperature; without a calibration plain softmax. */
export function calibratedScores(
  logits: ArrayLike<number>,
  { temperature }: Pick<Calibration, 'temperature'> = { temperature: 1 },
): Float64Array {
  return softmax(Float64Array.from(logits, (logit) => logit / temperature))
}

/** Whether a text with these calibrated scores is out of scope. */
export function isOutOfScope(scores: Float64Array, { threshold }: Pick<Calibration, 'threshold'>): boolean {
  return (scores[bestClass(scores)] ?? 0) < threshold
}

/** Logits of an example, and its class. */
export interface LabelledLogits {
  readonly logits: ArrayLike<number>
  readonly label: number
}

/**
 * The temperature, from 0.05 to 20, with the smallest mean negative log-likelihood. That is convex in b = 1 / temperature, with
 * derivative mean(Σ softmax(b z) z - z[label]); its root is bisected.
 * @throws ERR_ARGUMENT without examples
 */
export function fitTemperature(examples: readonly LabelledLogits[]): number {
  if (examples.length === 0) {
    throw new VoltaicError('ERR_ARGUMENT', 'a temperature from no examples; expected one or more')
  }
  const slope = (logTemperature: number): number => {
    const temperature = Math.exp(logTemperature)
    let total = 0
    for (const { logits, label } of examples) {
      const scores = calibratedScores(logits, { temperature })
      for (let at = 0; at < scores.length; at++) total += (scores[at] as number) * (logits[at] as number)
      total -= logits[label] as number
    }
    return total
  }
  let low = Math.log(lowest)
  let high = Math.log(highest)
  // The derivative by b grows with b: negative means that b should be larger, the temperature smaller.
  if (slope(low) <= 0) return lowest
  if (slope(high) >= 0) return highest
  for (let step = 0; step < 50; step++) {
    const middle = (low + high) / 2
    if (slope(middle) > 0) low = middle
    else high = middle
  }
  return Math.exp((low + high) / 2)
}

/** The highest threshold that keeps at least this part of the texts, and at least one, in scope. @param scores their best labels' probabilities */
export function thresholdForRecall(scores: readonly number[], recall: number): number {
  const ascending = [...scores].sort((a, b) => a - b)
  // 0.95 of 20 is 19 in words, a little more in binary.
  const kept = Math.max(1, Math.ceil(recall * ascending.length - 1e-9))
  return ascending[ascending.length - kept] ?? 0
}

/**
 * The threshold with the best balanced accuracy, (in-scope texts kept + out-of-scope texts rejected) / 2, halfway between two scores;
 * of several the lowest, which rejects the fewest.
 */
export function thresholdForBalance(inScope: readonly number[], outOfScope: readonly number[]): number {
  const scores = [
    ...inScope.map((score) => ({ score, gain: -1 / inScope.length })),
    ...outOfScope.map((score) => ({ score, gain: 1 / outOfScope.length })),
  ].sort((a, b) => a.score - b.score)
  let best = { threshold: 0, gain: 0 }
  let gain = 0
  for (let at = 0; at + 1 < scores.length; at++) {
    const { score, gain: own } = scores[at] as { score: number; gain: number }
    const next = scores[at + 1]?.score as number
    gain += own
    // More than rounding: sums of the same fractions in another order are equal.
    if (next <= score || gain <= best.gain + 1e-9) continue
    const middle = (score + next) / 2
    // Nothing lies between neighbouring numbers; the middle may then round to the lower one, which must not be kept.
    best = { threshold: middle > score ? middle : next, gain }
  }
  return best.threshold
}
