/** The model sizes by name, and the rule that makes a generator's configuration from its discriminator's. */
import { defineElectraConfig, type ElectraConfig } from '../formats/electra-config.js'
import { VoltaicError } from '../runtime/errors.js'

export type SizeName = 'tiny' | 'small' | 'base' | 'large'

interface Size {
  readonly layers: number
  readonly hidden: number
  readonly heads: number
  readonly intermediate: number
  readonly embedding: number
  /** The generator's width as a fraction of the discriminator's. */
  readonly generator: number
  /** Defaults of pre-training: Table 6 of the paper; for tiny, what trains in minutes on a laptop. */
  readonly training: TrainingDefaults
}

export interface TrainingDefaults {
  readonly steps: number
  readonly batchSize: number
  readonly sequenceLength: number
  readonly learningRate: number
  readonly warmupSteps: number
  readonly maskProbability: number
  readonly vocabularySize: number
}

/** The paper's sizes (section 3.1 and Tables 6 and 7 of its appendix), and one for tests and first runs. */
const sizes: Readonly<Record<SizeName, Size>> = {
  tiny: {
    layers: 4,
    hidden: 128,
    heads: 2,
    intermediate: 512,
    embedding: 64,
    generator: 1 / 2,
    training: {
      steps: 2000,
      batchSize: 32,
      sequenceLength: 128,
      learningRate: 5e-4,
      warmupSteps: 100,
      maskProbability: 0.15,
      vocabularySize: 8192,
    },
  },
  small: {
    layers: 12,
    hidden: 256,
    heads: 4,
    intermediate: 1024,
    embedding: 128,
    generator: 1 / 4,
    training: {
      steps: 1_000_000,
      batchSize: 128,
      sequenceLength: 128,
      learningRate: 5e-4,
      warmupSteps: 10_000,
      maskProbability: 0.15,
      vocabularySize: 30_522,
    },
  },
  base: {
    layers: 12,
    hidden: 768,
    heads: 12,
    intermediate: 3072,
    embedding: 768,
    generator: 1 / 3,
    training: {
      steps: 766_000,
      batchSize: 256,
      sequenceLength: 512,
      learningRate: 2e-4,
      warmupSteps: 10_000,
      maskProbability: 0.15,
      vocabularySize: 30_522,
    },
  },
  large: {
    layers: 24,
    hidden: 1024,
    heads: 16,
    intermediate: 4096,
    embedding: 1024,
    generator: 1 / 4,
    training: {
      steps: 400_000,
      batchSize: 2048,
      sequenceLength: 512,
      learningRate: 2e-4,
      warmupSteps: 10_000,
      maskProbability: 0.25,
      vocabularySize: 30_522,
    },
  },
}

export const sizeNames: readonly SizeName[] = ['tiny', 'small', 'base', 'large']

function sizeOf(name: SizeName): Size {
  const size = sizes[name]
  if (size === undefined)
    throw new VoltaicError('ERR_CONFIG', `size is '${name}', expected one of ${sizeNames.join(', ')}`)
  return size
}

export function trainingDefaults(name: SizeName): TrainingDefaults {
  return sizeOf(name).training
}

/** The generator's width as a fraction of the discriminator's, by default. */
export function defaultGeneratorSize(name: SizeName): number {
  return sizeOf(name).generator
}

/** A discriminator's configuration by size name; `options` override. */
export function configOfSize(name: SizeName, options: Partial<ElectraConfig> = {}): ElectraConfig {
  const size = sizeOf(name)
  return defineElectraConfig({
    architectures: ['ElectraForPreTraining'],
    numHiddenLayers: size.layers,
    hiddenSize: size.hidden,
    numAttentionHeads: size.heads,
    intermediateSize: size.intermediate,
    embeddingSize: size.embedding,
    ...options,
  })
}

/**
 * The generator that belongs to a discriminator: its width is a fraction of the discriminator's, rounded to whole heads of
 * 64 where it has more than one; feed-forward 4 times the width; the embedding size stays the discriminator's, whose
 * embeddings it shares.
 */
export function generatorConfig(discriminator: ElectraConfig, fraction: number): ElectraConfig {
  if (!(fraction > 0 && fraction <= 1))
    throw new VoltaicError(
      'ERR_CONFIG',
      `generatorSize is ${fraction}, expected a fraction above 0, at most 1`,
    )
  const hiddenSize = Math.max(1, Math.round(discriminator.hiddenSize * fraction))
  const numAttentionHeads =
    fraction === 1 ? discriminator.numAttentionHeads : Math.max(1, Math.floor(hiddenSize / 64))
  if (hiddenSize % numAttentionHeads !== 0)
    throw new VoltaicError(
      'ERR_CONFIG',
      `generatorSize ${fraction} of hidden size ${discriminator.hiddenSize} is ${hiddenSize}, ` +
        `which ${numAttentionHeads} heads do not divide; choose a fraction that gives a multiple of 64`,
    )
  return {
    ...discriminator,
    architectures: ['ElectraForMaskedLM'],
    hiddenSize,
    numAttentionHeads,
    intermediateSize: fraction === 1 ? discriminator.intermediateSize : 4 * hiddenSize,
  }
}
