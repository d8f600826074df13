/**
 * The hub's download protocol: a HEAD request for what a file is (commit, hash, size, where its bytes are), and a GET that goes on
 * where an earlier one broke off. The token goes to the hub itself, never to the store that it sends us to.
 */
import { VoltaicError } from '../runtime/errors.js'
import { packageVersion } from '../version.js'
import { type HubSettings, isCommit } from './hub-cache.js'
import { showName } from './tensor-source.js'

/** What the hub says of a file. */
export interface HubFile {
  readonly commit: string
  /** Names the content: SHA-256 of a large file, git's SHA-1 of a small one. */
  readonly etag: string
  readonly size: number | undefined
  /** Where its bytes are. */
  readonly url: string
}

/** The file is not in the repository; `commit` is where that was looked up. */
export interface NoHubFile {
  readonly commit: string
  readonly etag: undefined
}

/** The network failed, not the hub: what is in the cache may serve. */
export class UnreachableError extends VoltaicError {}

const mostRedirects = 5

function reasonOf(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
  return cause instanceof Error ? cause.message || cause.name : String(cause)
}

async function ask(
  { token, endpoint }: HubSettings,
  url: string,
  init: { readonly method: string; readonly headers?: Record<string, string>; readonly signal: AbortSignal },
): Promise<Response> {
  const headers: Record<string, string> = {
    ...init.headers,
    'accept-encoding': 'identity',
    'user-agent': `voltaic/${packageVersion}; node/${process.versions.node}`,
  }
  if (token !== undefined && new URL(url).origin === new URL(endpoint).origin)
    headers.authorization = `Bearer ${token}`
  try {
    return await fetch(url, { ...init, headers, redirect: 'manual' })
  } catch (cause) {
    throw new UnreachableError('ERR_IO', `${new URL(url).origin} cannot be reached: ${reasonOf(cause)}`, {
      cause,
    })
  }
}

/** Follows redirects within the hub (a renamed repository); one to another host is the answer. */
async function askHub(settings: HubSettings, url: string): Promise<{ response: Response; url: string }> {
  let at = url
  for (let count = 0; count <= mostRedirects; count++) {
    const signal = AbortSignal.timeout(settings.timeout)
    const response = await ask(settings, at, { method: 'HEAD', signal })
    const location = response.headers.get('location')
    if (response.status < 300 || response.status >= 400 || location === null) return { response, url: at }
    const next = new URL(location, at)
    if (next.origin !== new URL(at).origin) return { response, url: next.href }
    at = next.href
  }
  throw new VoltaicError('ERR_IO', `${url}: more than ${mostRedirects} redirects`)
}

function refuseStatus(response: Response, name: string, { endpoint, token }: HubSettings): never {
  const { status, headers } = response
  const code = headers.get('x-error-code')
  const problem =
    code === 'GatedRepo' || status === 403
      ? `its owner asks for consent: accept the conditions on ${endpoint}/${name}, then set HF_TOKEN`
      : code === 'RevisionNotFound'
        ? 'no such revision; leave it out for the main branch'
        : status === 404 || status === 401
          ? `no such model, or a private one, and no folder of that name here: check the name${token === undefined ? ', or set HF_TOKEN' : ''}`
          : `the answer was ${status} ${response.statusText}; try again later`
  const message = `${name} on ${endpoint}: ${problem}`
  throw status >= 500 || status === 429
    ? new UnreachableError('ERR_IO', message)
    : new VoltaicError('ERR_IO', message)
}

/** An etag names a file in the cache, so it must be a plain name. */
function etagOf(headers: Headers, url: string): string {
  const given = headers.get('x-linked-etag') ?? headers.get('etag') ?? ''
  const etag = given.replace(/^W\//, '').replace(/^"(.*)"$/, '$1')
  if (/^[0-9A-Za-z][0-9A-Za-z._-]{0,127}$/.test(etag)) return etag
  throw new VoltaicError(
    'ERR_IO',
    `${url}: the answer names its content ${showName(given)}; expected a hash (ETag)`,
  )
}

/**
 * What the hub has under a file's name.
 * @throws UnreachableError when the network fails; ERR_IO when the hub refuses
 */
export async function lookUp(
  settings: HubSettings,
  name: string,
  revision: string,
  file: string,
): Promise<HubFile | NoHubFile> {
  const asked = `${settings.endpoint}/${name}/resolve/${encodeURIComponent(revision)}/${file}`
  const { response, url } = await askHub(settings, asked)
  const { headers, status } = response
  const commit = headers.get('x-repo-commit') ?? ''
  const isMissing = status === 404 && (headers.get('x-error-code') ?? 'EntryNotFound') === 'EntryNotFound'
  if (status >= 400 && !(isMissing && isCommit(commit))) refuseStatus(response, name, settings)
  if (!isCommit(commit)) {
    throw new VoltaicError(
      'ERR_IO',
      `${asked}: the answer names no commit (X-Repo-Commit), so this is no hub; check HF_ENDPOINT`,
    )
  }
  if (isMissing) return { commit, etag: undefined }
  const size = Number(headers.get('x-linked-size') ?? headers.get('content-length') ?? Number.NaN)
  return { commit, etag: etagOf(headers, asked), size: Number.isSafeInteger(size) ? size : undefined, url }
}

/** Bytes from `start` on, or from 0 where the store cannot do that. */
export interface Download {
  readonly start: number
  readonly pieces: AsyncIterable<Uint8Array>
}

async function* withoutStalling(
  body: AsyncIterable<Uint8Array>,
  controller: AbortController,
  timeout: number,
  origin: string,
): AsyncGenerator<Uint8Array> {
  let timer = setTimeout(() => controller.abort(new Error(`no data for ${timeout} ms`)), timeout)
  try {
    for await (const piece of body) {
      clearTimeout(timer)
      yield piece
      timer = setTimeout(() => controller.abort(new Error(`no data for ${timeout} ms`)), timeout)
    }
  } catch (cause) {
    throw new UnreachableError('ERR_IO', `${origin}: the download broke off: ${reasonOf(cause)}`, { cause })
  } finally {
    clearTimeout(timer)
  }
}

/**
 * Starts a download at byte `start`.
 * @throws UnreachableError when the network fails; ERR_IO when the store refuses
 */
export async function openDownload(settings: HubSettings, file: HubFile, start: number): Promise<Download> {
  const controller = new AbortController()
  const { signal } = controller
  const timer = setTimeout(
    () => controller.abort(new Error(`no answer for ${settings.timeout} ms`)),
    settings.timeout,
  )
  const range = start > 0 ? { range: `bytes=${start}-` } : {}
  let { url } = file
  let response: Response
  try {
    for (let count = 0; ; count++) {
      response = await ask(settings, url, { method: 'GET', headers: range, signal })
      const location = response.headers.get('location')
      if (response.status < 300 || response.status >= 400 || location === null || count === mostRedirects)
        break
      await response.body?.cancel()
      url = new URL(location, url).href
    }
  } finally {
    clearTimeout(timer)
  }
  const { origin } = new URL(url)
  if (response.status === 416 && start > 0) {
    await response.body?.cancel()
    return openDownload(settings, file, 0)
  }
  if (!response.ok || response.body === null)
    throw new UnreachableError(
      'ERR_IO',
      `${origin}: the answer to a download was ${response.status} ${response.statusText}`,
    )
  const from =
    response.status === 206
      ? Number(/^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')?.[1])
      : 0
  if (from !== 0 && from !== start)
    throw new VoltaicError('ERR_IO', `${origin}: asked for bytes from ${start}, got them from ${from}`)
  return { start: from, pieces: withoutStalling(response.body, controller, settings.timeout, origin) }
}
