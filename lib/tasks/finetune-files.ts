/** What a finished run leaves in its folder: the model, predictions, report and metrics, each file replaced in one step. */
import { createReadStream, existsSync, readdirSync, readFileSync, realpathSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { ElectraPreTrainedModel } from '../electra/index.js'
import type { ElectraConfig } from '../formats/electra-config.js'
import { readJsonFile } from '../formats/json-file.js'
import { configFileName, writeModelFolder } from '../formats/model-folder.js'
import { removeLeftovers, writeFileAtomically, writeFully } from '../runtime/atomic-file.js'
import { VoltaicError } from '../runtime/errors.js'
import { ioError } from '../runtime/mapped-file.js'
import { type Tokenizer, tokenizerFiles } from '../text/index.js'
import { removeRun } from '../training/run-folder.js'
import type { FinetuneResult, RunMetrics, SeedsMetrics } from './finetune-events.js'

const weightsFile = 'model.safetensors'
const metricsFile = 'metrics.json'
const reportFile = 'report.txt'
const predictionFiles = { validation: 'predictions.jsonl', test: 'test-predictions.jsonl' } as const
const tokenizerNames = ['vocab.txt', 'tokenizer.json', 'tokenizer_config.json']
/** Everything that a finished run writes but its metrics, in the order in which it is copied: the weights last. */
const modelNames = [
  ...Object.values(predictionFiles),
  reportFile,
  ...tokenizerNames,
  configFileName,
  weightsFile,
]

export const seedFolder = (output: string, seed: number): string => join(output, `seed-${seed}`)

/** Whether a run's model stands in its folder. */
export function hasModel(output: string): boolean {
  return existsSync(join(output, weightsFile)) && existsSync(join(output, metricsFile))
}

/**
 * Refuses a folder that holds a model which is not a run's own, and the folder that the run learns from.
 * @throws ERR_CONFIG
 */
export function requireOwnFolder(output: string, modelFolder: string | undefined): void {
  if (!existsSync(output)) return
  if (modelFolder !== undefined && realpathSync(output) === realpathSync(modelFolder))
    throw new VoltaicError('ERR_CONFIG', `output is ${output}, the model to start from; use another folder`)
  const isModel = existsSync(join(output, configFileName)) || existsSync(join(output, weightsFile))
  if (isModel && !existsSync(join(output, 'run.json')))
    throw new VoltaicError(
      'ERR_CONFIG',
      `${output} holds a model that no fine-tuning made, and would be overwritten; use another folder`,
    )
}

/** Removes what runs in the folder have written. */
export function removeFinetuning(output: string): void {
  if (!existsSync(output)) return
  for (const name of readdirSync(output))
    if (/^seed-\d+$/.test(name)) rmSync(join(output, name), { recursive: true, force: true })
  removeRun(output, [metricsFile, ...modelNames])
}

export interface FinishedRun {
  readonly model: ElectraPreTrainedModel
  readonly config: ElectraConfig
  readonly tokenizer: Tokenizer
  /** JSON Lines. */
  readonly predictions: { readonly validation: string; readonly test: string | undefined }
  readonly report: string
  readonly metrics: RunMetrics
}

export async function writeFinishedRun(output: string, run: FinishedRun): Promise<void> {
  const { model, config, tokenizer, predictions, report, metrics } = run
  await writeModelFolder(output, {
    config,
    tensors: model.tensorsToWrite(),
    files: {
      ...tokenizerFiles(tokenizer.specification),
      [predictionFiles.validation]: predictions.validation,
      ...(predictions.test === undefined ? {} : { [predictionFiles.test]: predictions.test }),
      ...(report === '' ? {} : { [reportFile]: `${report.trimEnd()}\n` }),
    },
  })
  await writeMetrics(output, metrics)
}

async function writeMetrics(output: string, metrics: object): Promise<void> {
  await writeFileAtomically(join(output, metricsFile), `${JSON.stringify(metrics, null, 1)}\n`)
}

async function copyFile(from: string, to: string): Promise<void> {
  try {
    await writeFileAtomically(to, async (handle) => {
      for await (const piece of createReadStream(from)) await writeFully(handle, piece as Buffer)
    })
  } catch (cause) {
    throw cause instanceof VoltaicError ? cause : ioError('copy', from, cause)
  }
}

/** Makes one seed's run that of the whole folder, and says there what all came to. */
export async function writeBestOfSeeds(output: string, best: RunMetrics, runs: SeedsMetrics): Promise<void> {
  const folder = seedFolder(output, runs.best)
  await removeLeftovers(output)
  for (const name of modelNames)
    if (existsSync(join(folder, name))) await copyFile(join(folder, name), join(output, name))
  await writeMetrics(output, { ...best, runs })
}

/** The result of a finished run. @throws ERR_FORMAT when its metrics cannot be read */
export function readResult(output: string): FinetuneResult {
  const path = join(output, metricsFile)
  const reportPath = join(output, reportFile)
  try {
    const metrics = readJsonFile(path) as RunMetrics
    const report = existsSync(reportPath) ? readFileSync(reportPath, 'utf8') : ''
    return { ...metrics, output, report }
  } catch (cause) {
    throw new VoltaicError(
      'ERR_FORMAT',
      `${path} cannot be read (${(cause as Error).message}); start over with --fresh`,
      { cause },
    )
  }
}
