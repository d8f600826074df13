/**
 * Fine-tuning: a model and a task's files to a model that does the task, with its metrics. An async iterator of steps; the same call
 * again goes on where the last one stopped, bit for bit. Several seeds are runs of their own in folders of their own.
 */
import { existsSync } from 'node:fs'
import { hashPlainData } from '../data/hash.js'
import type { ElectraConfig } from '../formats/electra-config.js'
import { resolveDevice, setThreads } from '../runtime/index.js'
import { makeFolder } from '../runtime/make-folder.js'
import { refuse } from '../training/option-checks.js'
import {
  type RunIdentity,
  readRunRecord,
  requireSameRun,
  runFormat,
  writeRunRecord,
} from '../training/run-folder.js'
import {
  type FinetuneFiles,
  labelNamesOfTask,
  makeFeatures,
  type ReadFile,
  readFinetuneFiles,
} from './finetune-data.js'
import type {
  FileReport,
  FinetuneResult,
  FinetuneRun,
  FinetuneStep,
  Metrics,
  SeedsMetrics,
} from './finetune-events.js'
import {
  hasModel,
  readResult,
  removeFinetuning,
  requireOwnFolder,
  seedFolder,
  writeBestOfSeeds,
} from './finetune-files.js'
import { type OpenedOrigin, openOrigin } from './finetune-model.js'
import { defaultRates, type FinetuneSettings, resolveFinetuneOptions } from './finetune-options.js'
import { type RunContext, SeedRun } from './finetune-run.js'
import type { Rates } from './finetune-trainer.js'
import { isBetter } from './predictions.js'

/**
 * Fine-tunes a model. Yields every step; its return value says what came of it and where the model is.
 *
 * @throws ERR_CONFIG for options that do not fit, or a folder that holds something else; ERR_IO, ERR_FORMAT for files (the task's with
 * file and line); ERR_NOT_FINITE when a loss or gradient is not a number (the last checkpoint stays); ERR_ABORTED after `signal`, saved
 */
export async function* finetune(options: FinetuneRun): AsyncGenerator<FinetuneStep, FinetuneResult, void> {
  const settings = resolveFinetuneOptions(options)
  const { output, seed, seeds } = settings
  const emit = options.onEvent ?? (() => undefined)
  if (settings.device !== 'auto') resolveDevice(settings.device)
  if (settings.threads !== undefined) setThreads(settings.threads)
  const origin = await openOrigin(settings.origin)
  requireOwnFolder(output, origin.folder)
  const maxLength = sequenceLength(settings, origin.config)
  const { files, task } = await readFinetuneFiles(settings)
  emit({
    kind: 'data',
    task: task.name,
    metric: task.metric,
    labels: labelNamesOfTask(task),
    train: reportOf(files.train),
    validation: files.validation && reportOf(files.validation),
    test: files.test && reportOf(files.test),
  })
  const rates = ratesOf(settings, origin.config)
  const identity = identityOf(settings, { origin, files, rates, maxLength })
  if (settings.fresh) removeFinetuning(output)
  const isComplete = requireSame(output, identity, seed, seeds)
  if (isComplete) {
    emit({ kind: 'complete' })
    return readResult(output)
  }
  const data = makeFeatures(settings, files, task, origin.tokenizer, maxLength)
  const context: RunContext = {
    settings,
    origin,
    data,
    rates,
    maxLength,
    identity,
    signal: options.signal,
    emit,
  }
  if (seeds === 1) return yield* new SeedRun(context, output, seed).run()
  return yield* runSeeds(context)
}

const reportOf = ({ file, examples, skipped }: ReadFile): FileReport => ({
  file,
  examples: examples.length,
  skipped,
})

function sequenceLength(
  { maxLength, kind }: FinetuneSettings,
  { maxPositionEmbeddings }: ElectraConfig,
): number {
  if (maxLength !== undefined && maxLength > maxPositionEmbeddings)
    refuse('maxLength', maxLength, `at most the model's ${maxPositionEmbeddings} positions`)
  return maxLength ?? Math.min(kind.defaults.maxLength, maxPositionEmbeddings)
}

function ratesOf(settings: FinetuneSettings, config: ElectraConfig): Rates {
  const bySize = defaultRates(config)
  return {
    learningRate: settings.learningRate ?? bySize.learningRate,
    layerwiseDecay: settings.layerwiseDecay ?? bySize.layerwiseDecay,
  }
}

/** What a folder's run must be for this one to go on in it, but for the seed. */
function identityOf(
  settings: FinetuneSettings,
  found: {
    readonly origin: OpenedOrigin
    readonly files: FinetuneFiles
    readonly rates: Rates
    readonly maxLength: number
  },
): RunIdentity {
  const { origin, files, rates, maxLength } = found
  const named = (file: ReadFile | undefined, otherwise: string): string =>
    file === undefined ? otherwise : file.hash.slice(0, 12)
  const { textColumn, pairColumn, labelColumn } = settings.columns
  return {
    task: settings.taskName,
    'task options': JSON.stringify(settings.taskOptions),
    model: origin.fingerprint,
    vocabulary: hashPlainData(origin.tokenizer.specification).slice(0, 12),
    'training file': named(files.train, ''),
    'validation file': named(files.validation, `${settings.validationFraction} of the training file`),
    'test file': named(files.test, 'none'),
    columns: [textColumn, pairColumn, labelColumn].map((name) => name ?? 'found').join(', '),
    [settings.steps === undefined ? 'epochs' : 'steps']: settings.steps ?? settings.epochs,
    'batch size': settings.batchSize,
    'learning rate': rates.learningRate,
    'layer-wise decay': rates.layerwiseDecay,
    ...(settings.dropout !== undefined && { dropout: settings.dropout }),
    'weight decay': settings.weightDecay,
    'warmup fraction': settings.warmupFraction,
    'sequence length': maxLength,
    stride: settings.stride ?? "the task's",
    optimizer: settings.optimizer,
    schedule: settings.schedule,
    'gradient norm': settings.maxGradientNorm,
    'steps between evaluations': settings.evaluateEvery ?? 'an epoch',
    patience: settings.patience ?? 'none',
  }
}

/** Refuses a folder with another run; says whether this one is finished. */
function requireSame(output: string, identity: RunIdentity, seed: number, seeds: number): boolean {
  const record = existsSync(output) ? readRunRecord(output) : undefined
  if (record === undefined) return false
  requireSameRun(output, record, { ...identity, ...seedsIdentity(seed, seeds) })
  const done = seeds === 1 ? record.completed !== null : record.completed === seeds
  return done && hasModel(output)
}

/** More seeds may be added later; one run is of another form than several. */
function seedsIdentity(seed: number, seeds: number): RunIdentity {
  return seeds === 1 ? { seed } : { 'first of several seeds': seed }
}

async function* runSeeds(context: RunContext): AsyncGenerator<FinetuneStep, FinetuneResult, void> {
  const { settings, identity } = context
  const { output, seeds } = settings
  makeFolder(output)
  const record = {
    format: runFormat,
    identity: { ...identity, ...seedsIdentity(settings.seed, seeds) },
    settings: {},
  }
  await writeRunRecord(output, { ...record, completed: null })
  const results: FinetuneResult[] = []
  for (let index = 0; index < seeds; index++) {
    const seed = settings.seed + index
    results.push(yield* new SeedRun(context, seedFolder(output, seed), seed).run())
  }
  const runs = summarized(
    results,
    results.map((_, index) => settings.seed + index),
  )
  const best = results[runs.seeds.indexOf(runs.best)] as FinetuneResult
  const { output: _, report: __, ...metrics } = best
  await writeBestOfSeeds(output, metrics, runs)
  await writeRunRecord(output, { ...record, completed: seeds })
  return readResult(output)
}

/** The middle one, or the mean of the middle two; NaN where one value is. */
function medianOf(values: readonly number[]): number {
  if (values.some(Number.isNaN)) return Number.NaN
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] as number
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] as number) + upper) / 2
}

function summarized(results: readonly FinetuneResult[], seeds: readonly number[]): SeedsMetrics {
  const [first] = results as [FinetuneResult]
  const names = Object.keys(first.validation)
  // null in a file is what JSON makes of NaN.
  const valuesOf = (name: string): number[] => results.map(({ validation }) => validation[name] ?? Number.NaN)
  const values = Object.fromEntries(names.map((name) => [name, valuesOf(name)]))
  const each = (pick: (values: readonly number[]) => number): Metrics =>
    Object.fromEntries(names.map((name) => [name, pick(values[name] as number[])]))
  const deciding = values[first.metric] as number[]
  const best = deciding.reduce(
    (best, value, at) => (isBetter(value, deciding[best] as number) ? at : best),
    0,
  )
  return {
    seeds,
    best: seeds[best] as number,
    values,
    median: each(medianOf),
    least: each((values) => Math.min(...values)),
    most: each((values) => Math.max(...values)),
  }
}
