// What the gpu scripts need to know of the machine: where the package is, its card, Python with PyTorch.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

export const emulated = process.env.VOLTAIC_CUDA === 'emulated' || process.argv.includes('--emulated')
if (emulated) process.env.VOLTAIC_CUDA = 'emulated'

export const cudaLibrary =
  process.env.VOLTAIC_CUDA_LIBRARY ||
  join(root, 'build-cuda', emulated ? 'libvoltaic_emulated.so' : 'libvoltaic_cuda.so')

/** What a command prints, trimmed; undefined when it does not run or fails. */
export function outputOf(command, args) {
  const { status, stdout } = spawnSync(command, args, { encoding: 'utf8' })
  return status === 0 ? stdout.trim() : undefined
}

/** Name, driver and compute capability ('90') of the first card, by nvidia-smi. */
export function card() {
  if (emulated) return undefined
  const line = outputOf('nvidia-smi', [
    '--query-gpu=name,driver_version,compute_cap,memory.total',
    '--format=csv,noheader',
  ])
  if (!line) return undefined
  const [name, driver, capability, memory] = line
    .split('\n')[0]
    .split(',')
    .map((text) => text.trim())
  return { name, driver, architecture: capability.replace('.', ''), memory }
}

/** A Python with PyTorch: VOLTAIC_PYTHON, else python3. undefined when it has none. */
export function findPython() {
  // Looking for it takes no time; importing it takes seconds.
  const looks = 'import sys, importlib.util as u; sys.exit(u.find_spec("torch") is None)'
  return [process.env.VOLTAIC_PYTHON, 'python3', '/usr/bin/python3'].find(
    (name) => name && outputOf(name, ['-c', looks]) !== undefined,
  )
}

/** A file's name from a card's: letters, digits and dashes. */
export const nameForFile = (name) => name.replace(/[^A-Za-z0-9]+/g, '-').replace(/^-|-$/g, '')

export const stamp = (date = new Date()) => date.toISOString().slice(0, 16).replace(':', '').replace('T', '-')

export const exists = (...parts) => existsSync(join(root, ...parts))
