/** One seed's run: steps, evaluations, checkpoints, and the best model at the end. An interrupted one goes on bit for bit. */
import { join } from 'node:path'
import type { ElectraConfig } from '../formats/electra-config.js'
import { removeLeftovers } from '../runtime/atomic-file.js'
import { VoltaicError } from '../runtime/errors.js'
import type { Device } from '../runtime/index.js'
import { makeFolder } from '../runtime/make-folder.js'
import { firstNotFinite, layoutOf } from '../training/arena-state.js'
import {
  type CheckpointFolder,
  checkpointFormat,
  openCheckpoints,
  requireLayout,
  type TrainingState,
} from '../training/checkpoint.js'
import { matmulChoices, resolveHardware, restoreMatmulChoices } from '../training/hardware.js'
import { type MetricsLog, type MetricsRow, openMetricsLog } from '../training/metrics-log.js'
import type { DecidedPrecision } from '../training/options.js'
import {
  type RunIdentity,
  type RunRecord,
  readRunRecord,
  requireSameRun,
  requireWholeRun,
  runFormat,
  writeRunRecord,
} from '../training/run-folder.js'
import { epochBatches } from './finetune-batches.js'
import type { FinetuneData, Part } from './finetune-data.js'
import type { FinetuneEvent, FinetuneResult, FinetuneStep, RunMetrics } from './finetune-events.js'
import { hasModel, readResult, writeFinishedRun } from './finetune-files.js'
import { buildModel, type OpenedOrigin } from './finetune-model.js'
import type { FinetuneSettings } from './finetune-options.js'
import { FinetuneTrainer, type Rates, type StepNumbers } from './finetune-trainer.js'
import { isBetter, predictionLines } from './predictions.js'
import type { Feature, Outputs } from './task.js'

/** What is the same for every seed of a run. */
export interface RunContext {
  readonly settings: FinetuneSettings
  readonly origin: OpenedOrigin
  readonly data: FinetuneData
  readonly rates: Rates
  readonly maxLength: number
  readonly identity: RunIdentity
  readonly signal: AbortSignal | undefined
  readonly emit: (event: FinetuneEvent) => void
}

interface Best {
  readonly step: number
  /** null: not a number. */
  readonly value: number | null
  /** The mean loss of the steps before the evaluation. */
  readonly loss: number
}

/** The state of a fine-tuning run. Its tensors hold `best`, the best weights, where those are not the current ones. */
interface FinetuneState extends TrainingState {
  readonly tokens: number
  readonly sequences: number
  /** The step of the last evaluation. */
  readonly evaluated: number
  readonly best: Best | null
  /** Evaluations since the best. */
  readonly waited: number
}

/** Sums since the last row of metrics, and since the last evaluation. */
const sums = ['loss', 'gradientNorm', 'steps', 'evaluationLoss', 'evaluationSteps'] as const
type Sums = Record<(typeof sums)[number], number>
const noSums = (): Sums => Object.fromEntries(sums.map((name) => [name, 0])) as Sums

interface QueuedStep {
  readonly step: number
  readonly tokens: number
  readonly sequences: number
  readonly numbers: Promise<StepNumbers>
}

const keptCheckpoints = 2

export class SeedRun {
  readonly #context: RunContext
  readonly #output: string
  readonly #seed: number
  readonly #lengths: readonly number[]
  readonly #stepsPerEpoch: number
  readonly #steps: number
  readonly #evaluateEvery: number
  readonly #checkpoints: CheckpointFolder<FinetuneState>
  // Set by #begin
  #trainer: FinetuneTrainer | undefined
  #metrics: MetricsLog | undefined
  #hardware: { device: Device; precision: DecidedPrecision; instructionSet: string } | undefined
  // Where the run stands
  #interval = noSums()
  #step = 0
  #tokens = 0
  #sequences = 0
  #evaluated = 0
  #best: Best | undefined
  #bestWeights: Float32Array | undefined
  #waited = 0
  #savedStep = -1
  #queued: QueuedStep | undefined
  #epoch: { readonly number: number; readonly batches: readonly (readonly number[])[] } | undefined
  #clock = { begin: 0, tokens: 0, sequences: 0 }

  constructor(context: RunContext, output: string, seed: number) {
    const { settings, data } = context
    this.#context = context
    this.#output = output
    this.#seed = seed
    this.#lengths = data.train.features.map(({ inputIds }) => inputIds.length)
    this.#stepsPerEpoch = Math.ceil(this.#lengths.length / settings.batchSize)
    this.#steps = settings.steps ?? Math.max(1, Math.round(settings.epochs * this.#stepsPerEpoch))
    this.#evaluateEvery = settings.evaluateEvery ?? this.#stepsPerEpoch
    this.#checkpoints = openCheckpoints(output, keptCheckpoints)
  }

  async *run(): AsyncGenerator<FinetuneStep, FinetuneResult, void> {
    const record = readRunRecord(this.#output)
    const identity = { ...this.#context.identity, seed: this.#seed }
    if (record !== undefined) requireSameRun(this.#output, record, identity)
    if (record !== undefined && record.completed !== null && hasModel(this.#output))
      return readResult(this.#output)
    try {
      await this.#begin(record, identity)
      yield* this.#train()
      return await this.#finish(identity)
    } catch (error) {
      // After a failure what the device holds is in doubt: `close` saves nothing of it.
      if (!(error instanceof VoltaicError && error.code === 'ERR_ABORTED')) {
        this.#savedStep = Number.POSITIVE_INFINITY
        this.#queued = undefined
      }
      throw error
    } finally {
      await this.#close()
    }
  }

  async #close(): Promise<void> {
    try {
      if (this.#queued !== undefined) await this.#atBoundary(await this.#account(this.#queued))
      if (this.#metrics !== undefined && this.#step > this.#savedStep) await this.#save()
    } finally {
      this.#metrics?.close()
      this.#trainer?.dispose()
    }
  }

  #required<T>(value: T | undefined): T {
    if (value === undefined) throw new VoltaicError('ERR_DISPOSED', 'the run has not begun or is closed')
    return value
  }

  // ---- before the first step

  async #begin(record: RunRecord | undefined, identity: RunIdentity): Promise<void> {
    const { settings, origin, data, rates, maxLength, emit } = this.#context
    makeFolder(this.#output)
    await removeLeftovers(this.#output)
    const restored = this.#checkpoints.load()
    requireWholeRun(this.#output, record, restored?.state)
    const notes: string[] = []
    this.#hardware = resolveHardware({ ...settings, output: this.#output }, restored?.state, notes)
    const { device, precision, instructionSet } = this.#hardware
    await restoreMatmulChoices(device, false, restored?.state, notes)
    const model = await buildModel(origin, data.task, {
      device,
      precision,
      seed: this.#seed,
      dropout: settings.dropout,
    })
    this.#trainer = new FinetuneTrainer(model, data.task, settings, rates, this.#seed, this.#steps)
    if (restored !== undefined) this.#restore(restored)
    const resume = restored && { position: restored.state.metricsPosition }
    await writeRunRecord(this.#output, { format: runFormat, identity, settings: {}, completed: null })
    this.#metrics = openMetricsLog(join(this.#output, 'metrics.jsonl'), resume && { resume })
    emit({
      kind: 'plan',
      seed: this.#seed,
      device: device.name,
      precision,
      instructionSet,
      parameters: model.parameters().reduce((sum, { size }) => sum + size, 0),
      steps: this.#steps,
      epochs: this.#steps / this.#stepsPerEpoch,
      ...rates,
      maxLength,
      sequences: this.#lengths.length,
      tokens: this.#lengths.reduce((sum, length) => sum + length, 0),
      validationExamples: data.validation.examples.length,
    })
    if (restored !== undefined) emit({ kind: 'resumed', seed: this.#seed, step: this.#step, notes })
    else for (const text of notes) emit({ kind: 'note', text })
    this.#clock = { begin: performance.now(), tokens: this.#tokens, sequences: this.#sequences }
  }

  #restore({ state, tensors }: NonNullable<ReturnType<CheckpointFolder<FinetuneState>['load']>>): void {
    const trainer = this.#required(this.#trainer)
    requireLayout(layoutOf(trainer.arena), state, this.#output)
    trainer.importState(state.optimizerSteps, tensors)
    this.#step = state.step
    this.#savedStep = state.step
    this.#tokens = state.tokens
    this.#sequences = state.sequences
    this.#evaluated = state.evaluated
    this.#best = state.best ?? undefined
    this.#bestWeights =
      this.#best === undefined
        ? undefined
        : ((tensors.others.best as Float32Array | undefined) ?? tensors.parameters)
    this.#waited = state.waited
    this.#interval = { ...noSums(), ...state.interval }
  }

  // ---- steps

  /** The features of a step (counted from 0): a pure function of seed and step. */
  #batchOf(step: number): readonly Feature[] {
    const number = Math.floor(step / this.#stepsPerEpoch)
    if (this.#epoch?.number !== number) {
      const { batchSize } = this.#context.settings
      this.#epoch = { number, batches: epochBatches(this.#lengths, batchSize, this.#seed, number) }
    }
    const batch = this.#epoch.batches[step % this.#stepsPerEpoch] as readonly number[]
    return batch.map((index) => this.#context.data.train.features[index] as Feature)
  }

  #isDue(step: number, every: number): boolean {
    return step === this.#steps || step % every === 0
  }

  get #ended(): boolean {
    return this.#waited >= (this.#context.settings.patience ?? Number.POSITIVE_INFINITY)
  }

  async *#train(): AsyncGenerator<FinetuneStep, void, void> {
    const { settings, signal } = this.#context
    const { logEvery, saveEvery } = settings
    // Interrupted between a step and its evaluation.
    if (this.#step > this.#evaluated && this.#isDue(this.#step, this.#evaluateEvery)) await this.#evaluate()
    for (let step = this.#step; step < this.#steps && !this.#ended; step++) {
      this.#throwIfAborted()
      const batch = this.#batchOf(step)
      const numbers = this.#required(this.#trainer).queueStep(step, batch)
      // The device works on this step while the numbers of the one before are read.
      const previous = this.#queued
      const tokens = batch.reduce((sum, { inputIds }) => sum + inputIds.length, 0)
      this.#queued = { step, tokens, sequences: batch.length, numbers }
      // Its failure is met when its turn comes; when the step before fails, it never does.
      numbers.catch(() => undefined)
      if (previous !== undefined) yield await this.#account(previous)
      const isBoundary = [logEvery, saveEvery, this.#evaluateEvery].some((every) =>
        this.#isDue(step + 1, every),
      )
      if (isBoundary || signal?.aborted) {
        const done = await this.#account(this.#queued)
        this.#queued = undefined
        yield await this.#atBoundary(done)
      }
    }
    this.#throwIfAborted()
  }

  /** The queue is drained after the step in which the request came; `#close` saves. */
  #throwIfAborted(): void {
    if (!this.#context.signal?.aborted || this.#queued !== undefined) return
    throw this.#interrupted()
  }

  #interrupted(): VoltaicError {
    return new VoltaicError(
      'ERR_ABORTED',
      `interrupted after step ${this.#step}, which is saved in ${this.#output}; run the same again to go on`,
      { cause: this.#context.signal?.reason },
    )
  }

  async #account(done: QueuedStep): Promise<FinetuneStep> {
    const numbers = await done.numbers
    await this.#requireFinite(done.step + 1, numbers)
    this.#step = done.step + 1
    this.#tokens += done.tokens
    this.#sequences += done.sequences
    this.#interval.loss += numbers.loss
    this.#interval.gradientNorm += numbers.gradientNorm
    this.#interval.steps += 1
    this.#interval.evaluationLoss += numbers.loss
    this.#interval.evaluationSteps += 1
    const seconds = (performance.now() - this.#clock.begin) / 1000
    return {
      ...numbers,
      step: this.#step,
      steps: this.#steps,
      epoch: this.#step / this.#stepsPerEpoch,
      seed: this.#seed,
      tokens: this.#tokens,
      sequences: this.#sequences,
      tokensPerSecond: (this.#tokens - this.#clock.tokens) / seconds,
      sequencesPerSecond: (this.#sequences - this.#clock.sequences) / seconds,
    }
  }

  async #requireFinite(step: number, { loss, gradientNorm, learningRate }: StepNumbers): Promise<void> {
    if (Number.isFinite(loss) && Number.isFinite(gradientNorm)) return
    const tensor = await firstNotFinite(this.#required(this.#trainer).arena)
    const last = this.#checkpoints.steps().at(-1)
    throw new VoltaicError(
      'ERR_NOT_FINITE',
      `step ${step}: the loss is ${loss}, the gradient norm ${gradientNorm} (learning rate ${learningRate.toPrecision(3)}). ` +
        `${tensor === undefined ? '' : `The first tensor that is not finite is ${tensor}. `}` +
        `${last === undefined ? 'There is no checkpoint yet' : `The checkpoint of step ${last} is kept`}; ` +
        'try a lower --learning-rate, a longer warmup, or --precision fp32',
    )
  }

  /** The row, evaluation and checkpoint that are due after a step. */
  async #atBoundary(done: FinetuneStep): Promise<FinetuneStep> {
    const { logEvery, saveEvery } = this.#context.settings
    if (this.#isDue(done.step, logEvery)) this.#logInterval(done)
    const isEvaluated = this.#isDue(done.step, this.#evaluateEvery)
    const validation = isEvaluated ? await this.#evaluate() : undefined
    if (isEvaluated || this.#isDue(done.step, saveEvery)) await this.#save()
    return validation === undefined ? done : { ...done, validation }
  }

  #write(row: MetricsRow): void {
    this.#required(this.#metrics).append(row)
    this.#context.emit({ kind: 'row', seed: this.#seed, row })
  }

  #logInterval(done: FinetuneStep): void {
    const { loss, gradientNorm, steps } = this.#interval
    this.#interval = { ...this.#interval, loss: 0, gradientNorm: 0, steps: 0 }
    this.#write({
      step: done.step,
      epoch: done.epoch,
      loss: loss / steps,
      gradient_norm: gradientNorm / steps,
      learning_rate: done.learningRate,
      tokens: done.tokens,
      tokens_per_second: Math.round(done.tokensPerSecond),
      sequences_per_second: Math.round(done.sequencesPerSecond),
    })
  }

  /** Outputs of features; its time is not training's. */
  async #outputs({ features }: Part): Promise<Outputs[]> {
    const begin = performance.now()
    try {
      return await this.#required(this.#trainer).outputs(features, { signal: this.#context.signal })
    } catch (error) {
      throw error instanceof VoltaicError && error.code === 'ERR_ABORTED' ? this.#interrupted() : error
    } finally {
      this.#clock.begin += performance.now() - begin
    }
  }

  async #evaluate(): Promise<Record<string, number>> {
    const { task, validation } = this.#context.data
    const { examples, features } = validation
    const outputs = await this.#outputs(validation)
    const metrics = task.metrics(examples, task.decode(examples, features, outputs))
    const value = metrics[task.metric] ?? Number.NaN
    const loss = this.#interval.evaluationLoss / this.#interval.evaluationSteps
    this.#interval = { ...this.#interval, evaluationLoss: 0, evaluationSteps: 0 }
    this.#evaluated = this.#step
    this.#waited += 1
    if (this.#best === undefined || isBetter(value, this.#best.value ?? Number.NaN)) {
      this.#best = { step: this.#step, value: Number.isNaN(value) ? null : value, loss }
      this.#bestWeights = await this.#required(this.#trainer).weights()
      this.#waited = 0
    }
    this.#write({
      step: this.#step,
      split: 'validation',
      epoch: this.#step / this.#stepsPerEpoch,
      ...metrics,
    })
    return metrics
  }

  async #save(): Promise<void> {
    const begin = performance.now()
    const trainer = this.#required(this.#trainer)
    const metrics = this.#required(this.#metrics)
    const { device, precision, instructionSet } = this.#required(this.#hardware)
    const [matmul] = await Promise.all([matmulChoices(device), metrics.sync()])
    const isBest = this.#best?.step === this.#step
    await this.#checkpoints.save(
      {
        format: checkpointFormat,
        step: this.#step,
        optimizerSteps: trainer.optimizerSteps,
        seed: this.#seed,
        device: device.name,
        precision,
        instructionSet,
        ...(matmul !== undefined && { matmul }),
        tokens: this.#tokens,
        sequences: this.#sequences,
        evaluated: this.#evaluated,
        best: this.#best ?? null,
        waited: this.#waited,
        interval: this.#interval,
        metricsPosition: metrics.position,
        layout: layoutOf(trainer.arena),
      },
      trainer.exportState(isBest ? undefined : this.#bestWeights),
    )
    this.#savedStep = this.#step
    this.#context.emit({ kind: 'saved', seed: this.#seed, step: this.#step })
    this.#clock.begin += performance.now() - begin
  }

  // ---- the end

  async #finish(identity: RunIdentity): Promise<FinetuneResult> {
    if (this.#step > this.#savedStep) await this.#save()
    const trainer = this.#required(this.#trainer)
    const best = this.#required(this.#best)
    const { data, settings, origin, emit } = this.#context
    trainer.setWeights(this.#required(this.#bestWeights))
    const { examples, features } = data.validation
    const outputs = await this.#outputs(data.validation)
    const config = this.#finalConfig(outputs)
    const task = data.task.calibrate === undefined ? data.task : settings.kind.restore(config)
    const predictions = task.decode(examples, features, outputs)
    const predict = async (part: Part): Promise<readonly unknown[]> =>
      task.decode(part.examples, part.features, await this.#outputs(part))
    const learned = await predict(data.trainSample)
    const tested = data.test && (await predict(data.test))
    const metrics: RunMetrics = {
      task: settings.taskName,
      metric: task.metric,
      best: { epoch: best.step / this.#stepsPerEpoch, step: best.step },
      validation: task.metrics(examples, predictions),
      train: { loss: best.loss, ...task.metrics(data.trainSample.examples, learned) },
      ...(data.test && tested && { test: task.metrics(data.test.examples, tested) }),
    }
    const report = task.report(examples, predictions)
    await writeFinishedRun(this.#output, {
      model: trainer.model,
      config,
      tokenizer: origin.tokenizer,
      predictions: {
        validation: predictionLines(task, examples, predictions),
        test: data.test && tested && predictionLines(task, data.test.examples, tested),
      },
      report,
      metrics,
    })
    await writeRunRecord(this.#output, {
      format: runFormat,
      identity,
      settings: {},
      completed: this.#step,
    })
    // A finished run is never gone on with.
    this.#checkpoints.remove()
    emit({ kind: 'finished', seed: this.#seed, metrics })
    return { ...metrics, output: this.#output, report }
  }

  /** The model's configuration with the task's name, and what the task calibrates on the validation set. */
  #finalConfig(outputs: readonly Outputs[]): ElectraConfig {
    const { data, settings } = this.#context
    const { config, architecture } = this.#required(this.#trainer).model
    const { examples, features } = data.validation
    const { extra, ...added } = data.task.calibrate?.(examples, features, outputs) ?? {}
    return {
      ...config,
      ...added,
      architectures: [architecture],
      extra: { ...config.extra, ...extra, finetuning_task: settings.taskName },
    }
  }
}
