/** What makes two runs the same run, and what may change from one part of a run to the next. */
import { hashPlainData } from '../data/hash.js'
import type { PreparedData } from '../data/index.js'
import { type ElectraConfig, electraConfigToJson } from '../formats/electra-config.js'
import type { Tokenizer } from '../text/index.js'
import type { PretrainSettings } from './options.js'
import type { RunIdentity, RunRecord } from './run-folder.js'

/** What a folder's run must be for this one to go on in it. */
export function identityOf(
  settings: PretrainSettings,
  configs: { readonly discriminator: ElectraConfig; readonly generator: ElectraConfig },
  tokenizer: Tokenizer,
  data: PreparedData,
  /** Of the models that the run goes on from. */
  initial: string | undefined,
): RunIdentity {
  const { discriminator } = configs
  return {
    corpus: data.statistics.fingerprint.slice(0, 16),
    vocabulary: `${tokenizer.vocabularySize} tokens, ${hashPlainData(tokenizer.specification).slice(0, 12)}`,
    size: settings.size,
    layers: discriminator.numHiddenLayers,
    'hidden size': discriminator.hiddenSize,
    'generator hidden size': configs.generator.hiddenSize,
    architecture: hashPlainData([configs.discriminator, configs.generator].map(electraConfigToJson)).slice(
      0,
      12,
    ),
    training: settings.training,
    optimizer: settings.optimizer,
    segments: settings.segments,
    'sequence length': settings.sequenceLength,
    'batch size': settings.batchSize,
    accumulate: settings.accumulate,
    seed: settings.seed,
    'mask probability': settings.maskProbability,
    ...(settings.initialization !== 'original' && { initialization: settings.initialization }),
    ...(settings.languages !== undefined && {
      languages: `${Object.keys(settings.languages).join(', ')} by ${settings.languageExponent}`,
    }),
    ...(initial !== undefined && { 'initial models': initial }),
    ...(settings.trainedPositions !== undefined && { 'trained positions': settings.trainedPositions }),
  }
}

/** The settings that may change from one part of a run to the next; each change is said. */
export function changeable(settings: PretrainSettings): Record<string, unknown> {
  const { steps, learningRate, warmupSteps, weightDecay, maxGradientNorm, schedule } = settings
  const { discriminatorLearningRate, discriminatorWeight, generatorWeight, temperature } = settings
  const { logEvery, validateEvery, validationBatches, saveEvery, keep } = settings
  const rates = { steps, learningRate, warmupSteps, weightDecay, maxGradientNorm, schedule }
  return {
    ...rates,
    ...(discriminatorLearningRate !== undefined && { discriminatorLearningRate }),
    discriminatorWeight,
    generatorWeight,
    temperature,
    logEvery,
    validateEvery,
    validationBatches,
    saveEvery,
    keep,
  }
}

/** Sentences for the settings that are not those of the run's last part. */
export function changedSettings(record: RunRecord | undefined, settings: PretrainSettings): string[] {
  if (record === undefined) return []
  const notes = Object.entries(changeable(settings))
    .filter(([name, value]) => record.settings[name] !== value)
    .map(([name, value]) => `${name} was ${record.settings[name]}, is ${value}`)
  if (record.settings.steps !== settings.steps)
    notes.push('the learning rate follows the schedule of the new number of steps')
  return notes
}
