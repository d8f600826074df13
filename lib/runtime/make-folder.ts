/** Making folders, the ones above them too. Node's own `recursive` form never returns on file systems that refuse with ENOENT. */
import { mkdirSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { ioError, systemErrorName } from './mapped-file.js'

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
}

/**
 * Makes a folder where there is none yet, and those above it.
 * @throws ERR_IO with the path, the system's reason and what to do
 */
export function makeFolder(path: string): void {
  const missing: string[] = []
  try {
    for (let folder = resolve(path); !isFolder(folder); folder = dirname(folder)) {
      missing.unshift(folder)
      if (folder === dirname(folder)) break
    }
    for (const folder of missing) {
      try {
        mkdirSync(folder)
      } catch (cause) {
        // Another process may have made it in the meantime.
        if (systemErrorName(cause) !== 'EEXIST' || !isFolder(folder)) throw cause
      }
    }
  } catch (cause) {
    throw ioError('make', path, cause)
  }
}
