/** What a fine-tuning run tells of itself: its steps, its events, its result. */
import type { MetricsRow } from '../training/metrics-log.js'
import type { DecidedPrecision } from '../training/options.js'
import type { FinetuneOptions } from './finetune-options.js'
import type { StepNumbers } from './finetune-trainer.js'
import type { TaskExamples, TaskName } from './task.js'

/** One step of training. */
export interface FinetuneStep extends StepNumbers {
  /** Steps done, this one included. */
  readonly step: number
  readonly steps: number
  /** Epochs done; a fraction. */
  readonly epoch: number
  readonly seed: number
  /** Tokens and sequences trained on so far. */
  readonly tokens: number
  readonly sequences: number
  readonly tokensPerSecond: number
  readonly sequencesPerSecond: number
  /** The metrics of the evaluation that followed this step, if one did. */
  readonly validation?: Readonly<Record<string, number>>
}

/** A file that was read. */
export interface FileReport {
  readonly file: string
  readonly examples: number
  readonly skipped: TaskExamples['skipped']
}

/** What happens beside the steps, for progress displays. */
export type FinetuneEvent =
  | {
      readonly kind: 'data'
      readonly task: TaskName
      readonly metric: string
      /** Undefined for a task without labels. */
      readonly labels: readonly string[] | undefined
      readonly train: FileReport
      /** Undefined where part of the training file serves. */
      readonly validation: FileReport | undefined
      readonly test: FileReport | undefined
    }
  | {
      readonly kind: 'plan'
      readonly seed: number
      readonly device: string
      readonly precision: DecidedPrecision
      readonly instructionSet: string
      readonly parameters: number
      readonly steps: number
      readonly epochs: number
      readonly learningRate: number
      readonly layerwiseDecay: number
      readonly maxLength: number
      /** Sequences and tokens of an epoch, and examples that validate. */
      readonly sequences: number
      readonly tokens: number
      readonly validationExamples: number
    }
  | {
      readonly kind: 'resumed'
      readonly seed: number
      readonly step: number
      readonly notes: readonly string[]
    }
  /** Something about the run that its user may want to know or change. */
  | { readonly kind: 'note'; readonly text: string }
  | { readonly kind: 'row'; readonly seed: number; readonly row: MetricsRow }
  | { readonly kind: 'saved'; readonly seed: number; readonly step: number }
  /** A run is finished: one of several seeds, or the only one. */
  | { readonly kind: 'finished'; readonly seed: number; readonly metrics: RunMetrics }
  /** The folder holds this run, finished before. */
  | { readonly kind: 'complete' }

export interface FinetuneRun extends FinetuneOptions {
  /** Stops after the step under way: saves, then throws ERR_ABORTED. */
  readonly signal?: AbortSignal | undefined
  readonly onEvent?: ((event: FinetuneEvent) => void) | undefined
}

/** What `metrics.json` says of one run. */
export interface RunMetrics {
  /** As it was asked for. */
  readonly task: string
  /** The metric that decided. */
  readonly metric: string
  /** When the model that was kept was there. */
  readonly best: { readonly epoch: number; readonly step: number }
  readonly validation: Readonly<Record<string, number>>
  /** The mean loss before the best evaluation, and the metrics of as many learned examples as validate. */
  readonly train: Readonly<Record<string, number>>
  readonly test?: Readonly<Record<string, number>>
}

/** One number a validation metric. */
export type Metrics = Readonly<Record<string, number>>

/** What several runs came to, by validation metric. */
export interface SeedsMetrics {
  readonly seeds: readonly number[]
  /** The seed of the run whose model was kept. */
  readonly best: number
  readonly values: Readonly<Record<string, readonly number[]>>
  readonly median: Metrics
  readonly least: Metrics
  readonly most: Metrics
}

export interface FinetuneResult extends RunMetrics {
  /** The model folder. */
  readonly output: string
  /** A table of the validation set by label, or a confusion matrix; empty where the task has none. */
  readonly report: string
  /** Of several seeds; the rest is the best one's. */
  readonly runs?: SeedsMetrics
}
