/**
 * Models by name: `google/electra-small-discriminator` becomes a folder, the one in the ecosystem's cache, downloaded there where it
 * is missing. Everything that opens a model (`fromPretrained` of models and tokenizers, `voltaic convert`) comes through
 * `resolveModelFolder`, so a name and a folder serve everywhere alike.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { VoltaicError } from '../runtime/errors.js'
import { CachedRepository, type HubSettings, hubSettings, isCommit } from './hub-cache.js'
import { lookUp, UnreachableError } from './hub-client.js'
import { fetchBlob } from './hub-download.js'
import { readWeightMap, weightsFormats } from './model-weights.js'

export interface HubProgress {
  readonly file: string
  readonly received: number
  /** Undefined when the hub did not say. */
  readonly total: number | undefined
}

export interface HubOptions {
  /** A branch, tag or commit. Default 'main'. */
  readonly revision?: string | undefined
  /** The cache. Default: where the environment says (HF_HUB_CACHE, HF_HOME), else ~/.cache/huggingface/hub. */
  readonly cacheDir?: string | undefined
  /** Take what is in the cache and leave the network alone. Default: as HF_HUB_OFFLINE says. */
  readonly localFilesOnly?: boolean | undefined
  /** Called while a file is downloaded. */
  readonly onDownload?: ((progress: HubProgress) => void) | undefined
}

/** What a folder is wanted for. */
export type ModelFiles = 'model' | 'tokenizer'

/** What the ecosystem's tokenizers write, of this and earlier versions. */
export const tokenizerFiles: readonly string[] = [
  'tokenizer_config.json',
  'tokenizer.json',
  'vocab.txt',
  'special_tokens_map.json',
  'added_tokens.json',
]

/** OWNER/NAME of letters, digits, `-`, `_` and `.`, neither beginning nor ending with the last two. */
const hubName = /^[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?\/[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?$/
const revisionName = /^[A-Za-z0-9_](?:[\w./-]{0,200}[\w])?$/

/** Whether a text can be the name of a model on the hub. A folder of that name goes before it. */
export function isHubName(text: string): boolean {
  return hubName.test(text) && !text.includes('..') && !text.includes('--')
}

/** A repository at one commit, whose files are fetched as they are asked for. */
class Snapshot {
  constructor(
    readonly settings: HubSettings,
    readonly repository: CachedRepository,
    readonly commit: string,
    /** No network: what is not there is missing. */
    readonly isLocal: boolean,
    readonly onDownload: HubOptions['onDownload'],
  ) {}

  get folder(): string {
    return this.repository.snapshot(this.commit)
  }

  /** Makes sure that the file is in the snapshot's folder; false when the repository has none of that name. */
  async take(file: string): Promise<boolean> {
    const { repository, commit, settings } = this
    if (repository.has(commit, file)) return true
    if (this.isLocal || repository.lacks(commit, file)) return false
    const found = await lookUp(settings, repository.name, commit, file)
    if (found.etag === undefined) {
      await repository.rememberLack(commit, file)
      return false
    }
    await fetchBlob(settings, repository.blob(found.etag), found, (received, total) =>
      this.onDownload?.({ file, received, total }),
    )
    repository.link(commit, file, found.etag)
    return true
  }

  async takeTokenizer(): Promise<void> {
    for (const file of tokenizerFiles) await this.take(file)
  }

  /** The configuration, and the weights in the first format that is there. What is missing the folder's reader says. */
  async takeModel(): Promise<void> {
    await this.take('config.json')
    for (const format of weightsFormats) {
      if (await this.take(format.file)) return
      if (!(await this.take(format.index))) continue
      const shards = new Set(readWeightMap(join(this.folder, format.index), format).values())
      for (const shard of shards) await this.take(shard)
      return
    }
  }
}

function refuseUncached(name: string, { cache, endpoint, offline }: HubSettings, cause?: Error): never {
  const reason =
    cause === undefined
      ? `${offline ? 'HF_HUB_OFFLINE is set' : 'only local files are allowed'}`
      : cause.message
  throw new VoltaicError(
    'ERR_IO',
    `${name}: no folder of that name here, not in the cache ${cache}, and not to be downloaded: ${reason}. ` +
      `Run once with a network, set HF_ENDPOINT to a mirror of ${endpoint}, or copy the model's folder here and give its path`,
    { cause },
  )
}

/** The commit to read, and whether only the cache is to be read. */
async function findCommit(
  settings: HubSettings,
  repository: CachedRepository,
  revision: string,
): Promise<{ commit: string; isLocal: boolean }> {
  const cached = repository.commitOf(revision)
  if (settings.offline) return { commit: cached ?? refuseUncached(repository.name, settings), isLocal: true }
  if (isCommit(revision)) return { commit: revision, isLocal: false }
  try {
    const { commit } = await lookUp(settings, repository.name, revision, 'config.json')
    await repository.remember(revision, commit)
    return { commit, isLocal: false }
  } catch (error) {
    if (!(error instanceof UnreachableError)) throw error
    if (cached === undefined) refuseUncached(repository.name, settings, error)
    process.emitWarning(`${repository.name}: ${error.message}; the model in the cache is used`, {
      type: 'VoltaicWarning',
      code: 'VOLTAIC_HUB',
    })
    return { commit: cached, isLocal: true }
  }
}

/**
 * The folder that a path or a hub name means. A path that exists is itself; a name of the form OWNER/NAME is looked up in the cache
 * and on the hub, and the files wanted are downloaded where they are missing. Anything else comes back as it is, for the reader to
 * say what is wrong with it.
 *
 * Environment: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_TOKEN, HF_HUB_ETAG_TIMEOUT, as for Hugging Face's libraries.
 * @throws ERR_IO when a name is neither in the cache nor to be had; ERR_ARGUMENT for a revision that cannot be one
 */
export async function resolveModelFolder(
  nameOrFolder: string,
  wanted: readonly ModelFiles[] = ['model', 'tokenizer'],
  options: HubOptions = {},
): Promise<string> {
  if (existsSync(nameOrFolder) || !isHubName(nameOrFolder)) return nameOrFolder
  const { revision = 'main', cacheDir, localFilesOnly, onDownload } = options
  if (!revisionName.test(revision) || revision.includes('..')) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `revision is ${JSON.stringify(revision)}; expected a branch, tag or commit`,
    )
  }
  const environment = hubSettings()
  const settings = {
    ...environment,
    cache: cacheDir ?? environment.cache,
    offline: localFilesOnly ?? environment.offline,
  }
  const repository = new CachedRepository(settings.cache, nameOrFolder)
  const { commit, isLocal } = await findCommit(settings, repository, revision)
  const snapshot = new Snapshot(settings, repository, commit, isLocal, onDownload)
  try {
    if (wanted.includes('tokenizer')) await snapshot.takeTokenizer()
    if (wanted.includes('model')) await snapshot.takeModel()
  } catch (error) {
    if (error instanceof UnreachableError) refuseUncached(nameOrFolder, settings, error)
    throw error
  }
  if (!existsSync(snapshot.folder)) {
    throw new VoltaicError(
      'ERR_FORMAT',
      `${nameOrFolder}: the repository has none of the files that are read (config.json, weights, a tokenizer)`,
    )
  }
  return snapshot.folder
}
