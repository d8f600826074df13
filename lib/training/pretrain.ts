/**
 * Pre-training from text to models: data, vocabulary, plan, steps, validation, checkpoints, and the two model folders at the end.
 * An async iterator of steps; the same call again goes on where the last one stopped, bit for bit.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  type BatchStream,
  createBatchStream,
  createLanguageBatchStream,
  openCorpus,
  type PreparedData,
  prepareData,
  validationBatches,
} from '../data/index.js'
import type { ElectraConfig } from '../formats/electra-config.js'
import { removeLeftovers, writeFileAtomically } from '../runtime/atomic-file.js'
import { VoltaicError } from '../runtime/errors.js'
import { type Device, resolveDevice, setThreads } from '../runtime/index.js'
import { makeFolder } from '../runtime/make-folder.js'
import { createTokenizer, loadTokenizer, type Tokenizer } from '../text/index.js'
import { firstNotFinite, layoutOf } from './arena-state.js'
import { type CheckpointFolder, checkpointFormat, openCheckpoints, requireLayout } from './checkpoint.js'
import { detectorMetrics } from './detector-metrics.js'
import { matmulChoices, resolveHardware, restoreMatmulChoices } from './hardware.js'
import { InitialModels } from './initial-models.js'
import { JointTrainer, type StepNumbers, type ValidationNumbers } from './joint-trainer.js'
import { type MetricsLog, type MetricsRow, openMetricsLog } from './metrics-log.js'
import { modelConfigs } from './model-configs.js'
import { type DecidedPrecision, type PretrainSettings, resolvePretrainOptions } from './options.js'
import { planTraining } from './plan.js'
import type { PretrainEvent, PretrainResult, PretrainRun, PretrainStep } from './pretrain-events.js'
import {
  type RunIdentity,
  type RunRecord,
  readRunRecord,
  removeRun,
  requireSameRun,
  requireWholeRun,
  runFormat,
  writeRunRecord,
} from './run-folder.js'
import { changeable, changedSettings, identityOf } from './run-identity.js'
import { sampleSentences, writeSampleText } from './sample-text.js'
import { type EventLog, openEventLog } from './tensorboard.js'
import { openLanguages, trainedTokenizer } from './vocabulary.js'

const sums = [
  'loss',
  'generatorLoss',
  'discriminatorLoss',
  'masked',
  'maskedCorrect',
  'gradientNorm',
  'steps',
] as const
type IntervalSums = Record<(typeof sums)[number], number>
const noSums = (): IntervalSums => Object.fromEntries(sums.map((name) => [name, 0])) as IntervalSums

/**
 * Pre-trains ELECTRA. Yields every step; its return value says where the models are.
 *
 * @throws ERR_CONFIG for options that do not fit, or a folder that holds another run; ERR_IO, ERR_FORMAT for files;
 * ERR_NOT_FINITE when a loss or gradient is not a number (the last checkpoint stays); ERR_ABORTED after `signal`, saved.
 */
export async function* pretrain(options: PretrainRun): AsyncGenerator<PretrainStep, PretrainResult, void> {
  const run = await PretrainingRun.open(options)
  try {
    return yield* run.steps()
  } catch (error) {
    run.fail()
    throw error
  } finally {
    await run.close()
  }
}

/** What a run is made of once its text is tokenized. */
interface RunParts {
  readonly settings: PretrainSettings
  readonly tokenizer: Tokenizer
  /** Rows of the word table. */
  readonly vocabularySize: number
  readonly data: PreparedData
  readonly initial: InitialModels | undefined
  readonly signal: AbortSignal | undefined
  readonly emit: (event: PretrainEvent) => void
}

interface QueuedStep {
  readonly step: number
  readonly epoch: number
  readonly numbers: Promise<StepNumbers>
}

class PretrainingRun {
  readonly #settings: PretrainSettings
  readonly #tokenizer: Tokenizer
  readonly #data: PreparedData
  readonly #configs: { readonly discriminator: ElectraConfig; readonly generator: ElectraConfig }
  readonly #identity: RunIdentity
  readonly #checkpoints: CheckpointFolder
  readonly #initial: InitialModels | undefined
  readonly #signal: AbortSignal | undefined
  readonly #emit: (event: PretrainEvent) => void
  // Set by begin()
  #trainer: JointTrainer | undefined
  #batches: BatchStream | undefined
  #metrics: MetricsLog | undefined
  #events: EventLog | undefined
  #hardware: { device: Device; precision: DecidedPrecision; instructionSet: string } | undefined
  #interval = noSums()
  /** Queued on the device, its numbers not read yet. */
  #queued: QueuedStep | undefined
  #step = 0
  #savedStep = -1
  #clock = { begin: 0, step: 0 }
  #lastValidation: ValidationNumbers | undefined

  private constructor(parts: RunParts) {
    const { settings, tokenizer, data, initial } = parts
    this.#settings = settings
    this.#tokenizer = tokenizer
    this.#data = data
    this.#initial = initial
    this.#signal = parts.signal
    this.#emit = parts.emit
    this.#configs = modelConfigs(settings, parts.vocabularySize, tokenizer.padTokenId)
    this.#identity = identityOf(settings, this.#configs, tokenizer, data, initial?.identity)
    this.#checkpoints = openCheckpoints(settings.output, settings.keep)
  }

  /** Everything before the models: options, folder, vocabulary, tokenized data. */
  static async open(options: PretrainRun): Promise<PretrainingRun> {
    const initial = options.from == null ? undefined : await InitialModels.open(options)
    let data: PreparedData | undefined
    try {
      const settings = resolvePretrainOptions(options, initial?.configs)
      // What needs no data to be refused is refused before any work is done.
      modelConfigs(settings, settings.vocabSize, 0)
      if (settings.device !== 'auto') resolveDevice(settings.device)
      const { signal, onEvent: emit = () => undefined } = options
      makeFolder(settings.output)
      await removeLeftovers(settings.output)
      if (settings.threads !== undefined) setThreads(settings.threads)
      const patterns = settings.sample ? [await writeSampleFile(settings.output)] : settings.corpus
      const tokenizer = await openTokenizer(settings, patterns, signal, emit)
      const vocabularySize = (await initial?.adopt(tokenizer)) ?? tokenizer.vocabularySize
      data = await prepareData({
        ...(settings.languages === undefined
          ? { corpus: patterns }
          : { languages: settings.languages, languageExponent: settings.languageExponent }),
        validation: settings.validation,
        validationFraction: settings.validationFraction,
        tokenizer,
        sequenceLength: settings.sequenceLength,
        segments: settings.segments,
        output: settings.output,
        threads: settings.threads,
        seed: settings.seed,
        signal,
        onProgress: ({ bytes, totalBytes, documents }) =>
          emit({ kind: 'tokenizing', bytes, totalBytes, documents }),
      })
      emit({ kind: 'data', statistics: data.statistics })
      return new PretrainingRun({ settings, tokenizer, vocabularySize, data, initial, signal, emit })
    } catch (error) {
      data?.close()
      initial?.close()
      throw error
    }
  }

  /** After a failure what the device holds is in doubt: `close` saves nothing of it. */
  fail(): void {
    this.#savedStep = Number.POSITIVE_INFINITY
    this.#queued = undefined
  }

  async close(): Promise<void> {
    try {
      // A consumer that left its loop early loses nothing either, and the step under way gets the rows that are due after it.
      if (this.#queued !== undefined) await this.#atBoundary(await this.#account(this.#queued))
      if (this.#trainer !== undefined && this.#step > this.#savedStep) await this.#save()
    } finally {
      this.#metrics?.close()
      this.#events?.close()
      this.#trainer?.dispose()
      this.#data.close()
      this.#initial?.close()
    }
  }

  async *steps(): AsyncGenerator<PretrainStep, PretrainResult, void> {
    const { steps, output, fresh } = this.#settings
    if (fresh) removeRun(output, ['discriminator', 'generator'])
    const record = readRunRecord(output)
    if (record !== undefined) requireSameRun(output, record, this.#identity)
    if (record?.completed === steps && existsSync(join(output, 'discriminator', 'model.safetensors'))) {
      this.#emit({ kind: 'complete', step: steps })
      return this.#result()
    }
    await this.#begin(record)
    for (let step = this.#step; step < steps; step++) {
      await this.#throwIfAborted()
      const batches = this.#nextBatches()
      const numbers = this.#required(this.#trainer).queueStep(step, batches)
      // The device works on this step while the numbers of the one before are read.
      const previous = this.#queued
      this.#queued = { step, epoch: batches[0]?.epoch ?? 0, numbers }
      // Its failure is met when its turn comes; when the step before fails, it never does.
      numbers.catch(() => undefined)
      if (previous !== undefined) yield await this.#account(previous)
      if (this.#isBoundary(step + 1)) {
        const done = await this.#account(this.#queued)
        this.#queued = undefined
        yield await this.#atBoundary(done)
      }
    }
    return this.#finish()
  }

  #required<T>(value: T | undefined): T {
    if (value === undefined)
      throw new VoltaicError('ERR_DISPOSED', 'the training run has not begun or is closed')
    return value
  }

  #nextBatches() {
    const batches = this.#required(this.#batches)
    return Array.from({ length: this.#settings.accumulate }, () => batches.next())
  }

  /** Steps after which the queue is drained: a row, a validation, a checkpoint, the end, or a request to stop. */
  #isBoundary(done: number): boolean {
    const { steps, logEvery, validateEvery, saveEvery } = this.#settings
    return (
      done === steps ||
      done % logEvery === 0 ||
      done % validateEvery === 0 ||
      done % saveEvery === 0 ||
      this.#signal?.aborted === true
    )
  }

  /** When the queue is drained, which it is after the step in which the request came. */
  async #throwIfAborted(): Promise<void> {
    if (!this.#signal?.aborted || this.#queued !== undefined) return
    if (this.#step > this.#savedStep) await this.#save()
    throw new VoltaicError(
      'ERR_ABORTED',
      `interrupted after step ${this.#step}, which is saved in ${this.#settings.output}; run the same again to go on`,
      { cause: this.#signal.reason },
    )
  }

  // ---- before the first step

  async #begin(record: RunRecord | undefined): Promise<void> {
    const settings = this.#settings
    const restored = this.#checkpoints.load()
    requireWholeRun(settings.output, record, restored?.state)
    const notes: string[] = []
    this.#hardware = resolveHardware(settings, restored?.state, notes)
    const { device, precision, instructionSet } = this.#hardware
    await restoreMatmulChoices(device, settings.tune, restored?.state, notes)
    const trainer = new JointTrainer({
      settings,
      ...this.#configs,
      special: this.#tokenizer,
      device,
      precision,
      onNote: (text) => this.#emit({ kind: 'note', text }),
    })
    this.#trainer = trainer
    const state = restored?.state
    if (restored === undefined) notes.push(...(await this.#loadInitial(trainer)))
    else {
      requireLayout(layoutOf(trainer.arena), restored.state, settings.output)
      trainer.importState(restored.state.step, restored.state.optimizerSteps, restored.tensors)
      this.#step = restored.state.step
      this.#savedStep = restored.state.step
      this.#interval = { ...noSums(), ...restored.state.interval }
      if (this.#step > settings.steps)
        throw new VoltaicError(
          'ERR_CONFIG',
          `${settings.output} holds a run of ${this.#step} steps already, more than the ${settings.steps} asked for; ` +
            'ask for more steps, or use another folder',
        )
      notes.push(...changedSettings(record, settings))
    }
    const { batchSize, accumulate, seed, output } = settings
    const { train, languages } = this.#data
    const stream = { batchSize: batchSize / accumulate, seed, state: state?.data }
    this.#batches =
      languages.length > 0
        ? createLanguageBatchStream({ languages, ...stream })
        : createBatchStream({ segments: train, ...stream })
    this.#metrics = openMetricsLog(
      join(output, 'metrics.jsonl'),
      state && { resume: { position: state.metricsPosition } },
    )
    this.#events = openEventLog(output, state && { resume: state.events })
    await writeRunRecord(output, {
      format: runFormat,
      identity: this.#identity,
      settings: changeable(settings),
      completed: null,
    })
    this.#emit({
      kind: 'plan',
      device: device.name,
      precision,
      instructionSet,
      plan: await planTraining({
        settings,
        ...this.#configs,
        parameters: trainer.countParameters(),
        device,
        precision,
        stepsLeft: settings.steps - this.#step,
      }),
    })
    if (restored !== undefined) this.#emit({ kind: 'resumed', step: this.#step, notes })
    else for (const text of notes) this.#emit({ kind: 'note', text })
    this.#clock = { begin: performance.now(), step: this.#step }
  }

  /** The weights of the models that the run goes on from; what is worth saying of them. */
  async #loadInitial(trainer: JointTrainer): Promise<string[]> {
    const initial = this.#initial
    if (initial === undefined) return []
    const models = await initial.prepare(this.#settings)
    if (models.transfer !== undefined) this.#emit({ kind: 'transfer', ...models.transfer })
    const reports = trainer.loadInitial(models)
    const said = (names: readonly string[]): string =>
      `${names.slice(0, 3).join(', ')}${names.length > 3 ? ` and ${names.length - 3} more` : ''}`
    return [
      ...initial.notes(),
      ...reports.flatMap(({ missing, unexpected }) => [
        ...(missing.length > 0 ? [`not in the files, so new: ${said(missing)}`] : []),
        ...(unexpected.length > 0 ? [`in the files, but not in the models: ${said(unexpected)}`] : []),
      ]),
    ]
  }

  // ---- after each step

  async #account(done: QueuedStep): Promise<PretrainStep> {
    const numbers = await done.numbers
    await this.#requireFinite(done.step + 1, numbers)
    this.#step = done.step + 1
    for (const name of sums) this.#interval[name] += name === 'steps' ? 1 : numbers[name]
    const perStep = this.#settings.batchSize * this.#settings.sequenceLength
    const seconds = (performance.now() - this.#clock.begin) / 1000
    return {
      ...numbers,
      step: this.#step,
      steps: this.#settings.steps,
      tokens: this.#step * perStep,
      tokensPerSecond: ((this.#step - this.#clock.step) * perStep) / seconds,
      epoch: done.epoch,
    }
  }

  async #requireFinite(step: number, numbers: StepNumbers): Promise<void> {
    const { generatorLoss, discriminatorLoss, gradientNorm } = numbers
    const named = {
      'the generator loss': generatorLoss,
      'the discriminator loss': discriminatorLoss,
      'the gradient norm': gradientNorm,
    }
    const broken = Object.entries(named).filter(([, value]) => !Number.isFinite(value))
    if (broken.length === 0) return
    const tensor = await firstNotFinite(this.#required(this.#trainer).arena)
    const last = this.#checkpoints.steps().at(-1)
    throw new VoltaicError(
      'ERR_NOT_FINITE',
      `step ${step}: ${broken.map(([name, value]) => `${name} is ${value}`).join(', ')} ` +
        `(learning rate ${numbers.learningRate.toPrecision(3)}). ` +
        `${tensor === undefined ? '' : `The first tensor that is not finite is ${tensor}. `}` +
        `${last === undefined ? 'There is no checkpoint yet' : `The checkpoint of step ${last} is kept`}; ` +
        'try a lower --learning-rate, a longer warmup, or --precision fp32',
    )
  }

  /** The row, validation and checkpoint that are due after a step. */
  async #atBoundary(done: PretrainStep): Promise<PretrainStep> {
    const { step } = done
    const { steps, logEvery, validateEvery, saveEvery } = this.#settings
    let validation: ValidationNumbers | undefined
    if (step % logEvery === 0 || step === steps) await this.#logInterval(done)
    if (step % validateEvery === 0 || step === steps) validation = await this.#validate(step)
    if (step % saveEvery === 0 || step === steps) await this.#save()
    return validation === undefined ? done : { ...done, validation }
  }

  async #logInterval(done: PretrainStep): Promise<void> {
    const { steps, masked, maskedCorrect, ...totals } = this.#interval
    if (steps === 0) return
    const detector = detectorMetrics(await this.#required(this.#trainer).takeDetectorCounts())
    this.#interval = noSums()
    this.#write({
      step: done.step,
      loss: totals.loss / steps,
      generator_loss: totals.generatorLoss / steps,
      discriminator_loss: totals.discriminatorLoss / steps,
      masked_lm_accuracy: maskedCorrect / Math.max(1, masked),
      ...detector,
      learning_rate: done.learningRate,
      gradient_norm: totals.gradientNorm / steps,
      tokens: done.tokens,
      tokens_per_second: Math.round(done.tokensPerSecond),
    })
  }

  async #validate(step: number): Promise<ValidationNumbers | undefined> {
    const { validation: segments } = this.#data
    if (segments === undefined) return undefined
    const {
      batchSize,
      accumulate,
      validationBatches: most,
      generatorWeight,
      discriminatorWeight,
    } = this.#settings
    const begin = performance.now()
    const batches = limit(validationBatches({ segments, batchSize: batchSize / accumulate }), most)
    const numbers = await this.#required(this.#trainer).validate(batches)
    this.#clock.begin += performance.now() - begin
    const { generatorLoss, discriminatorLoss, maskedLmAccuracy, tokens, ...detector } = numbers
    this.#write({
      step,
      split: 'validation',
      loss: generatorWeight * generatorLoss + discriminatorWeight * discriminatorLoss,
      generator_loss: generatorLoss,
      discriminator_loss: discriminatorLoss,
      masked_lm_accuracy: maskedLmAccuracy,
      ...detector,
      tokens,
    })
    this.#lastValidation = numbers
    return numbers
  }

  #write(row: MetricsRow): void {
    this.#required(this.#metrics).append(row)
    const prefix = row.split === 'validation' ? 'validation/' : 'train/'
    const scalars: Record<string, number> = {}
    for (const [name, value] of Object.entries(row))
      if (typeof value === 'number' && name !== 'step' && Number.isFinite(value))
        scalars[prefix + name] = value
    this.#required(this.#events).scalars(row.step, scalars)
    this.#emit({ kind: 'row', row })
  }

  async #save(): Promise<void> {
    const begin = performance.now()
    const trainer = this.#required(this.#trainer)
    const metrics = this.#required(this.#metrics)
    const events = this.#required(this.#events)
    const { device, precision, instructionSet } = this.#required(this.#hardware)
    const [tensors, matmul] = await Promise.all([
      trainer.exportState(),
      matmulChoices(device),
      metrics.sync(),
      events.sync(),
    ])
    await this.#checkpoints.save(
      {
        format: checkpointFormat,
        step: this.#step,
        optimizerSteps: trainer.optimizerSteps,
        data: this.#required(this.#batches).state,
        seed: this.#settings.seed,
        device: device.name,
        precision,
        instructionSet,
        ...(matmul !== undefined && { matmul }),
        interval: this.#interval,
        metricsPosition: metrics.position,
        events: { fileName: events.fileName, position: events.position },
        layout: layoutOf(trainer.arena),
      },
      tensors,
    )
    this.#savedStep = this.#step
    this.#emit({ kind: 'saved', step: this.#step })
    this.#clock.begin += performance.now() - begin
  }

  // ---- the end

  async #finish(): Promise<PretrainResult> {
    const { output, steps } = this.#settings
    if (this.#step > this.#savedStep) await this.#save()
    await this.#export()
    await writeRunRecord(output, {
      format: runFormat,
      identity: this.#identity,
      settings: changeable(this.#settings),
      completed: steps,
    })
    return this.#result()
  }

  async #export(): Promise<void> {
    const { model } = this.#required(this.#trainer)
    for (const [name, part] of [
      ['generator', model.generator],
      ['discriminator', model.discriminator],
    ] as const) {
      const folder = join(this.#settings.output, name)
      await this.#tokenizer.save(folder)
      await part.savePretrained(folder)
    }
  }

  #result(): PretrainResult {
    const { output, steps } = this.#settings
    return {
      step: steps,
      discriminator: join(output, 'discriminator'),
      generator: join(output, 'generator'),
      validation: this.#lastValidation ?? readLastValidation(join(output, 'metrics.jsonl')),
    }
  }
}

/** The sample text as a file of the run, written when it is not there or differs. */
async function writeSampleFile(output: string): Promise<string> {
  const path = join(output, 'sample.txt')
  const text = writeSampleText(sampleSentences)
  if (!existsSync(path) || readFileSync(path, 'utf8') !== text) await writeFileAtomically(path, text)
  return path
}

async function openTokenizer(
  settings: PretrainSettings,
  patterns: readonly string[],
  signal: AbortSignal | undefined,
  emit: (event: PretrainEvent) => void,
): Promise<Tokenizer> {
  const { vocab, cased, vocabSize, output, initial, positions } = settings
  if (vocab !== undefined) {
    const tokenizer = await loadTokenizer(vocab, cased ? { cased } : {})
    const longer =
      positions !== undefined && tokenizer.modelMaxLength === initial?.discriminator.maxPositionEmbeddings
    return longer ? createTokenizer({ ...tokenizer.specification, modelMaxLength: positions }) : tokenizer
  }
  const text =
    settings.languages === undefined
      ? await openCorpus(patterns, signal && { signal })
      : await openLanguages(settings.languages, settings.languageExponent, signal)
  return trainedTokenizer(text, output, { vocabSize, cased, signal }, () =>
    emit({ kind: 'vocabulary', size: vocabSize }),
  )
}

function* limit<T>(items: Iterable<T>, most: number): Generator<T> {
  let count = 0
  for (const item of items) {
    if (count++ >= most) return
    yield item
  }
}

/** The last validation row of a finished run. */
function readLastValidation(path: string): ValidationNumbers | undefined {
  if (!existsSync(path)) return undefined
  const rows = readFileSync(path, 'utf8').trimEnd().split('\n')
  const line = rows.findLast((row) => row.includes('"split":"validation"'))
  if (line === undefined) return undefined
  const { generator_loss, discriminator_loss, masked_lm_accuracy, tokens, ...detector } = JSON.parse(line)
  return {
    ...detector,
    generatorLoss: generator_loss,
    discriminatorLoss: discriminator_loss,
    maskedLmAccuracy: masked_lm_accuracy,
    tokens,
  }
}
