/** From any file that holds an ELECTRA model to the files that today's libraries open. */
import { join } from 'node:path'
import { VoltaicError } from '../runtime/errors.js'
import type { ElectraConfig } from './electra-config.js'
import { writeFolderWith, writeModelFolder } from './model-folder.js'
import { type ModelSource, type ModelSourceOptions, openModelSource } from './model-source.js'
import { writeOnnx } from './onnx.js'
import { electraGraph } from './onnx-electra.js'
import { withPositions } from './positions.js'
import type { LeftOut } from './tensorflow-leftovers.js'

export type ConvertTarget = 'safetensors' | 'onnx'

/** What can be written, and how: a further format is one more line here. */
const writers: Readonly<Record<ConvertTarget, (folder: string, source: ModelSource) => Promise<void>>> = {
  safetensors: writeSafetensorsFolder,
  onnx: writeOnnxFolder,
}

export const convertTargets: readonly ConvertTarget[] = Object.keys(writers) as ConvertTarget[]

export interface ConvertOptions extends ModelSourceOptions {
  /** Default 'safetensors': a model folder. 'onnx': model.onnx in its place. */
  readonly to?: ConvertTarget | undefined
  /** Rows of the position table, more than the model has: for longer inputs (see `extendPositions`). Default: as it is. */
  readonly positions?: number | undefined
  /** With `positions`: how many rows training has reached. Default: all that the model has. */
  readonly trainedPositions?: number | undefined
}

export interface ConvertReport {
  readonly config: ElectraConfig
  /** Names of the tensors that were written, with the bytes they take. */
  readonly tensors: readonly string[]
  readonly bytes: number
  /** The tokenizer's files that were copied. */
  readonly files: readonly string[]
  /** Of a TensorFlow checkpoint: the variables that have no place in the result, with the reasons. */
  readonly leftOut: readonly LeftOut[]
}

async function writeSafetensorsFolder(
  folder: string,
  { config, tensors, files }: ModelSource,
): Promise<void> {
  await writeModelFolder(folder, {
    config,
    files,
    tensors: tensors.names.map((name) => {
      const { dtype, shape } = tensors.info(name)
      return { name, dtype, shape, data: () => tensors.bytes(name) }
    }),
  })
}

/** model.onnx in float32, beside the configuration and the tokenizer's files. */
async function writeOnnxFolder(folder: string, { config, tensors, files }: ModelSource): Promise<void> {
  const weights = {
    shape: (name: string) => tensors.info(name).shape,
    read: (name: string) => tensors.float32(name),
  }
  const graph = electraGraph(config.architectures[0] ?? 'ElectraModel', config, weights, { quantize: null })
  await writeFolderWith(folder, { config, files }, (place) => writeOnnx(join(place, 'model.onnx'), graph))
}

/**
 * Converts a model (see `openModelSource` for what `source` may be) into a folder. To safetensors, weights keep their element type
 * and their bytes; names become today's, LayerNorm's gamma and beta weight and bias, and buffers and the tied output projection are
 * left out. The tokenizer's files are copied as they are.
 * @throws as `openModelSource`; ERR_IO when writing fails (what was in the folder stays whole); ERR_UNSUPPORTED for what ONNX files
 * cannot hold; ERR_ARGUMENT for positions that the model has already
 */
export async function convertModel(
  source: string,
  folder: string,
  options: ConvertOptions = {},
): Promise<ConvertReport> {
  const { to = 'safetensors', positions, trainedPositions, ...where } = options
  if (!convertTargets.includes(to)) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `convert: to is ${JSON.stringify(to)}; expected one of ${convertTargets.join(', ')}`,
    )
  }
  if (trainedPositions !== undefined && positions === undefined) {
    throw new VoltaicError('ERR_ARGUMENT', 'convert: trainedPositions goes with positions; name both')
  }
  using opened = await openModelSource(source, where)
  const model =
    positions === undefined ? opened : withPositions(opened, positions, { trained: trainedPositions })
  await writers[to](folder, model)
  const { config, tensors, files, leftOut } = model
  const bytes = tensors.names.reduce((sum, name) => sum + tensors.info(name).byteLength, 0)
  return { config, tensors: tensors.names, bytes, files: Object.keys(files), leftOut }
}
