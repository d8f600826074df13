/** One run's model, arena and optimizer: queue a step, predict, take a checkpoint's state out and in. */
import type { ElectraPreTrainedModel } from '../electra/index.js'
import { ParameterArena } from '../nn/index.js'
import { AdamW, layerwiseDecay, type Schedule } from '../optim/index.js'
import { RandomState, TensorScope } from '../tensor/index.js'
import { bytesOf, exportArena, importArena } from '../training/arena-state.js'
import type { CheckpointSource, CheckpointTensors } from '../training/checkpoint.js'
import { scheduleOf } from '../training/schedule-of.js'
import type { FinetuneSettings } from './finetune-options.js'
import { type OutputsOptions, outputsOf } from './predictions.js'
import type { Feature, Outputs, Task } from './task.js'

export interface StepNumbers {
  /** The batch's mean loss. */
  readonly loss: number
  /** Before clipping. */
  readonly gradientNorm: number
  readonly learningRate: number
}

/** What a run's options say of its rates, by the model's size. */
export interface Rates {
  readonly learningRate: number
  readonly layerwiseDecay: number
}

export class FinetuneTrainer {
  readonly model: ElectraPreTrainedModel
  readonly arena: ParameterArena
  readonly #task: Task
  readonly #seed: number
  readonly #random: RandomState
  readonly #optimizer: AdamW
  readonly #schedule: Schedule

  /** Takes the model over: `dispose` frees it. */
  constructor(
    model: ElectraPreTrainedModel,
    task: Task,
    settings: FinetuneSettings,
    rates: Rates,
    seed: number,
    steps: number,
  ) {
    this.model = model
    this.#task = task
    this.#seed = seed
    this.#random = new RandomState(model.device, { seed })
    model.randomness.follow(this.#random)
    this.arena = new ParameterArena(model, { workingCopy: model.precision === 'bf16' })
    this.#optimizer = new AdamW(this.arena, {
      form: settings.optimizer,
      epsilon: 1e-6,
      weightDecay: settings.weightDecay,
      maxGradientNorm: settings.maxGradientNorm,
      multiplier: layerwiseDecay({ layers: model.config.numHiddenLayers, decay: rates.layerwiseDecay }),
    })
    const warmupSteps = Math.round(settings.warmupFraction * steps)
    const { learningRate } = rates
    this.#schedule = scheduleOf({ learningRate, warmupSteps, schedule: settings.schedule }, steps)
    model.train()
  }

  get optimizerSteps(): number {
    return this.#optimizer.steps
  }

  /** Queues forward, backward and update of one step (counted from 0). */
  queueStep(step: number, batch: readonly Feature[]): Promise<StepNumbers> {
    const learningRate = this.#schedule(step)
    this.#random.update({ seed: this.#seed, step })
    this.#optimizer.prepare({ learningRate })
    const scope = new TensorScope()
    try {
      const loss = scope.run(() => {
        this.arena.zeroGradients()
        const loss = this.#task.loss(this.model, batch)
        loss.backward()
        this.#optimizer.update()
        return loss
      })
      return this.#read(loss.data(), this.#optimizer.gradientNorm.data(), learningRate)
    } finally {
      scope.dispose()
    }
  }

  async #read(
    loss: Promise<ArrayLike<number>>,
    norm: Promise<ArrayLike<number>>,
    learningRate: number,
  ): Promise<StepNumbers> {
    const [[lossValue], [gradientNorm]] = (await Promise.all([loss, norm])) as [[number], [number]]
    return { loss: lossValue, gradientNorm, learningRate }
  }

  /** The outputs of features, without dropout. */
  async outputs(features: readonly Feature[], options: OutputsOptions = {}): Promise<Outputs[]> {
    this.model.eval()
    try {
      return await outputsOf(this.#task, this.model, features, options)
    } finally {
      this.model.train()
    }
  }

  /** All weights in the arena's layout. */
  async weights(): Promise<Float32Array> {
    return (await this.arena.values.data()) as Float32Array
  }

  setWeights(weights: Float32Array): void {
    this.arena.import(bytesOf(weights))
  }

  /** What a checkpoint holds; all queued work must have been waited for. */
  exportState(best: Float32Array | undefined): CheckpointSource {
    const others = best === undefined ? {} : { best: { length: best.length, pieces: () => [best] } }
    return exportArena(this.arena, this.#optimizer, others)
  }

  importState(optimizerSteps: number, tensors: CheckpointTensors): void {
    importArena(this.arena, this.#optimizer, optimizerSteps, tensors)
  }

  dispose(): void {
    this.#optimizer.dispose()
    this.arena.dispose()
    this.#random.dispose()
  }
}
