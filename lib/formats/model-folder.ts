/**
 * Model folders as Hugging Face's libraries read and write them: config.json and the weights. Tensors come under today's names (see
 * tensor-names.ts), whatever the files call them.
 */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { removeLeftovers, writeFileAtomically, writeFolderAtomically } from '../runtime/atomic-file.js'
import { VoltaicError } from '../runtime/errors.js'
import { makeFolder } from '../runtime/make-folder.js'
import type { MapFileOptions } from '../runtime/mapped-file.js'
import { type ElectraConfig, formatElectraConfig, parseElectraConfig } from './electra-config.js'
import { readJsonFile } from './json-file.js'
import { openWeights, weightsFileName } from './model-weights.js'
import { type TensorToWrite, writeSafetensors } from './safetensors.js'
import { canonicalTensorName } from './tensor-names.js'
import { type SourceTensor, showName, type TensorSource, tensorOf, tensorSource } from './tensor-source.js'

export const configFileName = 'config.json'

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

/**
 * Reads the configuration of a model folder.
 * @throws ERR_IO, ERR_FORMAT when there is none or it is no JSON, ERR_CONFIG when a value does not fit
 */
export function readModelConfig(folder: string): ElectraConfig {
  const path = join(folder, configFileName)
  if (existsSync(folder) && !existsSync(path)) {
    throw new VoltaicError('ERR_FORMAT', `${folder}: no model folder, ${configFileName} is missing`)
  }
  return parseElectraConfig(readJsonFile(path), path)
}

function sameBytes(a: SourceTensor, b: SourceTensor): boolean {
  if (a.dtype !== b.dtype || a.shape.join() !== b.shape.join()) return false
  return Buffer.compare(a.bytes(), b.bytes()) === 0
}

/**
 * A file's tensors under today's names; the output projection is left out where it repeats the word embeddings. `close` closes the file.
 * @throws ERR_FORMAT when two of its names are spellings of one
 */
export function underTodaysNames(source: TensorSource): TensorSource {
  const renamed = new Map<string, SourceTensor>()
  const spellings = new Map<string, string>()
  for (const name of source.names) {
    const canonical = canonicalTensorName(name)
    if (canonical === undefined) continue
    const earlier = spellings.get(canonical)
    if (earlier !== undefined) {
      throw new VoltaicError(
        'ERR_FORMAT',
        `${source.path}: tensors ${showName(earlier)} and ${showName(name)} are two spellings of ${canonical}; expected one`,
      )
    }
    spellings.set(canonical, name)
    renamed.set(canonical, tensorOf(source, name))
  }
  const tied = renamed.get(tiedOutputName)
  const words = renamed.get(wordEmbeddingsName)
  if (tied !== undefined && words !== undefined && sameBytes(tied, words)) renamed.delete(tiedOutputName)
  return tensorSource(source.path, renamed, source.close)
}

/**
 * Opens a model folder: its configuration, and its weights mapped into memory. Which tensors a model wants is for `matchTensors`.
 * @throws ERR_IO when a file cannot be read; ERR_FORMAT for missing, damaged or hostile files, and for a folder whose weights are
 * in a format that is not read; ERR_CONFIG for a configuration that does not fit
 */
export function readModelFolder(folder: string, options: MapFileOptions = {}): ModelFolder {
  const config = readModelConfig(folder)
  const weights = openWeights(folder, options)
  try {
    const { close } = weights
    return { folder, config, tensors: underTodaysNames(weights), close, [Symbol.dispose]: close }
  } catch (error) {
    weights.close()
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
 * Writes a model folder whose weights `writeWeights` adds. A folder that is not there yet appears in one step, complete. In one that
 * is there, each file is replaced in one step, the weights last, and files that are not named stay.
 * @throws ERR_IO when writing fails (what was there stays whole), and what `writeWeights` throws
 */
export async function writeFolderWith(
  folder: string,
  { config, files = {} }: Pick<ModelFolderContent, 'config' | 'files'>,
  writeWeights: (place: string) => Promise<void>,
): Promise<void> {
  const writeInto = async (place: string): Promise<void> => {
    for (const [name, data] of Object.entries(files)) await writeFileAtomically(join(place, name), data)
    await writeFileAtomically(join(place, configFileName), formatElectraConfig(config))
    await writeWeights(place)
  }
  if (existsSync(folder)) {
    await removeLeftovers(folder)
    return writeInto(folder)
  }
  makeFolder(dirname(folder))
  await writeFolderAtomically(folder, writeInto)
}

/**
 * Writes a model folder, as `writeFolderWith` does.
 * @throws ERR_IO when writing fails; ERR_ARGUMENT for a wrong tensor
 */
export async function writeModelFolder(folder: string, content: ModelFolderContent): Promise<void> {
  const tensors = [...content.tensors]
  const isFloat32 = tensors.every(({ dtype }) => dtype === 'F32')
  const config = isFloat32 ? withFloat32(content.config) : content.config
  await writeFolderWith(folder, { ...content, config }, (place) =>
    writeSafetensors(join(place, weightsFileName), tensors),
  )
}
