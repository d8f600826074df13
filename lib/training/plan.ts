/** What a run will take, said before its first step: parameters, memory, arithmetic, time. */
import type { ElectraConfig } from '../formats/electra-config.js'
import { allocate, type Device, release, run, synchronize } from '../runtime/index.js'
import type { DecidedPrecision, PretrainSettings } from './options.js'

export interface TrainingPlan {
  /** Trained parameters, shared ones once. */
  readonly parameters: number
  readonly discriminatorParameters: number
  readonly generatorParameters: number
  /** Weights, gradients, both moments, activations of a step: an estimate. */
  readonly memoryBytes: number
  /** Floating-point operations of a token, forward and backward, a multiply-add counting two. */
  readonly flopsPerToken: number
  readonly tokensPerStep: number
  readonly steps: number
  /** From a matrix product timed just now; the first steps correct it. */
  readonly expectedSeconds: number
}

/** Multiply-adds of a token in an encoder's matrix products, forward. */
function encoderProducts(config: ElectraConfig, length: number): number {
  const { hiddenSize: hidden, intermediateSize: intermediate, embeddingSize: embedding } = config
  const layer = 4 * hidden * hidden + 2 * hidden * intermediate + 2 * length * hidden
  return config.numHiddenLayers * layer + (embedding === hidden ? 0 : embedding * hidden)
}

/** FLOPs of a token: both encoders, the discriminator's head, and the generator's head at the masked positions. */
export function flopsPerToken(
  discriminator: ElectraConfig,
  generator: ElectraConfig,
  length: number,
  maskProbability: number,
): number {
  const head = generator.embeddingSize * (generator.hiddenSize + generator.vocabSize)
  const products =
    encoderProducts(discriminator, length) +
    discriminator.hiddenSize ** 2 +
    encoderProducts(generator, length) +
    maskProbability * head
  return 6 * products
}

/** Bytes of what a step keeps for its backward, for each token. */
function activationBytes(config: ElectraConfig, bytes: number): number {
  const layer = 10 * config.hiddenSize + 2 * config.intermediateSize
  return config.numHiddenLayers * layer * bytes
}

/** Time of a product like those of the model's feed-forward layers, in FLOP/s. */
async function measureFlops(
  device: Device,
  config: ElectraConfig,
  precision: DecidedPrecision,
): Promise<number> {
  const dtype = precision === 'bf16' ? 'bfloat16' : 'float32'
  const [m, n, k] = [512, config.intermediateSize, config.hiddenSize]
  const a = allocate(device, dtype, [m, k])
  const b = allocate(device, dtype, [n, k])
  const c = allocate(device, dtype, [m, n])
  try {
    for (const matrix of [a, b]) run('fill', [matrix], [0.5])
    const product = (): void =>
      run('gemm', [a, b, null, null, null, c], [m, n, k, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0])
    product()
    await synchronize(device)
    const begin = performance.now()
    let count = 0
    do {
      for (let i = 0; i < 16; i++, count++) product()
      await synchronize(device)
    } while (performance.now() - begin < 40)
    return (2 * m * n * k * count * 1000) / (performance.now() - begin)
  } finally {
    for (const matrix of [a, b, c]) release(matrix)
  }
}

/** Of a product's speed, what a whole step reaches (measured: the rest moves activations and rolls random numbers). */
const stepEfficiency = 0.7

export async function planTraining(options: {
  readonly settings: PretrainSettings
  readonly discriminator: ElectraConfig
  readonly generator: ElectraConfig
  readonly parameters: { readonly all: number; readonly discriminator: number; readonly generator: number }
  readonly device: Device
  readonly precision: DecidedPrecision
  readonly stepsLeft: number
}): Promise<TrainingPlan> {
  const { settings, discriminator, generator, parameters, device, precision, stepsLeft } = options
  const bytes = precision === 'bf16' ? 2 : 4
  const tokensPerStep = settings.batchSize * settings.sequenceLength
  const tokens = tokensPerStep / settings.accumulate
  const flops = flopsPerToken(discriminator, generator, settings.sequenceLength, settings.maskProbability)
  const logits = settings.maskProbability * tokens * generator.vocabSize * (4 + bytes)
  const rate = (await measureFlops(device, discriminator, precision)) * stepEfficiency
  return {
    parameters: parameters.all,
    discriminatorParameters: parameters.discriminator,
    generatorParameters: parameters.generator,
    memoryBytes:
      parameters.all * (16 + (precision === 'bf16' ? 2 : 0)) +
      tokens * (activationBytes(discriminator, bytes) + activationBytes(generator, bytes)) +
      logits,
    flopsPerToken: flops,
    tokensPerStep,
    steps: settings.steps,
    expectedSeconds: (stepsLeft * tokensPerStep * flops) / rate,
  }
}
