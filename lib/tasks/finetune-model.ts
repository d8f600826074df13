/** The model that a run starts from: a folder's weights under the task's head, or random ones. */
import { existsSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import { hashPlainData } from '../data/hash.js'
import { configOfSize, ElectraPreTrainedModel, type Precision, sizeNames } from '../electra/index.js'
import { type ElectraConfig, electraConfigToJson, overrideElectraConfig } from '../formats/electra-config.js'
import { resolveModelFolder } from '../formats/hub.js'
import { readModelConfig, readModelFolder } from '../formats/model-folder.js'
import { VoltaicError } from '../runtime/errors.js'
import type { Device } from '../runtime/index.js'
import { loadTokenizer, type Tokenizer } from '../text/index.js'
import { refuse } from '../training/option-checks.js'
import type { ModelOrigin } from './finetune-options.js'
import type { Task } from './task.js'

/** Where weights come from, found and read as far as a run must know before it begins. */
export interface OpenedOrigin {
  /** For the run's record: the same weights, the same name. */
  readonly fingerprint: string
  /** Of the weights; undefined for random ones. */
  readonly folder: string | undefined
  readonly config: ElectraConfig
  readonly tokenizer: Tokenizer
}

/** CRC-32 over all weights, in the order of their names. */
function fingerprintOf(folder: string): { readonly config: ElectraConfig; readonly fingerprint: string } {
  using source = readModelFolder(folder)
  const names = [...source.tensors.names].sort()
  const sum = names.reduce((sum, name) => crc32(source.tensors.bytes(name), crc32(name, sum)), 0)
  return { config: source.config, fingerprint: `weights ${sum.toString(16).padStart(8, '0')}` }
}

/** A configuration without what a task it served has written into it. */
function withoutTask(config: ElectraConfig): ElectraConfig {
  return overrideElectraConfig(config, { numLabels: 2, problemType: null, architectures: [] })
}

function randomOrigin(given: ElectraConfig, tokenizer: Tokenizer): OpenedOrigin {
  const { vocabularySize: vocabSize, padTokenId } = tokenizer
  const config = overrideElectraConfig(given, { vocabSize, padTokenId })
  const fingerprint = `random ${hashPlainData(electraConfigToJson(config)).slice(0, 12)}`
  return { fingerprint, folder: undefined, config, tokenizer }
}

async function openRandom(like: string, vocab: string | undefined): Promise<OpenedOrigin> {
  const size = sizeNames.find((name) => name === like)
  if (size === undefined) {
    if (!like.includes('/') && !existsSync(like))
      refuse('fromScratch', like, `${sizeNames.join(', ')}, a model folder or a name on the hub`)
    const folder = await resolveModelFolder(like)
    return randomOrigin(withoutTask(readModelConfig(folder)), await loadTokenizer(vocab ?? folder))
  }
  if (vocab === undefined) refuse('vocab', vocab, 'a vocabulary file or folder, for random weights of a size')
  return randomOrigin(configOfSize(size), await loadTokenizer(vocab))
}

/** @throws ERR_IO, ERR_FORMAT, ERR_CONFIG for a model or vocabulary that cannot be read, or that do not belong together */
export async function openOrigin(origin: ModelOrigin): Promise<OpenedOrigin> {
  if ('like' in origin) return openRandom(origin.like, origin.vocab)
  const folder = await resolveModelFolder(origin.model)
  const tokenizer = await loadTokenizer(folder)
  const { config, fingerprint } = fingerprintOf(folder)
  if (tokenizer.vocabularySize > config.vocabSize)
    throw new VoltaicError(
      'ERR_CONFIG',
      `${folder}: the tokenizer has ${tokenizer.vocabularySize} tokens and the model ${config.vocabSize}; ` +
        'use the vocabulary that the model was trained with',
    )
  return { fingerprint, folder, config, tokenizer }
}

export interface BuildOptions {
  readonly device: Device
  readonly precision: Precision
  readonly seed: number
  /** Default: the configuration's. */
  readonly dropout: number | undefined
}

/** The model with the task's head, whose first values follow from the seed. */
export async function buildModel(
  { folder, config }: OpenedOrigin,
  task: Task,
  { dropout, ...options }: BuildOptions,
): Promise<ElectraPreTrainedModel> {
  const changes = {
    ...task.config,
    ...(dropout !== undefined && { hiddenDropoutProb: dropout, attentionProbsDropoutProb: dropout }),
  }
  if (folder === undefined) return new task.model(overrideElectraConfig(config, changes), options)
  return ElectraPreTrainedModel.fromPretrained.call(task.model, folder, {
    ...options,
    config: changes,
    newHead: true,
  })
}
