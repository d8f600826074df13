/** The model that a run starts from: a folder's weights under the task's head, or random ones. */
import { crc32 } from 'node:zlib'
import { configOfSize, ElectraPreTrainedModel, type Precision, type SizeName } from '../electra/index.js'
import type { ElectraConfig } from '../formats/electra-config.js'
import { resolveModelFolder } from '../formats/hub.js'
import { readModelFolder } from '../formats/model-folder.js'
import { VoltaicError } from '../runtime/errors.js'
import type { Device } from '../runtime/index.js'
import { loadTokenizer, type Tokenizer } from '../text/index.js'
import type { ModelOrigin } from './finetune-options.js'
import type { Task } from './task.js'

/** Where weights come from, found and read as far as a run must know before it begins. */
export interface OpenedOrigin {
  /** For the run's record: the same weights, the same name. */
  readonly fingerprint: string
  readonly place: { readonly folder: string } | { readonly size: SizeName }
  readonly config: ElectraConfig
  readonly tokenizer: Tokenizer
}

function randomConfig(
  size: SizeName,
  { vocabularySize: vocabSize, padTokenId }: Tokenizer,
  head: Partial<ElectraConfig> = {},
): ElectraConfig {
  return configOfSize(size, { ...head, vocabSize, padTokenId })
}

/** CRC-32 over all weights, in the order of their names. */
function fingerprintOf(folder: string): { readonly config: ElectraConfig; readonly fingerprint: string } {
  using source = readModelFolder(folder)
  const names = [...source.tensors.names].sort()
  const sum = names.reduce((sum, name) => crc32(source.tensors.bytes(name), crc32(name, sum)), 0)
  return { config: source.config, fingerprint: `weights ${sum.toString(16).padStart(8, '0')}` }
}

/** @throws ERR_IO, ERR_FORMAT, ERR_CONFIG for a model or vocabulary that cannot be read, or that do not belong together */
export async function openOrigin(origin: ModelOrigin): Promise<OpenedOrigin> {
  if ('size' in origin) {
    const tokenizer = await loadTokenizer(origin.vocab)
    const { size } = origin
    const config = randomConfig(size, tokenizer)
    return { fingerprint: `random ${size}`, place: { size }, config, tokenizer }
  }
  const folder = await resolveModelFolder(origin.folder)
  const tokenizer = await loadTokenizer(folder)
  const { config, fingerprint } = fingerprintOf(folder)
  if (tokenizer.vocabularySize > config.vocabSize)
    throw new VoltaicError(
      'ERR_CONFIG',
      `${folder}: the tokenizer has ${tokenizer.vocabularySize} tokens and the model ${config.vocabSize}; ` +
        'use the vocabulary that the model was trained with',
    )
  return { fingerprint, place: { folder }, config, tokenizer }
}

/** The model with the task's head, whose first values follow from the seed. */
export async function buildModel(
  origin: OpenedOrigin,
  task: Task,
  options: { readonly device: Device; readonly precision: Precision; readonly seed: number },
): Promise<ElectraPreTrainedModel> {
  const { place, tokenizer } = origin
  if ('size' in place) return new task.model(randomConfig(place.size, tokenizer, task.config), options)
  return ElectraPreTrainedModel.fromPretrained.call(task.model, place.folder, {
    ...options,
    config: task.config,
    newHead: true,
  })
}
