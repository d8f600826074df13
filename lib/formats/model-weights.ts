/**
 * The weights of a model folder, whichever of the ecosystem's files hold them: model.safetensors, pytorch_model.bin, or several
 * files of either kind with an index that says which tensor is where. Names are the files' own.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { VoltaicError } from '../runtime/errors.js'
import type { MapFileOptions } from '../runtime/mapped-file.js'
import { readJsonFile } from './json-file.js'
import { readPytorchCheckpoint } from './pytorch-checkpoint.js'
import { readSafetensors } from './safetensors.js'
import { type SourceTensor, showName, type TensorSource, tensorOf, tensorSource } from './tensor-source.js'

export const weightsFileName = 'model.safetensors'

interface WeightsFormat {
  readonly file: string
  readonly index: string
  /** Names that an index may give its files. */
  readonly shard: RegExp
  readonly read: (path: string, options: MapFileOptions) => TensorSource
}

/** In the order of preference, which is the ecosystem's. */
export const weightsFormats: readonly WeightsFormat[] = [
  {
    file: weightsFileName,
    index: 'model.safetensors.index.json',
    shard: /^[^/\\\0]+\.safetensors$/,
    read: readSafetensors,
  },
  {
    file: 'pytorch_model.bin',
    index: 'pytorch_model.bin.index.json',
    shard: /^[^/\\\0]+\.bin$/,
    read: readPytorchCheckpoint,
  },
]

/**
 * What an index says: tensor names and the files that hold them, which stand beside it.
 * @throws ERR_IO, ERR_FORMAT
 */
export function readWeightMap(path: string, { file: kind, shard }: WeightsFormat): Map<string, string> {
  const index = readJsonFile(path) as { weight_map?: unknown } | null
  const map = typeof index === 'object' ? index?.weight_map : undefined
  if (typeof map !== 'object' || map === null || Array.isArray(map)) {
    throw new VoltaicError(
      'ERR_FORMAT',
      `${path}: expected an object with weight_map, from tensor names to file names`,
    )
  }
  return new Map(
    Object.entries(map).map(([name, file]) => {
      // The index may only name files beside it: a path could lead anywhere on the machine.
      if (typeof file === 'string' && shard.test(file)) return [name, file]
      throw new VoltaicError(
        'ERR_FORMAT',
        `${path}: tensor ${showName(name)} is said to be in ${showName(String(file))}; expected the name of a ` +
          `${kind.slice(kind.lastIndexOf('.'))} file in the same folder`,
      )
    }),
  )
}

function openShards(folder: string, format: WeightsFormat, options: MapFileOptions): TensorSource {
  const indexPath = join(folder, format.index)
  const files = new Map<string, TensorSource>()
  const close = (): void => {
    for (const file of files.values()) file.close()
  }
  try {
    const tensors = new Map<string, SourceTensor>()
    for (const [name, fileName] of readWeightMap(indexPath, format)) {
      const file = files.get(fileName) ?? format.read(join(folder, fileName), options)
      files.set(fileName, file)
      if (!file.has(name)) {
        throw new VoltaicError(
          'ERR_FORMAT',
          `${indexPath}: tensor ${showName(name)} is said to be in ${fileName}, which does not hold it; copy the model again`,
        )
      }
      tensors.set(name, tensorOf(file, name))
    }
    return tensorSource(indexPath, tensors, close)
  } catch (error) {
    close()
    throw error
  }
}

function refuseWithoutWeights(folder: string): never {
  const other = ['tf_model.h5', 'flax_model.msgpack'].find((name) => existsSync(join(folder, name)))
  if (other === undefined) {
    const expected = weightsFormats.map(({ file }) => file).join(' or ')
    throw new VoltaicError('ERR_FORMAT', `${folder}: no weights, expected ${expected}`)
  }
  throw new VoltaicError(
    'ERR_FORMAT',
    `${folder}: the weights are in ${other} only, which Voltaic does not read; expected ${weightsFileName} or pytorch_model.bin. ` +
      'Convert them once with Hugging Face transformers: ' +
      "AutoModel.from_pretrained(folder).save_pretrained(folder, safe_serialization=True), with the model's own class",
  )
}

/**
 * Opens a folder's weights under the names that the files give them.
 * @throws ERR_IO when a file cannot be read; ERR_FORMAT for missing, damaged or hostile files, and for a folder whose weights are in
 * another format only
 */
export function openWeights(folder: string, options: MapFileOptions): TensorSource {
  for (const format of weightsFormats) {
    const path = join(folder, format.file)
    if (existsSync(path)) return format.read(path, options)
    if (existsSync(join(folder, format.index))) return openShards(folder, format, options)
  }
  return refuseWithoutWeights(folder)
}
