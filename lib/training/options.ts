/** The options of pre-training: defaults by size, and every check that needs no data. */

import { defaultLanguageExponent, type LanguageFiles } from '../data/index.js'
import { type Initialization, initializations, type Precision } from '../electra/index.js'
import {
  configOfSize,
  defaultGeneratorSize,
  type SizeName,
  sizeNames,
  trainingDefaults,
} from '../electra/sizes.js'
import type { ElectraConfig } from '../formats/electra-config.js'
import type { DeviceName } from '../runtime/index.js'
import type { ModelPair } from './initial-models.js'
import { checkInitial, type InitialConfigs, sizeLike } from './model-configs.js'
import { flag, integer, names, oneOf, refuse, text, within } from './option-checks.js'

/** A precision that has been decided. */
export type DecidedPrecision = Exclude<Precision, 'auto'>

/** What `pretrain` takes. Everything but `corpus` and `output` has a default, most of them by `size`. */
export interface PretrainOptions {
  /** Files and globs of the training text; left out: the built-in sample text. */
  readonly corpus?: readonly string[] | undefined
  /** Instead of `corpus`: files and globs by language, which are drawn in balanced shares. */
  readonly languages?: LanguageFiles | undefined
  /** With `languages`: from 0, all alike, to 1, as large as they are. Default 0.7. */
  readonly languageExponent?: number | undefined
  /** The folder of the run: models, checkpoints, metrics, tokenized data. */
  readonly output: string
  /**
   * Go on from trained models: a run's folder, a model folder or name on the hub of a discriminator, a checkpoint of the original code;
   * or both models by name. Their architecture is the run's, and their vocabulary too unless `vocab` or `vocabSize` asks for another.
   */
  readonly from?: string | ModelPair | undefined
  /** Rows of the position table, more than the models of `from` have: for longer inputs. */
  readonly positions?: number | undefined
  /** With `positions`: how many rows of the old table training has reached. Default: all. */
  readonly trainedPositions?: number | undefined
  /** Default 'tiny' for the sample text, else 'small'; with `from` the models say. */
  readonly size?: SizeName | undefined
  /** Overrides of the discriminator's configuration, as Hugging Face names them in camelCase. */
  readonly model?: Partial<ElectraConfig> | undefined
  /** A vocab.txt or tokenizer.json, or a folder with one. Left out: a vocabulary is trained first. */
  readonly vocab?: string | undefined
  /** Tokens of a vocabulary trained here. Default by size (tiny 8192, else 30522). */
  readonly vocabSize?: number | undefined
  /** Keep case and accents. Default false. */
  readonly cased?: boolean | undefined
  readonly steps?: number | undefined
  /** Sequences of full length in a step; a step takes batchSize × sequenceLength tokens. */
  readonly batchSize?: number | undefined
  /** Tokens of a sequence at most, special tokens included. */
  readonly sequenceLength?: number | undefined
  readonly learningRate?: number | undefined
  readonly warmupSteps?: number | undefined
  readonly weightDecay?: number | undefined
  /** Global norm that gradients are clipped to; 0 turns clipping off. Default 1. */
  readonly maxGradientNorm?: number | undefined
  /** 'original': no bias correction; 'pytorch': with. Default 'original'. */
  readonly optimizer?: 'original' | 'pytorch' | undefined
  /** 'original': warmup times decay; 'linear': warmup, then decay. Default 'original'. */
  readonly schedule?: 'original' | 'linear' | undefined
  /** 'joint': generator and discriminator together; 'two-stage': the generator alone, then the discriminator. */
  readonly training?: 'joint' | 'two-stage' | undefined
  /** With two-stage training: the discriminator's own peak rate. Default: `learningRate`. */
  readonly discriminatorLearningRate?: number | undefined
  /**
   * First values of new models. 'sinusoidal': a position table of waves, with which short runs come to use the context much sooner.
   * Default 'original'.
   */
  readonly initialization?: Initialization | undefined
  /** The generator's width as a fraction of the discriminator's. */
  readonly generatorSize?: number | undefined
  readonly maskProbability?: number | undefined
  readonly discriminatorWeight?: number | undefined
  readonly generatorWeight?: number | undefined
  /** Temperature of the generator's samples. Default 1. */
  readonly temperature?: number | undefined
  readonly segments?: 'packed' | 'pairs' | undefined
  /** Micro-batches a step; the batch is cut into this many. Default 1. */
  readonly accumulate?: number | undefined
  /** Files and globs of validation text. Default: part of the corpus. */
  readonly validation?: readonly string[] | undefined
  /** Part of the documents kept for validation. Default 0.02. */
  readonly validationFraction?: number | undefined
  readonly validateEvery?: number | undefined
  /** Batches of a validation at most. Default 100. */
  readonly validationBatches?: number | undefined
  readonly logEvery?: number | undefined
  readonly saveEvery?: number | undefined
  /** Checkpoints kept. Default 2. */
  readonly keep?: number | undefined
  /** Start over in a folder that holds another run. */
  readonly fresh?: boolean | undefined
  readonly seed?: number | undefined
  readonly device?: DeviceName | undefined
  readonly precision?: Precision | undefined
  /** CPU threads. Default: all processors this process may use. Never changes a result. */
  readonly threads?: number | undefined
  /**
   * On CUDA with a matmul library: time its algorithms and keep the fastest for each product. Checkpoints keep the choice, so that a
   * resume repeats the bits; another run may choose otherwise. Default false: the library's own first choice.
   */
  readonly tune?: boolean | undefined
}

/** The names of the options, for what reads them from a file. */
export const pretrainOptionNames: readonly string[] = Object.keys({
  corpus: true,
  languages: true,
  languageExponent: true,
  output: true,
  from: true,
  positions: true,
  trainedPositions: true,
  size: true,
  model: true,
  vocab: true,
  vocabSize: true,
  cased: true,
  steps: true,
  batchSize: true,
  sequenceLength: true,
  learningRate: true,
  warmupSteps: true,
  weightDecay: true,
  maxGradientNorm: true,
  optimizer: true,
  schedule: true,
  training: true,
  discriminatorLearningRate: true,
  initialization: true,
  generatorSize: true,
  maskProbability: true,
  discriminatorWeight: true,
  generatorWeight: true,
  temperature: true,
  segments: true,
  accumulate: true,
  validation: true,
  validationFraction: true,
  validateEvery: true,
  validationBatches: true,
  logEvery: true,
  saveEvery: true,
  keep: true,
  fresh: true,
  seed: true,
  device: true,
  precision: true,
  threads: true,
  tune: true,
} satisfies Record<keyof PretrainOptions, true>)

/** The options with every default filled in. */
export interface PretrainSettings {
  readonly corpus: readonly string[]
  readonly languages: LanguageFiles | undefined
  readonly languageExponent: number
  /** Whether the corpus is the built-in sample text. */
  readonly sample: boolean
  readonly output: string
  readonly initial: InitialConfigs | undefined
  readonly positions: number | undefined
  readonly trainedPositions: number | undefined
  readonly size: SizeName
  readonly model: Partial<ElectraConfig>
  readonly vocab: string | undefined
  readonly vocabSize: number
  readonly cased: boolean
  readonly steps: number
  readonly batchSize: number
  readonly sequenceLength: number
  readonly learningRate: number
  readonly warmupSteps: number
  readonly weightDecay: number
  readonly maxGradientNorm: number
  readonly optimizer: 'original' | 'pytorch'
  readonly schedule: 'original' | 'linear'
  readonly training: 'joint' | 'two-stage'
  readonly discriminatorLearningRate: number | undefined
  readonly initialization: Initialization
  readonly generatorSize: number
  readonly maskProbability: number
  readonly discriminatorWeight: number
  readonly generatorWeight: number
  readonly temperature: number
  readonly segments: 'packed' | 'pairs'
  readonly accumulate: number
  readonly validation: readonly string[]
  readonly validationFraction: number
  readonly validateEvery: number
  readonly validationBatches: number
  readonly logEvery: number
  readonly saveEvery: number
  readonly keep: number
  readonly fresh: boolean
  readonly seed: number
  readonly device: DeviceName
  readonly precision: Precision
  readonly threads: number | undefined
  readonly tune: boolean
}

/** Steps of a run that goes on from trained models, at most: what adapts them to a domain (Gururangan et al., 2020: 12,500). */
const continuedSteps = 10_000

/** What the sample text trains with: small enough for about a minute, long enough that the detector visibly works. */
const sampleDefaults = {
  steps: 1000,
  batchSize: 8,
  sequenceLength: 64,
  learningRate: 5e-4,
  warmupSteps: 60,
  vocabularySize: 1024,
  validateEvery: 250,
  logEvery: 50,
} as const

function languageFiles(languages: LanguageFiles, corpus: readonly string[]): LanguageFiles {
  if (corpus.length > 0) refuse('languages', Object.keys(languages), 'no corpus beside them')
  if (typeof languages !== 'object' || languages === null || Array.isArray(languages))
    refuse('languages', languages, 'an object from names to lists of files and globs')
  const entries = Object.entries(languages)
  if (entries.length === 0) refuse('languages', languages, 'one or more')
  for (const [name, files] of entries)
    if (names(`languages.${name}`, files).length === 0) refuse(`languages.${name}`, files, 'one file or more')
  return languages
}

function modelOverrides(size: SizeName, model: Partial<ElectraConfig>): Partial<ElectraConfig> {
  if (typeof model !== 'object' || Array.isArray(model)) refuse('model', model, 'an object')
  const known = configOfSize(size)
  const unknown = Object.keys(model).find((name) => !Object.hasOwn(known, name))
  if (unknown !== undefined)
    refuse(
      `model.${unknown}`,
      model[unknown as keyof ElectraConfig],
      `one of ${Object.keys(known).join(', ')}`,
    )
  return model
}

/**
 * Fills in defaults and checks. Throws ERR_CONFIG naming the option, its value and what is expected.
 * @param initial of the models that `from` means
 */
export function resolvePretrainOptions(
  options: PretrainOptions,
  initial?: InitialConfigs | undefined,
): PretrainSettings {
  const corpus = names('corpus', options.corpus ?? [])
  const { languages } = options
  const sample = corpus.length === 0 && languages === undefined
  if (!options.output) refuse('output', options.output, 'the folder of the run')
  checkInitial(options, initial)
  const size =
    initial === undefined
      ? oneOf('size', options.size ?? (sample ? 'tiny' : 'small'), sizeNames)
      : sizeLike(initial.discriminator)
  const positions = options.positions === undefined ? undefined : integer('positions', options.positions, 8)
  const bySize = {
    ...trainingDefaults(size),
    validateEvery: 1000,
    logEvery: 100,
    ...(sample && sampleDefaults),
  }
  if (initial !== undefined) {
    bySize.steps = Math.min(bySize.steps, continuedSteps)
    bySize.sequenceLength = Math.min(
      bySize.sequenceLength,
      positions ?? initial.discriminator.maxPositionEmbeddings,
    )
  }
  const ownVocabulary = options.vocabSize === undefined ? initial?.tokenizer : undefined
  const steps = integer('steps', options.steps ?? bySize.steps, 1)
  const settings: PretrainSettings = {
    corpus,
    languages: languages === undefined ? undefined : languageFiles(languages, corpus),
    languageExponent: within('languageExponent', options.languageExponent ?? defaultLanguageExponent, 0, 1),
    sample,
    output: text('output', options.output),
    initial,
    positions,
    trainedPositions:
      options.trainedPositions === undefined
        ? undefined
        : integer('trainedPositions', options.trainedPositions, 2),
    size,
    model: modelOverrides(size, options.model ?? {}),
    vocab: options.vocab == null ? ownVocabulary : text('vocab', options.vocab),
    vocabSize: integer('vocabSize', options.vocabSize ?? bySize.vocabularySize, 100),
    cased: flag('cased', options.cased ?? false),
    steps,
    batchSize: integer('batchSize', options.batchSize ?? bySize.batchSize, 1),
    sequenceLength: integer('sequenceLength', options.sequenceLength ?? bySize.sequenceLength, 8),
    learningRate: within('learningRate', options.learningRate ?? bySize.learningRate, 0, 1),
    warmupSteps: integer(
      'warmupSteps',
      options.warmupSteps ?? Math.min(bySize.warmupSteps, Math.ceil(steps / 10)),
      0,
    ),
    weightDecay: within('weightDecay', options.weightDecay ?? 0.01, 0, 1),
    maxGradientNorm: within('maxGradientNorm', options.maxGradientNorm ?? 1, 0, 1e9),
    optimizer: oneOf('optimizer', options.optimizer ?? 'original', ['original', 'pytorch']),
    schedule: oneOf('schedule', options.schedule ?? 'original', ['original', 'linear']),
    training: oneOf('training', options.training ?? 'joint', ['joint', 'two-stage']),
    discriminatorLearningRate:
      options.discriminatorLearningRate === undefined
        ? undefined
        : within('discriminatorLearningRate', options.discriminatorLearningRate, 0, 1),
    initialization: oneOf('initialization', options.initialization ?? 'original', initializations),
    generatorSize: within(
      'generatorSize',
      options.generatorSize ?? (options.training === 'two-stage' ? 1 : defaultGeneratorSize(size)),
      0.01,
      1,
    ),
    maskProbability: within('maskProbability', options.maskProbability ?? bySize.maskProbability, 0.01, 0.9),
    discriminatorWeight: within('discriminatorWeight', options.discriminatorWeight ?? 50, 0, 1e6),
    generatorWeight: within('generatorWeight', options.generatorWeight ?? 1, 0, 1e6),
    temperature: within('temperature', options.temperature ?? 1, 1e-3, 1e3),
    segments: oneOf('segments', options.segments ?? 'packed', ['packed', 'pairs']),
    accumulate: integer('accumulate', options.accumulate ?? 1, 1),
    validation: names('validation', options.validation ?? []),
    validationFraction: within('validationFraction', options.validationFraction ?? 0.02, 0, 0.5),
    validateEvery: integer('validateEvery', options.validateEvery ?? bySize.validateEvery, 1),
    validationBatches: integer('validationBatches', options.validationBatches ?? 100, 1),
    logEvery: integer('logEvery', options.logEvery ?? bySize.logEvery, 1),
    saveEvery: integer('saveEvery', options.saveEvery ?? 1000, 1),
    keep: integer('keep', options.keep ?? 2, 1),
    fresh: flag('fresh', options.fresh ?? false),
    seed: integer('seed', options.seed ?? 1, 0),
    device: text('device', options.device ?? 'auto') as DeviceName,
    precision: oneOf('precision', options.precision ?? 'auto', ['auto', 'fp32', 'bf16']),
    threads: options.threads === undefined ? undefined : integer('threads', options.threads, 1),
    tune: flag('tune', options.tune ?? false),
  }
  if (settings.batchSize % settings.accumulate !== 0)
    refuse('accumulate', settings.accumulate, `a divisor of the batch size, ${settings.batchSize}`)
  if (settings.training === 'joint' && settings.discriminatorLearningRate !== undefined)
    refuse(
      'discriminatorLearningRate',
      settings.discriminatorLearningRate,
      'nothing without two-stage training: one optimizer trains both models',
    )
  if (settings.training === 'two-stage' && settings.generatorSize !== 1)
    refuse(
      'generatorSize',
      settings.generatorSize,
      '1 for two-stage training: the discriminator starts from the generator, so both have the same size',
    )
  return settings
}
