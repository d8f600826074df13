/**
 * A model from wherever it is: a model folder, a name on the hub, a single file of weights, or a TensorFlow checkpoint of the original
 * code. However it comes, it is a configuration, tensors under today's names, and the tokenizer's files beside them.
 */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { VoltaicError } from '../runtime/errors.js'
import { ioError } from '../runtime/mapped-file.js'
import { requireBody } from './body-shapes.js'
import { type ElectraConfig, parseElectraConfig } from './electra-config.js'
import { type HubOptions, resolveModelFolder, tokenizerFiles } from './hub.js'
import { readJsonFile } from './json-file.js'
import { configFileName, readModelConfig, underTodaysNames } from './model-folder.js'
import { openWeights, weightsFormats } from './model-weights.js'
import { readPytorchCheckpoint } from './pytorch-checkpoint.js'
import { readSafetensors } from './safetensors.js'
import type { TensorSource } from './tensor-source.js'
import { findTensorflowCheckpoint, readTensorflowCheckpoint } from './tensorflow-checkpoint.js'
import type { LeftOut } from './tensorflow-leftovers.js'
import {
  configFromShapes,
  type ElectraPart,
  electraFromTensorflow,
  electraParts,
} from './tensorflow-names.js'

export interface ModelSourceOptions extends HubOptions {
  /** Which model of a checkpoint that holds both. Default 'discriminator'. Of other files: what they must be. */
  readonly part?: ElectraPart | undefined
  /** A config.json to use instead of the one beside the weights. */
  readonly config?: string | undefined
}

export interface ModelSource {
  readonly config: ElectraConfig
  readonly tensors: TensorSource
  /** The tokenizer's files that stand beside the weights: name to content. */
  readonly files: Readonly<Record<string, Uint8Array>>
  /** Of a TensorFlow checkpoint: the variables that are not among the tensors, with the reasons. */
  readonly leftOut: readonly LeftOut[]
  [Symbol.dispose](): void
}

const largestTokenizerFile = 32 * 1024 * 1024

function readTokenizerFiles(folder: string): Record<string, Uint8Array> {
  const files: Record<string, Uint8Array> = {}
  for (const name of tokenizerFiles) {
    const path = join(folder, name)
    const found = statSync(path, { throwIfNoEntry: false })
    if (!found?.isFile()) continue
    if (found.size > largestTokenizerFile) {
      throw new VoltaicError(
        'ERR_FORMAT',
        `${path}: larger than ${largestTokenizerFile} bytes; expected a tokenizer's file`,
      )
    }
    try {
      files[name] = readFileSync(path)
    } catch (cause) {
      throw ioError('read', path, cause)
    }
  }
  return files
}

interface Weights {
  readonly tensors: TensorSource
  readonly folder: string
  /** The original code keeps no configuration; its sizes are in the tensors. */
  readonly ownConfig?: () => ElectraConfig
  readonly leftOut?: readonly LeftOut[]
}

function hasWeights(folder: string): boolean {
  return weightsFormats.some(
    ({ file, index }) => existsSync(join(folder, file)) || existsSync(join(folder, index)),
  )
}

function openOriginal(prefix: string, part: ElectraPart): Weights {
  const checkpoint = readTensorflowCheckpoint(prefix)
  try {
    const tensors = electraFromTensorflow(checkpoint, part)
    const ownConfig = (): ElectraConfig => configFromShapes(tensors, part)
    return { tensors, folder: dirname(prefix), ownConfig, leftOut: tensors.leftOut }
  } catch (error) {
    checkpoint.close()
    throw error
  }
}

function openFile(path: string): TensorSource {
  return path.endsWith('.safetensors') ? readSafetensors(path) : readPytorchCheckpoint(path)
}

function open(path: string, part: ElectraPart): Weights {
  const isFolder = statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
  if (!isFolder || !hasWeights(path)) {
    const prefix = findTensorflowCheckpoint(path)
    if (prefix !== undefined) return openOriginal(prefix, part)
  }
  const source = isFolder ? openWeights(path, {}) : openFile(path)
  try {
    return { tensors: underTodaysNames(source), folder: isFolder ? path : dirname(path) }
  } catch (error) {
    source.close()
    throw error
  }
}

function headOf(tensors: TensorSource): string | undefined {
  if (tensors.has('discriminator_predictions.dense.weight')) return 'ElectraForPreTraining'
  return tensors.has('generator_predictions.dense.weight') ? 'ElectraForMaskedLM' : undefined
}

function requirePart(tensors: TensorSource, part: ElectraPart | undefined): void {
  const head = headOf(tensors)
  const other = part === 'generator' ? 'ElectraForPreTraining' : 'ElectraForMaskedLM'
  if (part === undefined || head !== other) return
  throw new VoltaicError(
    'ERR_ARGUMENT',
    `${tensors.path}: holds the ${part === 'generator' ? 'discriminator' : 'generator'} (${head}), not the ${part}`,
  )
}

function configOf({ tensors, folder, ownConfig }: Weights, given: string | undefined): ElectraConfig {
  const beside = join(folder, configFileName)
  const config =
    given !== undefined
      ? parseElectraConfig(readJsonFile(given), given)
      : ownConfig === undefined || existsSync(beside)
        ? readModelConfig(folder)
        : ownConfig()
  const head = headOf(tensors)
  return config.architectures.length === 0 && head !== undefined
    ? { ...config, architectures: [head] }
    : config
}

/**
 * Opens a model: `source` is a model folder, a file of weights (safetensors or PyTorch's), a TensorFlow checkpoint of the original
 * code (its folder, or the prefix of its files), or a name on the hub. The original's checkpoints need no configuration: sizes are
 * read from the tensors.
 * @throws ERR_IO when something cannot be read or downloaded; ERR_FORMAT when a file is damaged, or the weights are not those of the
 * configuration; ERR_CONFIG for a configuration that does not fit; ERR_ARGUMENT when the source holds the other part
 */
export async function openModelSource(
  source: string,
  options: ModelSourceOptions = {},
): Promise<ModelSource> {
  const { part, config: given } = options
  if (part !== undefined && !electraParts.includes(part)) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `part is ${JSON.stringify(part)}; expected ${electraParts.join(' or ')}`,
    )
  }
  const weights = open(await resolveModelFolder(source, undefined, options), part ?? 'discriminator')
  const { tensors, folder, leftOut = [] } = weights
  try {
    requirePart(tensors, part)
    const config = configOf(weights, given)
    requireBody(config, tensors)
    const files = readTokenizerFiles(folder)
    return { config, tensors, files, leftOut, [Symbol.dispose]: tensors.close }
  } catch (error) {
    tensors.close()
    throw error
  }
}
