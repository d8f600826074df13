/**
 * A log file that only grows, one whole record at a time, and that can be cut back to where a checkpoint saw it. A record that could
 * not be written whole (a full disk) is taken back, so that the next one does not start in its middle.
 */
import { closeSync, fstatSync, fsync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { promisify } from 'node:util'
import { VoltaicError } from '../runtime/errors.js'
import { ioError } from '../runtime/mapped-file.js'

const sync = promisify(fsync)

export interface AppendFile {
  readonly path: string
  /** Bytes written so far: what a checkpoint records, after `sync`. */
  readonly position: number
  append(record: Uint8Array): void
  /** Resolves when everything appended so far would survive a power cut. */
  sync(): Promise<void>
  /** Cuts the file to its first `position` bytes. ERR_FORMAT when it is shorter: records are missing. */
  truncateTo(position: number): void
  close(): void
}

/** Opens a file for appending, creating it where it is not there. */
export function openAppendFile(path: string): AppendFile {
  const attempt = <T>(run: () => T): T => {
    try {
      return run()
    } catch (cause) {
      throw ioError('write', path, cause)
    }
  }
  const file = attempt(() => openSync(path, 'a+'))
  let position = attempt(() => fstatSync(file).size)
  let closed = false
  const requireOpen = (): void => {
    if (closed) throw new VoltaicError('ERR_DISPOSED', `write ${path}: the log is closed already`)
  }

  const append = (record: Uint8Array): void => {
    requireOpen()
    let written = 0
    try {
      while (written < record.byteLength) written += writeSync(file, record, written)
      position += written
    } catch (cause) {
      if (written > 0) ftruncateSync(file, position)
      throw ioError('write', path, cause)
    }
  }

  const truncateTo = (target: number): void => {
    requireOpen()
    if (target > position) {
      throw new VoltaicError(
        'ERR_FORMAT',
        `${path}: ${position} bytes, but the checkpoint saw ${target}: records are missing. Put the file back, ` +
          'or start the run afresh in another folder',
      )
    }
    if (target < position) attempt(() => ftruncateSync(file, target))
    position = target
  }

  return {
    path,
    get position(): number {
      return position
    },
    append,
    async sync(): Promise<void> {
      requireOpen()
      await sync(file).catch((cause) => {
        throw ioError('write', path, cause)
      })
    },
    truncateTo,
    close(): void {
      if (!closed) closeSync(file)
      closed = true
    },
  }
}
