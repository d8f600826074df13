/**
 * Model folders as Hugging Face's libraries read and write them: config.json and model.safetensors, or several safetensors files
 * listed in model.safetensors.index.json. Tensors come under today's names (see tensor-names.ts), whatever the file calls them.
 */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { removeLeftovers, writeFileAtomically, writeFolderAtomically } from '../runtime/atomic-file.js'
import { VoltaicError } from '../runtime/errors.js'
import { makeFolder } from '../runtime/make-folder.js'
import { ioError, type MapFileOptions } from '../runtime/mapped-file.js'
import { type ElectraConfig, formatElectraConfig, parseElectraConfig } from './electra-config.js'
import { readSafetensors, type TensorSource, type TensorToWrite, writeSafetensors } from './safetensors.js'
import { showName } from './safetensors-header.js'
import { canonicalTensorName } from './tensor-names.js'

export const configFileName = 'config.json'
export const weightsFileName = 'model.safetensors'
export const weightsIndexFileName = 'model.safetensors.index.json'

/** No real configuration or index comes near; a larger file is not one. */
const largestJson = 64 * 1024 * 1024

const wordEmbeddingsName = 'electra.embeddings.word_embeddings.weight'
const tiedOutputName = 'generator_lm_head.weight'

export interface ModelFolder {
  readonly folder: string
  readonly config: ElectraConfig
  /** The weights, under today's names; the tied output projection is left out where it repeats the word embeddings. */
  readonly tensors: TensorSource
  /** Gives the weights' memory back. */
  close(): void
  [Symbol.dispose](): void
}

function readJson(path: string): unknown {
  let text: string
  try {
    if (statSync(path).size > largestJson) {
      throw new VoltaicError(
        'ERR_FORMAT',
        `${path}: larger than ${largestJson} bytes; expected a small JSON file`,
      )
    }
    text = readFileSync(path, 'utf8')
  } catch (cause) {
    throw ioError('read', path, cause)
  }
  try {
    return JSON.parse(text.replace(/^\ufeff/, ''))
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message.slice(0, 200) : cause
    throw new VoltaicError(
      'ERR_FORMAT',
      `${path}: not JSON (${reason}). The file is damaged; copy or save it again`,
      {
        cause,
      },
    )
  }
}

/**
 * Reads the configuration of a model folder.
 * @throws ERR_IO, ERR_FORMAT when there is none or it is no JSON, ERR_CONFIG when a value does not fit
 */
export function readModelConfig(folder: string): ElectraConfig {
  const path = join(folder, configFileName)
  if (existsSync(folder) && !existsSync(path)) {
    throw new VoltaicError('ERR_FORMAT', `${folder}: no model folder, ${configFileName} is missing`)
  }
  return parseElectraConfig(readJson(path), path)
}

/** Which file holds a tensor, and under which name. */
interface Place {
  readonly file: TensorSource
  readonly name: string
}

/** Several files as one source of tensors. */
function combine(path: string, places: ReadonlyMap<string, Place>, close: () => void): TensorSource {
  const at = (name: string): Place => {
    const place = places.get(name)
    if (place !== undefined) return place
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `${path}: holds no tensor ${showName(name)}; it holds ${places.size} others`,
    )
  }
  const from = <T>(name: string, read: (place: Place) => T): T => read(at(name))
  return {
    path,
    names: [...places.keys()],
    has: (name) => places.has(name),
    info: (name) => from(name, (place) => place.file.info(place.name)),
    bytes: (name) => from(name, (place) => place.file.bytes(place.name)),
    float32: (name) => from(name, (place) => place.file.float32(place.name)),
    int32: (name) => from(name, (place) => place.file.int32(place.name)),
    close,
    [Symbol.dispose]: close,
  }
}

function readWeightMap(path: string): Map<string, string> {
  const index = readJson(path) as { weight_map?: unknown } | null
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
      if (typeof file === 'string' && /^[^/\\\0]+\.safetensors$/.test(file)) return [name, file]
      throw new VoltaicError(
        'ERR_FORMAT',
        `${path}: tensor ${showName(name)} is said to be in ${JSON.stringify(file)}; expected the name of a .safetensors file ` +
          'in the same folder',
      )
    }),
  )
}

function openShards(folder: string, opened: TensorSource[], options: MapFileOptions): Map<string, Place> {
  const indexPath = join(folder, weightsIndexFileName)
  const files = new Map<string, TensorSource>()
  const places = new Map<string, Place>()
  for (const [name, fileName] of readWeightMap(indexPath)) {
    let file = files.get(fileName)
    if (file === undefined) {
      file = readSafetensors(join(folder, fileName), options)
      opened.push(file)
      files.set(fileName, file)
    }
    if (!file.has(name)) {
      throw new VoltaicError(
        'ERR_FORMAT',
        `${indexPath}: tensor ${showName(name)} is said to be in ${fileName}, which does not hold it; copy the model again`,
      )
    }
    places.set(name, { file, name })
  }
  return places
}

function refuseWithoutWeights(folder: string): never {
  const others = ['pytorch_model.bin', 'pytorch_model.bin.index.json', 'tf_model.h5', 'flax_model.msgpack']
  const other = others.find((name) => existsSync(join(folder, name)))
  if (other === undefined) {
    throw new VoltaicError('ERR_FORMAT', `${folder}: no weights, ${weightsFileName} is missing`)
  }
  throw new VoltaicError(
    'ERR_FORMAT',
    `${folder}: the weights are in ${other} only, which this version does not read; expected ${weightsFileName}. ` +
      'Convert them once with Hugging Face transformers: ' +
      "AutoModel.from_pretrained(folder).save_pretrained(folder, safe_serialization=True), with the model's own class",
  )
}

function sameBytes(first: Place, second: Place): boolean {
  const a = first.file.info(first.name)
  const b = second.file.info(second.name)
  if (a.dtype !== b.dtype || a.shape.join() !== b.shape.join()) return false
  return Buffer.compare(first.file.bytes(first.name), second.file.bytes(second.name)) === 0
}

function underTodaysNames(path: string, places: ReadonlyMap<string, Place>): Map<string, Place> {
  const renamed = new Map<string, Place>()
  for (const [name, place] of places) {
    const canonical = canonicalTensorName(name)
    if (canonical === undefined) continue
    const earlier = renamed.get(canonical)
    if (earlier !== undefined) {
      throw new VoltaicError(
        'ERR_FORMAT',
        `${path}: tensors ${showName(earlier.name)} and ${showName(name)} are two spellings of ${canonical}; expected one`,
      )
    }
    renamed.set(canonical, place)
  }
  const tied = renamed.get(tiedOutputName)
  const words = renamed.get(wordEmbeddingsName)
  if (tied !== undefined && words !== undefined && sameBytes(tied, words)) renamed.delete(tiedOutputName)
  return renamed
}

/**
 * Opens a model folder: its configuration, and its weights mapped into memory. Which tensors a model wants is for `matchTensors`.
 * @throws ERR_IO when a file cannot be read; ERR_FORMAT for missing, damaged or hostile files, and for a folder whose weights are
 * in another format only; ERR_CONFIG for a configuration that does not fit
 */
export function readModelFolder(folder: string, options: MapFileOptions = {}): ModelFolder {
  const config = readModelConfig(folder)
  const opened: TensorSource[] = []
  const close = (): void => {
    for (const file of opened) file.close()
  }
  try {
    let path = join(folder, weightsFileName)
    let places: Map<string, Place>
    if (existsSync(path)) {
      const file = readSafetensors(path, options)
      opened.push(file)
      places = new Map(file.names.map((name) => [name, { file, name }]))
    } else if (existsSync(join(folder, weightsIndexFileName))) {
      path = join(folder, weightsIndexFileName)
      places = openShards(folder, opened, options)
    } else {
      refuseWithoutWeights(folder)
    }
    const tensors = combine(path, underTodaysNames(path, places), close)
    return { folder, config, tensors, close, [Symbol.dispose]: close }
  } catch (error) {
    close()
    throw error
  }
}

export interface ModelFolderContent {
  readonly config: ElectraConfig
  readonly tensors: Iterable<TensorToWrite>
  /** Further files (vocab.txt, tokenizer.json, ...): name to content. */
  readonly files?: Readonly<Record<string, string | Uint8Array>>
}

/** Files that say which type their weights have must not keep saying what they were before. */
function withFloat32(config: ElectraConfig): ElectraConfig {
  const extra: Record<string, unknown> = { ...config.extra }
  for (const key of ['dtype', 'torch_dtype']) if (extra[key] !== undefined) extra[key] = 'float32'
  return { ...config, extra }
}

/**
 * Writes a model folder. A folder that is not there yet appears in one step, complete. In one that is there, each file is replaced
 * in one step, the weights last, and files that are not named stay.
 * @throws ERR_IO when writing fails (what was there stays whole); ERR_ARGUMENT for a wrong tensor
 */
export async function writeModelFolder(folder: string, content: ModelFolderContent): Promise<void> {
  const tensors = [...content.tensors]
  const isFloat32 = tensors.every(({ dtype }) => dtype === 'F32')
  const config = isFloat32 ? withFloat32(content.config) : content.config
  const writeInto = async (place: string): Promise<void> => {
    for (const [name, data] of Object.entries(content.files ?? {}))
      await writeFileAtomically(join(place, name), data)
    await writeFileAtomically(join(place, configFileName), formatElectraConfig(config))
    await writeSafetensors(join(place, weightsFileName), tensors)
  }
  if (existsSync(folder)) {
    await removeLeftovers(folder)
    return writeInto(folder)
  }
  const parent = dirname(folder)
  makeFolder(parent)
  await writeFolderAtomically(folder, writeInto)
}
