/**
 * One file from the hub into the cache's blobs: written aside, its hash compared, renamed into place. What a broken download left
 * is taken up by the next one, in this process or another; two at once never write the same file.
 */
import { createHash, type Hash } from 'node:crypto'
import { createReadStream, existsSync } from 'node:fs'
import { type FileHandle, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { threadId } from 'node:worker_threads'
import { isAlive, syncFolder, writeFully } from '../runtime/atomic-file.js'
import { VoltaicError } from '../runtime/errors.js'
import { makeFolder } from '../runtime/make-folder.js'
import { ioError, systemErrorName } from '../runtime/mapped-file.js'
import type { HubSettings } from './hub-cache.js'
import { type HubFile, openDownload } from './hub-client.js'

export type OnBytes = (received: number, total: number | undefined) => void

/** The hash that an etag is, ready to take the content; undefined where it is none, or needs a size that is not known. */
function hashFor({ etag, size }: HubFile): Hash | undefined {
  if (/^[0-9a-f]{64}$/.test(etag)) return createHash('sha256')
  if (/^[0-9a-f]{40}$/.test(etag) && size !== undefined) return createHash('sha1').update(`blob ${size}\0`)
  return undefined
}

/** Gives a broken download of this blob our own name, so that nobody else goes on with it; gives that name. */
async function claimPartial(blob: string): Promise<string> {
  const own = `${blob}.${process.pid}-${threadId}.incomplete`
  const pattern = /\.(?:(\d+)-\d+\.)?incomplete$/
  for (const name of await readdir(dirname(blob))) {
    const match = name.startsWith(`${basename(blob)}.`) ? pattern.exec(name) : null
    if (match === null || (match[1] !== undefined && isAlive(Number(match[1])))) continue
    try {
      await rename(join(dirname(blob), name), own)
      break
    } catch (error) {
      // Another process claimed it first.
      if (systemErrorName(error) !== 'ENOENT') throw error
    }
  }
  return own
}

async function hashExisting(path: string, length: number, hash: Hash | undefined): Promise<void> {
  if (length === 0 || hash === undefined) return
  for await (const piece of createReadStream(path, { end: length - 1 })) hash.update(piece)
}

async function fill(
  handle: FileHandle,
  path: string,
  settings: HubSettings,
  file: HubFile,
  onBytes: OnBytes,
): Promise<void> {
  const { size, url, etag } = file
  const { size: kept } = await handle.stat()
  // A complete one only has to be checked.
  let received = kept
  const hash = hashFor(file)
  if (size === undefined || kept !== size) {
    const { start, pieces } = await openDownload(settings, file, size !== undefined && kept < size ? kept : 0)
    received = start
    await handle.truncate(start)
    await hashExisting(path, start, hash)
    for await (const piece of pieces) {
      received += piece.byteLength
      if (size !== undefined && received > size) break
      hash?.update(piece)
      await writeFully(handle, piece)
      onBytes(received, size)
    }
  } else {
    await hashExisting(path, kept, hash)
  }
  const isWhole =
    (size === undefined || received === size) && (hash === undefined || hash.digest('hex') === etag)
  if (isWhole) return handle.sync()
  // What is wrong somewhere cannot be gone on with.
  if (size === undefined || received >= size) await handle.truncate(0)
  throw new VoltaicError(
    'ERR_IO',
    `${url}: received ${received} bytes${size === undefined ? '' : ` of ${size}`}, or others than its hash ${etag} says; run again`,
  )
}

async function download(settings: HubSettings, blob: string, file: HubFile, onBytes: OnBytes): Promise<void> {
  makeFolder(dirname(blob))
  const own = await claimPartial(blob)
  try {
    const handle = await open(own, 'a+')
    try {
      await fill(handle, own, settings, file, onBytes)
    } finally {
      await handle.close()
    }
    await rename(own, blob)
    await syncFolder(dirname(blob))
  } catch (error) {
    const left = await stat(own).catch(() => undefined)
    if (left?.size) await rename(own, `${blob}.incomplete`).catch(() => undefined)
    else await rm(own, { force: true })
    throw systemErrorName(error) === undefined ? error : ioError('download to', blob, error)
  }
}

const underWay = new Map<string, Promise<void>>()

/**
 * Makes sure that a blob is in the cache. Callers that ask for the same one at the same time share the download.
 * @throws ERR_IO when the network or the disk fails, or the content is not what its hash says
 */
export function fetchBlob(
  settings: HubSettings,
  blob: string,
  file: HubFile,
  onBytes: OnBytes = () => undefined,
): Promise<void> {
  if (existsSync(blob)) return Promise.resolve()
  let running = underWay.get(blob)
  if (running === undefined) {
    running = download(settings, blob, file, onBytes).finally(() => underWay.delete(blob))
    underWay.set(blob, running)
  }
  return running
}
