/** Loads the native addon: build/Release first (a checkout), then prebuilds/<platform>-<arch>. */
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { VoltaicError } from './errors.js'
import type { GraphAddon } from './graphs.js'
import type { FileAddon } from './mapped-file.js'
import type { TensorAddon } from './tensors.js'
import type { TextAddon } from './tokenizer.js'

export interface Addon extends TensorAddon, GraphAddon, TextAddon, FileAddon {}

function findPackageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'binding.gyp')) && folder !== dirname(folder)) folder = dirname(folder)
  return folder
}

/** The folder that holds package.json, native sources and prebuilds. */
export const packageRoot: string = findPackageRoot()

function load(): Addon {
  const require = createRequire(import.meta.url)
  try {
    return require('node-gyp-build')(packageRoot) as Addon
  } catch (cause) {
    throw new VoltaicError(
      'ERR_BACKEND',
      `the native addon for ${process.platform}-${process.arch} (Node ${process.versions.node}) does not load: ` +
        `${cause instanceof Error ? cause.message.split('\n')[0] : cause}. Install again with scripts allowed ` +
        '(npm rebuild voltaic), or build it in the package folder with: npx node-gyp rebuild ' +
        '(needs a C++20 compiler, make and Python 3)',
      { cause },
    )
  }
}

export const addon: Addon = load()
