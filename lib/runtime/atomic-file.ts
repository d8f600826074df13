/**
 * Files and folders that are either the old one or the new one, whole, whenever the process or the machine stops.
 *
 * What is new is written aside in the same folder (`.NAME.PID-THREAD-COUNT.tmp`), synced, renamed into place, and the folder
 * synced. A folder that replaces another is exchanged with it in one step where the file system can; where it cannot, the old one
 * steps aside as `.NAME.PID-THREAD-COUNT.old`, and `removeLeftovers` puts it back if the process died between the two renames.
 */
import type { Dirent } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { threadId } from 'node:worker_threads'
import { addon } from './addon.js'
import { VoltaicError } from './errors.js'
import { ioError, systemErrorName } from './mapped-file.js'

/** One write call moves at most this much: Node refuses 2 GiB, and a long write should not hold the pool's thread for seconds. */
const writeSize = 64 * 1024 * 1024

const leftoverName = /^\.(.+)\.(\d+)-(\d+)-(\d+)\.(tmp|old)$/

let count = 0

function asideName(path: string, ending: 'tmp' | 'old'): string {
  count += 1
  return join(dirname(path), `.${basename(path)}.${process.pid}-${threadId}-${count}.${ending}`)
}

/** Runs `create` with fresh names until one is free: a container may give a dead process's number to this one. */
async function createAside<T>(path: string, create: (aside: string) => Promise<T>): Promise<[string, T]> {
  for (;;) {
    const aside = asideName(path, 'tmp')
    try {
      return [aside, await create(aside)]
    } catch (error) {
      if (systemErrorName(error) !== 'EEXIST') throw ioError('write', path, error)
    }
  }
}

/** A system error becomes ERR_IO with the path; everything else passes as it is. */
function explain(path: string, error: unknown): unknown {
  return systemErrorName(error) === undefined ? error : ioError('write', path, error)
}

async function removeQuietly(path: string): Promise<void> {
  // The error that led here says more than a second one from the cleaning; removeLeftovers comes by later.
  await rm(path, { recursive: true, force: true }).catch(() => undefined)
}

/** Syncs the list of names in a folder, so that a rename outlives a power cut. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } catch (error) {
    // Some network file systems sync names by themselves and refuse the call.
    if (!['EINVAL', 'ENOTSUP', 'EOPNOTSUPP'].includes(systemErrorName(error) ?? '')) throw error
  } finally {
    await handle.close()
  }
}

/** Writes all of `bytes` at the handle's position, in pieces. */
export async function writeFully(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  let offset = 0
  while (offset < bytes.byteLength) {
    const length = Math.min(writeSize, bytes.byteLength - offset)
    const { bytesWritten } = await handle.write(bytes, offset, length)
    offset += bytesWritten
  }
}

/**
 * Replaces or creates a file in one step. `data` is the content, or a function that writes it to the handle it is given.
 * Whatever fails (a full disk, an error thrown by `data`), the old file stays as it was and nothing is left beside it.
 * @throws ERR_IO with the path, the system's reason and what to do.
 */
export async function writeFileAtomically(
  path: string,
  data: string | Uint8Array | ((handle: FileHandle) => Promise<void>),
): Promise<void> {
  const [aside, handle] = await createAside(path, (name) => open(name, 'wx'))
  try {
    try {
      if (typeof data === 'function') await data(handle)
      else await writeFully(handle, typeof data === 'string' ? Buffer.from(data) : data)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(aside, path)
  } catch (error) {
    await removeQuietly(aside)
    throw explain(path, error)
  }
  await syncFolder(dirname(path)).catch((error) => {
    throw explain(path, error)
  })
}

async function syncTree(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) await syncTree(path)
    else if (entry.isFile()) {
      const handle = await open(path, 'r')
      try {
        await handle.sync()
      } finally {
        await handle.close()
      }
    }
  }
  await syncFolder(folder)
}

async function replaceFolder(path: string, aside: string): Promise<void> {
  const existing = await stat(path).catch((error) => {
    if (systemErrorName(error) === 'ENOENT') return undefined
    throw error
  })
  if (existing === undefined) {
    await rename(aside, path)
    return syncFolder(dirname(path))
  }
  if (!existing.isDirectory()) {
    throw new VoltaicError(
      'ERR_IO',
      `write ${path}: a file of that name is in the way of the folder; remove it or choose another name`,
    )
  }
  if (addon.exchangePaths(aside, path)) {
    await syncFolder(dirname(path))
    return removeQuietly(aside)
  }
  const old = asideName(path, 'old')
  await rename(path, old)
  try {
    await rename(aside, path)
  } catch (error) {
    await rename(old, path)
    throw error
  }
  await syncFolder(dirname(path))
  await removeQuietly(old)
}

/**
 * Replaces or creates a folder in one step. `fill` writes its files into the temporary folder it is given; all are synced before
 * the new folder takes its place. Whatever fails, the old folder stays as it was. The parent folder must exist.
 * @throws ERR_IO with the path, the system's reason and what to do.
 */
export async function writeFolderAtomically(
  path: string,
  fill: (temporaryFolder: string) => Promise<void>,
): Promise<void> {
  const [aside] = await createAside(path, (name) => mkdir(name))
  try {
    await fill(aside)
    await syncTree(aside)
    await replaceFolder(path, aside)
  } catch (error) {
    await removeQuietly(aside)
    throw explain(path, error)
  }
}

/** Whether a process of this number runs. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return systemErrorName(error) !== 'ESRCH'
  }
}

/** Whether the process that wrote `path` under the number `pid` is gone. */
async function isOrphan(path: string, pid: number): Promise<boolean> {
  if (pid !== process.pid) return !isAlive(pid)
  // Our own number: ours, or a predecessor's in a container where numbers start again. Older than this process is not ours.
  const processStart = Date.now() - process.uptime() * 1000
  const { ctimeMs } = await stat(path)
  return ctimeMs < processStart
}

async function settle(folder: string, entry: Dirent): Promise<string | undefined> {
  const [, name = '', pid, , , ending] = leftoverName.exec(entry.name) ?? []
  if (pid === undefined) return undefined
  const path = join(folder, entry.name)
  try {
    if (!(await isOrphan(path, Number(pid)))) return undefined
    const target = join(folder, name)
    if (ending === 'old' && (await stat(target).catch(() => undefined)) === undefined) {
      await rename(path, target)
    } else {
      await rm(path, { recursive: true, force: true })
    }
    return entry.name
  } catch (error) {
    // Another process may have cleaned up first.
    if (systemErrorName(error) === 'ENOENT') return undefined
    throw ioError('remove', path, error)
  }
}

/**
 * Removes what writers that died left in `folder`, and puts a replaced folder back whose successor never came. What living
 * processes are writing stays. Gives the names it dealt with; a folder that does not exist has none.
 */
export async function removeLeftovers(folder: string): Promise<string[]> {
  let entries: Dirent[]
  try {
    entries = await readdir(folder, { withFileTypes: true })
  } catch (error) {
    if (systemErrorName(error) === 'ENOENT') return []
    throw ioError('read', folder, error)
  }
  const settled: string[] = []
  for (const entry of entries) {
    const name = await settle(folder, entry)
    if (name !== undefined) settled.push(name)
  }
  return settled.sort()
}
