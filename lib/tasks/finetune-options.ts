/** The options of fine-tuning: defaults by the model's size and by the task, and every check that needs neither model nor data. */
import type { Precision, SizeName } from '../electra/index.js'
import type { ElectraConfig } from '../formats/electra-config.js'
import type { DeviceName } from '../runtime/index.js'
import { flag, integer, oneOf, refuse, text, within } from '../training/option-checks.js'
import { type TaskKindOptions, taskKind } from './kinds.js'
import type { TaskKind } from './task.js'

/** What `finetune` takes. `task`, `train`, `output` and a model must be given. With a task's name, its kind's options too. */
export interface FinetuneOptions extends TaskKindOptions {
  /** A model folder, or a name on the hub. */
  readonly model?: string | undefined
  /** Instead of `model`: random weights of this size, or of the configuration of a model's folder or name. */
  readonly fromScratch?: SizeName | (string & {}) | undefined
  /** With `fromScratch`: a vocab.txt or tokenizer.json, or a folder with one. Default: that of the model that `fromScratch` names. */
  readonly vocab?: string | undefined
  /** A task's name (`text-classification`, `sst-2`, `squad-v2`), or a task of your own. */
  readonly task: string | TaskKind
  /** The file to learn from. */
  readonly train: string
  /** The file that decides which checkpoint is best. Left out: part of `train`. */
  readonly validation?: string | undefined
  /** Without a validation file: the part of `train` kept for it. Default 0.1. */
  readonly validationFraction?: number | undefined
  /** A file to predict at the end, with its own metrics. */
  readonly test?: string | undefined
  /** The folder of the fine-tuned model, its metrics and predictions. */
  readonly output: string
  /** Passes over the training set; may be a fraction. Default: the task's. */
  readonly epochs?: number | undefined
  /** Updates, instead of `epochs`. */
  readonly steps?: number | undefined
  /** Sequences of an update. Default 32. */
  readonly batchSize?: number | undefined
  /** Default by size: tiny and small 3e-4, base 1e-4, large 5e-5. */
  readonly learningRate?: number | undefined
  /** Factor of the learning rate from one layer to the one below. Default by size: 0.8, large 0.9. 1: none. */
  readonly layerwiseDecay?: number | undefined
  /** Of hidden states and attention probabilities. Default: the model's configuration says. */
  readonly dropout?: number | undefined
  /** Default 0. */
  readonly weightDecay?: number | undefined
  /** Part of the steps over which the rate rises. Default 0.1. */
  readonly warmupFraction?: number | undefined
  /** Tokens of a sequence at most. Default: the task's, or the model's positions where they are fewer. */
  readonly maxLength?: number | undefined
  /** Tokens that windows of a long text share. Default: the task's. */
  readonly stride?: number | undefined
  /** 'original': no bias correction; 'pytorch': with. Default 'original'. */
  readonly optimizer?: 'original' | 'pytorch' | undefined
  /** 'original': warmup times decay; 'linear': warmup, then decay. Default 'original'. */
  readonly schedule?: 'original' | 'linear' | undefined
  /** Global norm that gradients are clipped to; 0 turns clipping off. Default 1. */
  readonly maxGradientNorm?: number | undefined
  /** First values, dropout and order follow from it. Default 1. */
  readonly seed?: number | undefined
  /** Runs with seeds `seed`, `seed + 1`, ...; the median is reported, the best run's model kept. Default 1. */
  readonly seeds?: number | undefined
  /** Steps between evaluations. Default: one epoch. */
  readonly evaluateEvery?: number | undefined
  /** Evaluations without a better one after which the run ends. Default: none, it goes on to its end. */
  readonly patience?: number | undefined
  /** Steps between rows of metrics. Default 100. */
  readonly logEvery?: number | undefined
  /** Steps between checkpoints; each evaluation takes one, too. Default 1000. */
  readonly saveEvery?: number | undefined
  readonly textColumn?: string | undefined
  readonly pairColumn?: string | undefined
  readonly labelColumn?: string | undefined
  /** A malformed row ends the reading. Default false: it is left out, and reported. */
  readonly strict?: boolean | undefined
  /** Start over in a folder that holds another run. */
  readonly fresh?: boolean | undefined
  readonly device?: DeviceName | undefined
  readonly precision?: Precision | undefined
  /** CPU threads. Never changes a result. */
  readonly threads?: number | undefined
}

const kindOptions = {
  labels: true,
  labelSeparator: true,
  unordered: true,
  outOfScope: true,
  inScopeRecall: true,
  labelAllPieces: true,
  head: true,
  version: true,
} satisfies Record<keyof TaskKindOptions, true>

/** The names of the options, for what reads them from a file. */
export const finetuneOptionNames: readonly string[] = Object.keys({
  model: true,
  fromScratch: true,
  vocab: true,
  task: true,
  train: true,
  validation: true,
  validationFraction: true,
  test: true,
  output: true,
  epochs: true,
  steps: true,
  batchSize: true,
  learningRate: true,
  layerwiseDecay: true,
  dropout: true,
  weightDecay: true,
  warmupFraction: true,
  maxLength: true,
  stride: true,
  optimizer: true,
  schedule: true,
  maxGradientNorm: true,
  seed: true,
  seeds: true,
  evaluateEvery: true,
  patience: true,
  logEvery: true,
  saveEvery: true,
  textColumn: true,
  pairColumn: true,
  labelColumn: true,
  strict: true,
  fresh: true,
  device: true,
  precision: true,
  threads: true,
  ...kindOptions,
} satisfies Record<keyof FinetuneOptions, true>)

/** Where the weights come from: a model; or none, and a size or a model says what the new one looks like. */
export type ModelOrigin =
  | { readonly model: string }
  | { readonly like: string; readonly vocab: string | undefined }

/** The options, checked; what depends on model or data has no default yet. */
export interface FinetuneSettings {
  readonly origin: ModelOrigin
  readonly kind: TaskKind
  /** The task's name as it was given. */
  readonly taskName: string
  /** What its kind was told, for the run's record. */
  readonly taskOptions: TaskKindOptions
  readonly train: string
  readonly validation: string | undefined
  readonly validationFraction: number
  readonly test: string | undefined
  readonly output: string
  readonly epochs: number
  /** Overrides `epochs`. */
  readonly steps: number | undefined
  readonly batchSize: number
  readonly learningRate: number | undefined
  readonly layerwiseDecay: number | undefined
  readonly dropout: number | undefined
  readonly weightDecay: number
  readonly warmupFraction: number
  readonly maxLength: number | undefined
  readonly stride: number | undefined
  readonly optimizer: 'original' | 'pytorch'
  readonly schedule: 'original' | 'linear'
  readonly maxGradientNorm: number
  readonly seed: number
  readonly seeds: number
  readonly evaluateEvery: number | undefined
  readonly patience: number | undefined
  readonly logEvery: number
  readonly saveEvery: number
  readonly columns: {
    readonly textColumn: string | undefined
    readonly pairColumn: string | undefined
    readonly labelColumn: string | undefined
  }
  readonly strict: boolean
  readonly fresh: boolean
  readonly device: DeviceName
  readonly precision: Precision
  readonly threads: number | undefined
}

const optional = <T, R>(value: T | undefined, check: (value: T) => R): R | undefined =>
  value === undefined ? undefined : check(value)

function originOf({ model, fromScratch, vocab }: FinetuneOptions): ModelOrigin {
  if (model !== undefined && fromScratch !== undefined)
    refuse('fromScratch', fromScratch, `nothing beside a model (${model}): weights come from one of the two`)
  if (fromScratch !== undefined) {
    return { like: text('fromScratch', fromScratch), vocab: optional(vocab, (value) => text('vocab', value)) }
  }
  if (vocab !== undefined) refuse('vocab', vocab, "nothing beside a model: the model's own tokenizer serves")
  if (model === undefined)
    refuse('model', model, 'a model folder or a name on the hub (or fromScratch, a size)')
  return { model: text('model', model) }
}

/** Fills in what does not depend on model or data, and checks. @throws ERR_CONFIG naming the option and what is expected */
export function resolveFinetuneOptions(options: FinetuneOptions): FinetuneSettings {
  const { task, steps, epochs } = options
  if (steps !== undefined && epochs !== undefined)
    refuse('steps', steps, `nothing beside epochs (${epochs}): one of the two says how long`)
  const kind = typeof task === 'object' ? task : taskKind(text('task', task), options)
  const fraction = options.validationFraction ?? 0.1
  return {
    origin: originOf(options),
    kind,
    taskName: typeof task === 'object' ? task.name : task,
    taskOptions: Object.fromEntries(
      Object.keys(kindOptions).map((name) => [name, options[name as keyof TaskKindOptions]]),
    ),
    train: text('train', options.train),
    validation: optional(options.validation, (value) => text('validation', value)),
    validationFraction: within('validationFraction', fraction, 0.001, 0.9),
    test: optional(options.test, (value) => text('test', value)),
    output: text('output', options.output),
    epochs: within('epochs', epochs ?? kind.defaults.epochs, 1e-6, 1e6),
    steps: optional(steps, (value) => integer('steps', value, 1)),
    batchSize: integer('batchSize', options.batchSize ?? 32, 1),
    learningRate: optional(options.learningRate, (value) => within('learningRate', value, 0, 1)),
    layerwiseDecay: optional(options.layerwiseDecay, (value) => within('layerwiseDecay', value, 0.01, 1)),
    dropout: optional(options.dropout, (value) => within('dropout', value, 0, 0.99)),
    weightDecay: within('weightDecay', options.weightDecay ?? 0, 0, 1),
    warmupFraction: within('warmupFraction', options.warmupFraction ?? 0.1, 0, 1),
    maxLength: optional(options.maxLength, (value) => integer('maxLength', value, 4)),
    stride: optional(options.stride, (value) => integer('stride', value, 0)),
    optimizer: oneOf('optimizer', options.optimizer ?? 'original', ['original', 'pytorch']),
    schedule: oneOf('schedule', options.schedule ?? 'original', ['original', 'linear']),
    maxGradientNorm: within('maxGradientNorm', options.maxGradientNorm ?? 1, 0, 1e9),
    seed: integer('seed', options.seed ?? 1, 0),
    seeds: integer('seeds', options.seeds ?? 1, 1),
    evaluateEvery: optional(options.evaluateEvery, (value) => integer('evaluateEvery', value, 1)),
    patience: optional(options.patience, (value) => integer('patience', value, 1)),
    logEvery: integer('logEvery', options.logEvery ?? 100, 1),
    saveEvery: integer('saveEvery', options.saveEvery ?? 1000, 1),
    columns: {
      textColumn: options.textColumn,
      pairColumn: options.pairColumn,
      labelColumn: options.labelColumn,
    },
    strict: flag('strict', options.strict ?? false),
    fresh: flag('fresh', options.fresh ?? false),
    device: text('device', options.device ?? 'auto') as DeviceName,
    precision: oneOf('precision', options.precision ?? 'auto', ['auto', 'fp32', 'bf16']),
    threads: optional(options.threads, (value) => integer('threads', value, 1)),
  }
}

/** The paper's rates (Table 7) by the model's size; tiny is trained like small. */
export function defaultRates({ numHiddenLayers, hiddenSize }: ElectraConfig): {
  readonly learningRate: number
  readonly layerwiseDecay: number
} {
  if (numHiddenLayers >= 24 || hiddenSize >= 1024) return { learningRate: 5e-5, layerwiseDecay: 0.9 }
  return { learningRate: hiddenSize >= 512 ? 1e-4 : 3e-4, layerwiseDecay: 0.8 }
}
