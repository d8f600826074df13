/** What a pre-training run tells of itself: its steps, its events, its result. */
import type { PreparedData } from '../data/index.js'
import type { TransferCounts } from '../electra/index.js'
import type { StepNumbers, ValidationNumbers } from './joint-trainer.js'
import type { MetricsRow } from './metrics-log.js'
import type { DecidedPrecision, PretrainOptions } from './options.js'
import type { TrainingPlan } from './plan.js'

/** One step of training. */
export interface PretrainStep extends StepNumbers {
  /** Steps done, this one included. */
  readonly step: number
  readonly steps: number
  /** Tokens trained on so far. */
  readonly tokens: number
  readonly tokensPerSecond: number
  readonly epoch: number
  /** The validation that followed this step, if one did. */
  readonly validation?: ValidationNumbers
}

/** What happens beside the steps, for progress displays. */
export type PretrainEvent =
  | { readonly kind: 'vocabulary'; readonly size: number }
  | {
      readonly kind: 'tokenizing'
      readonly bytes: number
      readonly totalBytes: number
      readonly documents: number
    }
  /** The models of `from` were moved to the run's vocabulary: how many rows were kept, averaged and drawn. */
  | ({ readonly kind: 'transfer' } & TransferCounts)
  | { readonly kind: 'data'; readonly statistics: PreparedData['statistics'] }
  | {
      readonly kind: 'plan'
      readonly plan: TrainingPlan
      readonly device: string
      readonly precision: DecidedPrecision
      readonly instructionSet: string
    }
  | { readonly kind: 'resumed'; readonly step: number; readonly notes: readonly string[] }
  /** Something about the run that its user may want to know or change. */
  | { readonly kind: 'note'; readonly text: string }
  | { readonly kind: 'row'; readonly row: MetricsRow }
  | { readonly kind: 'saved'; readonly step: number }
  | { readonly kind: 'complete'; readonly step: number }

export interface PretrainRun extends PretrainOptions {
  /** Stops after the step under way: saves, then throws ERR_ABORTED. */
  readonly signal?: AbortSignal | undefined
  readonly onEvent?: ((event: PretrainEvent) => void) | undefined
}

export interface PretrainResult {
  readonly step: number
  /** Model folders. */
  readonly discriminator: string
  readonly generator: string
  /** The last validation; undefined where no text was kept for it. */
  readonly validation: ValidationNumbers | undefined
}
