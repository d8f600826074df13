/** Files read as memory: nothing is copied, pages come in as they are touched, and several processes share them. */
import { constants } from 'node:buffer'
import { readFileSync, statSync } from 'node:fs'
import { getSystemErrorName } from 'node:util'
import { addon } from './addon.js'
import { VoltaicError } from './errors.js'

/** The native functions of native/addon/files.cpp. */
export interface FileAddon {
  /** Maps a file privately. Throws an Error with a negative `errno`. */
  mapFile(path: string): ArrayBuffer
  /** Unmaps and detaches at once; twice is harmless. */
  unmapFile(buffer: ArrayBuffer): void
  /** Swaps two paths in one step; false where the file system cannot. */
  exchangePaths(first: string, second: string): boolean
}

export interface MapFileOptions {
  /**
   * Read the file into ordinary memory instead of mapping it. Default false. Use it for a file that another program may cut short
   * while it is open here: reading a lost page of a mapped file ends the process (SIGBUS), which no library can prevent.
   */
  readonly copy?: boolean
}

export interface MappedFile {
  readonly path: string
  readonly byteLength: number
  /** The whole file. Writing to it changes this process's copy only. Throws ERR_DISPOSED after `close`. */
  readonly bytes: Uint8Array
  /** Gives the memory back at once. Views taken from `bytes` have length 0 from here on. Twice is harmless. */
  close(): void
  [Symbol.dispose](): void
}

/** The system's name of an error (ENOENT, ENOSPC, ...), or undefined when it is no system error. */
export function systemErrorName(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined
  const { code, errno } = error as NodeJS.ErrnoException
  if (typeof errno === 'number' && errno < 0) return getSystemErrorName(errno)
  return typeof code === 'string' && /^E[A-Z0-9]+$/.test(code) ? code : undefined
}

const remedies: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or folder; check the path',
  ENOTDIR: 'a part of the path is a file, not a folder; check the path',
  EEXIST: 'a file of that name is in the way; remove it or choose another place',
  EISDIR: 'this is a folder, a file is needed',
  ENODEV: 'not a regular file; copy its content to one',
  EACCES: 'permission denied; check the owner and mode, or choose another place',
  EPERM: 'operation not permitted; check the owner and mode, or choose another place',
  EROFS: 'the file system is read-only; choose another place',
  ENOSPC: 'no space is left; free some and run again',
  EDQUOT: 'the disk quota is used up; free some space and run again',
  EFBIG: 'the file would pass the size limit (ulimit -f, or the file system); raise it and run again',
  EMFILE: 'too many open files; close some or raise the limit (ulimit -n)',
  EIO: 'the device reports a read or write error; check the disk',
  ENOMEM: 'not enough memory or address space to map the file; free some',
}

/** Puts a system error into words: the operation, the path, the system's name for it, and what to do. */
export function ioError(operation: string, path: string, cause: unknown): VoltaicError {
  if (cause instanceof VoltaicError) return cause
  const name = systemErrorName(cause)
  const reason = cause instanceof Error ? cause.message : String(cause)
  const remedy = name === undefined ? undefined : remedies[name]
  const advice = remedy === undefined ? reason : `${name}: ${remedy}`
  return new VoltaicError('ERR_IO', `${operation} ${path}: ${advice}`, { cause })
}

function wholeFile(path: string, copy: boolean): ArrayBuffer {
  try {
    const { size } = statSync(path)
    if (size > constants.MAX_LENGTH) {
      throw new VoltaicError(
        'ERR_UNSUPPORTED',
        `read ${path}: ${size} bytes, but this Node shows at most ${constants.MAX_LENGTH} bytes of memory at once; ` +
          'split the file (safetensors: save it in shards), or use Node 22 or later',
      )
    }
    if (!copy) return addon.mapFile(path)
    const content = readFileSync(path)
    // A small read comes from Node's shared pool, where closing would detach strangers' bytes.
    if (content.byteLength === content.buffer.byteLength) return content.buffer as ArrayBuffer
    return Uint8Array.prototype.slice.call(content).buffer as ArrayBuffer
  } catch (cause) {
    throw ioError('read', path, cause)
  }
}

/**
 * Maps a file into memory, read-only in effect (a stray write stays in this process). An empty file has 0 bytes.
 * Freed by `close`, by `using`, or when nothing refers to it any more.
 * @throws ERR_IO when the file cannot be read, ERR_UNSUPPORTED when it is larger than this Node can show (4 GiB in Node 20).
 */
export function mapFile(path: string, options: MapFileOptions = {}): MappedFile {
  const buffer = wholeFile(path, options.copy ?? false)
  const bytes = new Uint8Array(buffer)
  const byteLength = buffer.byteLength
  let closed = false
  const close = (): void => {
    if (closed) return
    closed = true
    addon.unmapFile(buffer)
  }
  return {
    path,
    byteLength,
    get bytes(): Uint8Array {
      if (closed) throw new VoltaicError('ERR_DISPOSED', `read ${path}: the mapped file is closed already`)
      return bytes
    },
    close,
    [Symbol.dispose]: close,
  }
}
