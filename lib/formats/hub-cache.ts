/**
 * The ecosystem's local cache of downloaded models, in the layout that Hugging Face's libraries share:
 *
 *   CACHE/models--OWNER--NAME/blobs/ETAG                each content once, named by its hash
 *                            /snapshots/COMMIT/FILE     a link to its blob
 *                            /refs/REVISION             the commit that a branch or tag stood at when last asked
 *                            /.no_exist/COMMIT/FILE     empty: the repository has no such file
 *
 * and the environment variables that say where it is and how the network is used, as in those libraries.
 */
import { existsSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { writeFileAtomically } from '../runtime/atomic-file.js'
import { makeFolder } from '../runtime/make-folder.js'
import { ioError, systemErrorName } from '../runtime/mapped-file.js'

export interface HubSettings {
  readonly endpoint: string
  readonly cache: string
  /** Never use the network. */
  readonly offline: boolean
  readonly token: string | undefined
  /** For the answer to a question, and for the next piece of a download, in milliseconds. */
  readonly timeout: number
}

const isSet = (value: string | undefined): boolean => /^(1|on|yes|true)$/i.test(value ?? '')

function storedToken(home: string, environment: NodeJS.ProcessEnv): string | undefined {
  const given = environment.HF_TOKEN ?? environment.HUGGING_FACE_HUB_TOKEN
  if (given !== undefined) return given.trim() || undefined
  try {
    return readFileSync(environment.HF_TOKEN_PATH ?? join(home, 'token'), 'utf8').trim() || undefined
  } catch {
    // Most people have none, and public models need none.
    return undefined
  }
}

/** What the environment says. */
export function hubSettings(environment: NodeJS.ProcessEnv = process.env): HubSettings {
  const base = environment.XDG_CACHE_HOME ?? join(homedir(), '.cache')
  const home = environment.HF_HOME ?? join(base, 'huggingface')
  const seconds = Number(environment.HF_HUB_ETAG_TIMEOUT)
  return {
    endpoint: (environment.HF_ENDPOINT ?? 'https://huggingface.co').replace(/\/+$/, ''),
    cache: environment.HF_HUB_CACHE ?? environment.HUGGINGFACE_HUB_CACHE ?? join(home, 'hub'),
    offline: isSet(environment.HF_HUB_OFFLINE) || isSet(environment.TRANSFORMERS_OFFLINE),
    token: storedToken(home, environment),
    timeout: seconds > 0 ? seconds * 1000 : 10_000,
  }
}

const commitPattern = /^[0-9a-f]{40}$/

export const isCommit = (revision: string): boolean => commitPattern.test(revision)

/** One repository in the cache. */
export class CachedRepository {
  readonly folder: string

  constructor(
    cache: string,
    readonly name: string,
  ) {
    this.folder = join(cache, `models--${name.replaceAll('/', '--')}`)
  }

  /** The commit that a revision stood at when last asked. */
  commitOf(revision: string): string | undefined {
    if (isCommit(revision)) return existsSync(this.snapshot(revision)) ? revision : undefined
    try {
      const commit = readFileSync(join(this.folder, 'refs', revision), 'utf8').trim()
      return isCommit(commit) ? commit : undefined
    } catch (error) {
      if (systemErrorName(error) === 'ENOENT') return undefined
      throw ioError('read', join(this.folder, 'refs', revision), error)
    }
  }

  async remember(revision: string, commit: string): Promise<void> {
    if (revision === commit || this.commitOf(revision) === commit) return
    await this.#write(join(this.folder, 'refs', revision), commit)
  }

  snapshot(commit: string): string {
    return join(this.folder, 'snapshots', commit)
  }

  blob(etag: string): string {
    return join(this.folder, 'blobs', etag)
  }

  /** Whether the file is there; a link whose blob is gone is none. */
  has(commit: string, file: string): boolean {
    return existsSync(join(this.snapshot(commit), file))
  }

  /** Whether the repository said that it has no such file. */
  lacks(commit: string, file: string): boolean {
    return existsSync(join(this.folder, '.no_exist', commit, file))
  }

  async rememberLack(commit: string, file: string): Promise<void> {
    await this.#write(join(this.folder, '.no_exist', commit, file), '')
  }

  /** Shows a blob under its file's name. */
  link(commit: string, file: string, etag: string): void {
    const path = join(this.snapshot(commit), file)
    makeFolder(dirname(path))
    try {
      // A link whose blob was removed is in the way of the new one.
      if (!existsSync(path)) rmSync(path, { force: true })
      symlinkSync(relative(dirname(path), this.blob(etag)), path)
    } catch (cause) {
      // Another process may have been faster.
      if (systemErrorName(cause) !== 'EEXIST') throw ioError('link', path, cause)
    }
  }

  async #write(path: string, content: string): Promise<void> {
    makeFolder(dirname(path))
    await writeFileAtomically(path, content)
  }
}
