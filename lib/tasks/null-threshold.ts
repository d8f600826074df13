/**
 * When a question counts as not answered: where the null score is above a threshold, which is found on validation data and stands in
 * config.json, under `voltaic_calibration`, as `null_score_difference`.
 */
import type { ElectraConfig } from '../formats/electra-config.js'
import { VoltaicError } from '../runtime/errors.js'
import { calibrationKey } from './calibration.js'
import { type SquadV2Metrics, squadV2Metrics } from './metrics-squad.js'
import type { SquadExample } from './squad-files.js'

export interface AnswerPrediction {
  /** '' where there is none. */
  readonly text: string
  /** The best answer, whether it was given or not; '' where the context has no token. */
  readonly best: string
  /** Of the best answer, in the context. */
  readonly start: number
  readonly end: number
  /** Of the best answer: its probability among the 20 best (and no answer, in version 2). */
  readonly score: number
  /** How much more speaks for no answer than for the best one; of the original's head, its answerability logit. */
  readonly nullScore: number
}

/** Above it a question counts as not answered; what the original's evaluation and Hugging Face's example take. */
export const defaultNullThresholds = { original: -2.75, huggingface: 0 } as const

/** The threshold on the null score that a model was saved with, or undefined. @throws ERR_CONFIG when it is damaged */
export function nullThresholdOf({ extra }: Pick<ElectraConfig, 'extra'>): number | undefined {
  const saved = extra[calibrationKey] as Readonly<Record<string, unknown>> | null | undefined
  const threshold = saved?.null_score_difference
  if (threshold === undefined || (typeof threshold === 'number' && Number.isFinite(threshold)))
    return threshold
  throw new VoltaicError(
    'ERR_CONFIG',
    `config.json: null_score_difference in ${calibrationKey} is ${JSON.stringify(threshold)?.slice(0, 80)}, expected a number; ` +
      'take it out, or fine-tune again',
  )
}

/** What `nullThresholdOf` reads. */
export function nullThresholdConfig(threshold: number): Pick<ElectraConfig, 'extra'> {
  return { extra: { [calibrationKey]: { null_score_difference: threshold } } }
}

/** The metrics of 2.0, with the best answers and the threshold apart, so that they tell the best threshold, too. */
export function answerMetricsV2(
  examples: readonly SquadExample[],
  predictions: readonly AnswerPrediction[],
  nullThreshold: number,
): SquadV2Metrics {
  const by = <T>(value: (prediction: AnswerPrediction) => T): Map<string, T> =>
    new Map(examples.map(({ id }, at) => [id, value(predictions[at] as AnswerPrediction)]))
  return squadV2Metrics(
    examples,
    by(({ best }) => best),
    { nullScores: by(({ nullScore }) => nullScore), nullThreshold },
  )
}

/** The threshold with the best F1. */
export function bestNullThreshold(
  examples: readonly SquadExample[],
  predictions: readonly AnswerPrediction[],
): number {
  const { best_f1 = 0, best_f1_thresh = 0 } = answerMetricsV2(examples, predictions, 0)
  // Where it is best to answer nothing, the official definition says 0.
  if (answerMetricsV2(examples, predictions, best_f1_thresh).f1 > best_f1 - 1e-9) return best_f1_thresh
  return predictions.reduce((least, { nullScore }) => Math.min(least, nullScore), 0) - 1
}
