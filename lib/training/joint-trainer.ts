/**
 * One training run's models, arena and optimizer, and what is done with them: queue a step, validate, take a checkpoint's state out
 * and in. Queueing returns at once; a step's numbers come as a promise, so the next step can be queued before they are read.
 */
import type { Batch } from '../data/index.js'
import {
  type BatchInput,
  ElectraForJointPreTraining,
  ElectraForMaskedLM,
  ElectraForPreTraining,
  type JointObjective,
  type LoadReport,
} from '../electra/index.js'
import type { ElectraConfig } from '../formats/electra-config.js'
import type { TensorSource } from '../formats/tensor-source.js'
import type { ParameterArena } from '../nn/index.js'
import { AdamW, type Schedule } from '../optim/index.js'
import { type Device, upload } from '../runtime/index.js'
import { noGrad, RandomState, type Tensor, TensorScope, zeros } from '../tensor/index.js'
import { unscoped } from '../tensor/scope.js'
import { tensorValue } from '../tensor/tensor.js'
import { exportArena, importArena } from './arena-state.js'
import type { CheckpointSource, CheckpointTensors } from './checkpoint.js'
import { type DetectorMetrics, detectorCounts, detectorMetrics } from './detector-metrics.js'
import type { DecidedPrecision, PretrainSettings } from './options.js'
import { scheduleOf } from './schedule-of.js'
import { StepRunner } from './step-runner.js'

/** The token numbers that pre-training needs. */
export interface SpecialTokens {
  readonly clsTokenId: number
  readonly sepTokenId: number
  readonly maskTokenId: number
}

/** A step's numbers, read from the device. While the generator trains alone, the discriminator's loss is 0. */
export interface StepNumbers {
  readonly loss: number
  readonly generatorLoss: number
  readonly discriminatorLoss: number
  /** Masked positions, and those of them that the generator's first choice got right. */
  readonly masked: number
  readonly maskedCorrect: number
  /** Before clipping. */
  readonly gradientNorm: number
  readonly learningRate: number
}

export interface ValidationNumbers extends DetectorMetrics {
  readonly generatorLoss: number
  readonly discriminatorLoss: number
  readonly maskedLmAccuracy: number
  readonly tokens: number
}

export interface JointTrainerOptions {
  readonly settings: PretrainSettings
  readonly discriminator: ElectraConfig
  readonly generator: ElectraConfig
  readonly special: SpecialTokens
  readonly device: Device
  readonly precision: DecidedPrecision
  readonly onNote?: ((text: string) => void) | undefined
}

/** Micro-batches count from here in validation, so that its masks are never those of a training step. */
const validationMicroBatch = 0x8000

export interface Stage {
  readonly objective: JointObjective
  /** First step of the stage, and how many it has. */
  readonly begin: number
  readonly steps: number
}

/** The stages of a run: one for joint training; the generator's half, then the discriminator's, for two-stage training. */
export function stagesOf(settings: PretrainSettings): readonly Stage[] {
  if (settings.training === 'joint') return [{ objective: 'joint', begin: 0, steps: settings.steps }]
  const generator = Math.ceil(settings.steps / 2)
  return [
    { objective: 'generator', begin: 0, steps: generator },
    { objective: 'discriminator', begin: generator, steps: settings.steps - generator },
  ]
}

export class JointTrainer {
  readonly model: ElectraForJointPreTraining
  readonly arena: ParameterArena
  readonly device: Device
  readonly #settings: PretrainSettings
  readonly #random: RandomState
  /** Detector counts since the last row of metrics; the kernel adds to it. */
  readonly #counts: Tensor
  readonly #runner: StepRunner
  #stage: Stage
  #optimizer: AdamW
  #schedule: Schedule

  constructor(options: JointTrainerOptions) {
    const { settings, discriminator, generator, special, device, precision } = options
    this.#settings = settings
    this.device = device
    const construct = { device, precision, seed: settings.seed, initialization: settings.initialization }
    this.#random = new RandomState(device, { seed: settings.seed })
    this.model = new ElectraForJointPreTraining(
      new ElectraForMaskedLM(generator, construct),
      new ElectraForPreTraining(discriminator, construct),
      {
        ...special,
        random: this.#random,
        sequenceLength: settings.sequenceLength,
        maskProbability: settings.maskProbability,
        discriminatorWeight: settings.discriminatorWeight,
        generatorWeight: settings.generatorWeight,
        temperature: settings.temperature,
        tie: settings.training === 'joint',
      },
    )
    this.model.train()
    this.arena = this.model.arena
    this.#counts = unscoped(() => zeros([detectorCounts], { dtype: 'int32', device }))
    this.#runner = new StepRunner({
      device,
      limits: discriminator,
      sequenceLength: settings.sequenceLength,
      onNote: options.onNote,
    })
    this.#stage = stagesOf(settings)[0] as Stage
    this.#optimizer = this.#makeOptimizer()
    this.#schedule = this.#scheduleOf(this.#stage)
  }

  /**
   * Takes over the weights that a run begins with. Shared embeddings are the discriminator's; a generator that is not given keeps its
   * first values. Gives what a source lacked or had beyond the models.
   */
  loadInitial(models: {
    readonly discriminator: TensorSource
    readonly generator: TensorSource | undefined
  }): readonly LoadReport[] {
    const { generator, discriminator } = this.model
    const reports = models.generator === undefined ? [] : [generator.loadWeights(models.generator)]
    return [...reports, discriminator.loadWeights(models.discriminator)]
  }

  #makeOptimizer(): AdamW {
    const { optimizer, weightDecay, maxGradientNorm } = this.#settings
    const { objective } = this.#stage
    return new AdamW(this.arena, {
      form: optimizer,
      epsilon: 1e-6,
      weightDecay,
      maxGradientNorm,
      // The model that a stage does not train stays as it is, its moments too.
      multiplier: (names) =>
        objective === 'joint' || names.some((name) => name.startsWith(`${objective}.`)) ? 1 : 0,
    })
  }

  /** Parameters trained, and each model's own, shared ones counted in both. */
  countParameters(): { readonly all: number; readonly discriminator: number; readonly generator: number } {
    const count = (parameters: readonly { readonly size: number }[]): number =>
      parameters.reduce((sum, { size }) => sum + size, 0)
    return {
      all: count(this.model.parameters()),
      discriminator: count(this.model.discriminator.parameters()),
      generator: count(this.model.generator.parameters()),
    }
  }

  /** At the second stage's first step the discriminator takes over the generator's weights, and the moments begin at zero. */
  #enterStageOf(step: number): void {
    const stage = stagesOf(this.#settings).findLast(({ begin }) => step >= begin) as Stage
    if (stage.objective === this.#stage.objective) return
    this.#switchTo(stage)
    if (step === stage.begin) this.model.startDiscriminatorFromGenerator()
  }

  #switchTo(stage: Stage): void {
    this.#stage = stage
    this.#runner.dispose()
    this.#optimizer.dispose()
    this.#optimizer = this.#makeOptimizer()
    this.#schedule = this.#scheduleOf(stage)
  }

  #scheduleOf({ objective, steps }: Stage): Schedule {
    const { learningRate, discriminatorLearningRate = learningRate } = this.#settings
    const peak = objective === 'discriminator' ? discriminatorLearningRate : learningRate
    return scheduleOf({ ...this.#settings, learningRate: peak }, steps)
  }

  /** The learning rate of a step (counted from 0). */
  learningRate(step: number): number {
    return this.#schedule(step - this.#stage.begin)
  }

  /** Shapes of steps that run as captured graphs. */
  get graphs(): number {
    return this.#runner.graphs
  }

  /** Queues forward, backward and update of one step over its micro-batches. */
  queueStep(step: number, batches: readonly Batch[]): Promise<StepNumbers> {
    this.#enterStageOf(step)
    const { seed } = this.#settings
    const learningRate = this.learningRate(step)
    // Whatever changes from step to step is on the device before the step's kernels are.
    for (const microBatch of batches.keys()) this.#random.update({ seed, step, microBatch }, microBatch)
    this.#optimizer.prepare({ learningRate, gradientScale: 1 / batches.length })
    const reads = this.#runner.run(batches, (inputs) => this.#compute(inputs))
    reads.push(this.#optimizer.gradientNorm.data())
    return this.#readStep(reads, batches.length, learningRate)
  }

  /** The kernels of a step: all of them, and nothing else. */
  #compute(inputs: readonly BatchInput[]): Tensor[] {
    this.arena.zeroGradients()
    const outputs = inputs.flatMap((input, microBatch) => {
      this.#random.select(microBatch)
      const { loss, generatorLoss, discriminatorLoss, maskedCounts } = this.model.forwardBackward(input, {
        objective: this.#stage.objective,
        metrics: this.#counts,
      })
      return [loss, generatorLoss, discriminatorLoss, maskedCounts]
    })
    this.#optimizer.update(1 / inputs.length)
    return outputs
  }

  async #readStep(
    reads: readonly Promise<ArrayLike<number>>[],
    microBatches: number,
    learningRate: number,
  ): Promise<StepNumbers> {
    const values = await Promise.all(reads)
    const sums = { loss: 0, generatorLoss: 0, discriminatorLoss: 0, masked: 0, maskedCorrect: 0 }
    for (let i = 0; i < microBatches; i++) {
      const [loss, generatorLoss, discriminatorLoss, counts] = values.slice(
        4 * i,
        4 * i + 4,
      ) as ArrayLike<number>[]
      sums.loss += (loss?.[0] as number) / microBatches
      sums.generatorLoss += (generatorLoss?.[0] as number) / microBatches
      sums.discriminatorLoss += (discriminatorLoss?.[0] as number) / microBatches
      sums.masked += counts?.[0] as number
      sums.maskedCorrect += counts?.[1] as number
    }
    return { ...sums, learningRate, gradientNorm: values.at(-1)?.[0] as number }
  }

  /** The detector's counts so far, and none from here on. */
  async takeDetectorCounts(): Promise<Int32Array> {
    const counts = (await this.#counts.data()) as Int32Array
    upload(tensorValue(this.#counts).handle, new Int32Array(detectorCounts))
    return counts
  }

  /** Both losses and the metrics over batches, without dropout, with masks that are the same every time. */
  async validate(batches: Iterable<Batch>): Promise<ValidationNumbers> {
    const { seed } = this.#settings
    const counts = unscoped(() => zeros([detectorCounts], { dtype: 'int32', device: this.device }))
    const sums = { generator: 0, masked: 0, correct: 0, discriminator: 0, tokens: 0 }
    this.model.eval()
    try {
      let index = 0
      for (const batch of batches) {
        const scope = new TensorScope()
        try {
          const [generatorLoss, discriminatorLoss, masked] = (await Promise.all(
            scope.run(() =>
              noGrad(() => {
                this.#random.update({ seed, step: index, microBatch: validationMicroBatch })
                const output = this.model.forward(batch, { objective: 'joint', metrics: counts })
                return [
                  output.generatorLoss.data(),
                  output.discriminatorLoss.data(),
                  output.maskedCounts.data(),
                ]
              }),
            ),
          )) as [ArrayLike<number>, ArrayLike<number>, ArrayLike<number>]
          sums.generator += (generatorLoss[0] as number) * (masked[0] as number)
          sums.masked += masked[0] as number
          sums.correct += masked[1] as number
          sums.discriminator += (discriminatorLoss[0] as number) * batch.ids.length
          sums.tokens += batch.ids.length
        } finally {
          scope.dispose()
        }
        index++
      }
      return {
        generatorLoss: sums.generator / Math.max(1, sums.masked),
        discriminatorLoss: sums.discriminator / Math.max(1, sums.tokens),
        maskedLmAccuracy: sums.correct / Math.max(1, sums.masked),
        tokens: sums.tokens,
        ...detectorMetrics((await counts.data()) as Int32Array),
      }
    } finally {
      counts.dispose()
      this.model.train()
    }
  }

  // ---- checkpoints

  get optimizerSteps(): number {
    return this.#optimizer.steps
  }

  /** What a checkpoint holds, to be read before the next step is queued. */
  async exportState(): Promise<CheckpointSource> {
    // The one wait: with the queue empty, reading a piece takes as long as copying it.
    const detectorCounts = (await this.#counts.data()) as Int32Array
    return exportArena(this.arena, this.#optimizer, { detector_counts: detectorCounts })
  }

  /** Takes a checkpoint back. Its stage is that of the last step done: queueing the next step enters the next stage. */
  importState(stepsDone: number, optimizerSteps: number, tensors: CheckpointTensors): void {
    const stage = stagesOf(this.#settings).findLast(({ begin }) => stepsDone > begin)
    if (stage !== undefined && stage.objective !== this.#stage.objective) this.#switchTo(stage)
    importArena(this.arena, this.#optimizer, optimizerSteps, tensors)
    upload(tensorValue(this.#counts).handle, tensors.others.detector_counts as Int32Array)
  }

  dispose(): void {
    this.#runner.dispose()
    this.#optimizer.dispose()
    this.arena.dispose()
    this.#counts.dispose()
    this.#random.dispose()
  }
}
