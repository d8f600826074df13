/** Devices: the CPU, and those of a backend library (CUDA). Opened when first asked for, once in each thread. */
import { existsSync } from 'node:fs'
import { homedir, totalmem } from 'node:os'
import { join } from 'node:path'
import { packageVersion } from '../version.js'
import { addon, packageRoot } from './addon.js'
import { VoltaicError } from './errors.js'
import type { LibraryReport, NativeDeviceInfo } from './tensors.js'

export interface Device {
  readonly kind: 'cpu' | 'cuda'
  readonly index: number
  /** The native number of the device in this thread. */
  readonly id: number
  /** 'cpu', 'cuda:0' */
  readonly name: string
}

export type DeviceName = 'auto' | 'cpu' | 'cuda' | `cuda:${number}`

const opened = new Map<string, Device>()

/** Bytes that tensors may take: VOLTAIC_MEMORY_LIMIT (as 8G, 500M or bytes), else four fifths of the memory there is. */
function memoryLimit(totalBytes: number): number {
  const setting = process.env.VOLTAIC_MEMORY_LIMIT
  if (!setting) return Math.floor(totalBytes * 0.8)
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)B?$/i.exec(setting.trim())
  if (!match)
    throw new VoltaicError(
      'ERR_CONFIG',
      `VOLTAIC_MEMORY_LIMIT is '${setting}', expected a number of bytes such as 8G or 500M`,
    )
  return Math.floor(Number(match[1]) * 1024 ** ' KMGT'.indexOf((match[2] || ' ').toUpperCase()))
}

function systemMemory(): number {
  const constrained = process.constrainedMemory?.() ?? 0
  return constrained > 0 && constrained < totalmem() ? constrained : totalmem()
}

function openCpu(): number {
  try {
    return addon.openCpu(memoryLimit(systemMemory()))
  } catch (cause) {
    if (cause instanceof VoltaicError) throw cause
    throw new VoltaicError('ERR_DEVICE', (cause as Error).message, { cause })
  }
}

export const cudaLibraryFile = 'libvoltaic_cuda.so'

/** Folders for a CUDA library built on this machine: the package's own, or where that cannot be written to, the user's. */
export function cudaBuildFolders(): readonly [ofPackage: string, ofUser: string] {
  const cache = process.env.XDG_CACHE_HOME || join(homedir(), '.cache')
  return [join(packageRoot, 'build-cuda'), join(cache, 'voltaic', packageVersion)]
}

/** Where the CUDA backend may lie: VOLTAIC_CUDA_LIBRARY, a build on this machine, the package's prebuild. */
function libraryCandidates(emulated: boolean): string[] {
  const [ofPackage, ofUser] = cudaBuildFolders()
  const candidates = emulated
    ? [join(ofPackage, 'libvoltaic_emulated.so')]
    : [ofPackage, ofUser, join(packageRoot, 'prebuilds', `${process.platform}-${process.arch}`)].map(
        (folder) => join(folder, cudaLibraryFile),
      )
  const named = process.env.VOLTAIC_CUDA_LIBRARY
  return named ? [named, ...candidates] : candidates
}

let library: LibraryReport | undefined

function openLibrary(): LibraryReport {
  const emulated = process.env.VOLTAIC_CUDA === 'emulated'
  const candidates = libraryCandidates(emulated)
  const report = addon.openLibrary(candidates, !emulated)
  if (report.path !== '' || candidates.some((path) => existsSync(path))) return report
  // A driver, but no library: say how to get one.
  if (emulated)
    return { ...report, reason: `${candidates.at(-1)} is not there: build it with npm run build:emulator` }
  if (report.reason.includes('no backend library'))
    return { ...report, reason: `${report.reason}; build one with npx voltaic build-cuda` }
  return report
}

/** Whether CUDA devices can be used, and why not. Never throws. VOLTAIC_CUDA=off turns the look-up off. */
export function cudaReport(): LibraryReport {
  if (process.env.VOLTAIC_CUDA === 'off')
    return { devices: 0, path: '', reason: 'turned off with VOLTAIC_CUDA=off', buildInfo: '' }
  library ??= openLibrary()
  return library
}

function openCard(index: number): number {
  try {
    return addon.openLibraryDevice(index, memoryLimit(0))
  } catch (cause) {
    if (cause instanceof VoltaicError) throw cause
    throw new VoltaicError('ERR_DEVICE', `cuda:${index} cannot be used: ${(cause as Error).message}`, {
      cause,
    })
  }
}

/** The device of a name, opened. Throws ERR_DEVICE with the reason when it cannot be used. */
export function deviceOf(name: 'cpu' | 'cuda' | `cuda:${number}`): Device {
  const full = name === 'cuda' ? 'cuda:0' : name
  const known = opened.get(full)
  if (known) return known
  let device: Device
  if (full === 'cpu') {
    device = { kind: 'cpu', index: 0, id: openCpu(), name: 'cpu' }
  } else {
    const index = /^cuda:(\d+)$/.exec(full)?.[1]
    if (index === undefined)
      throw new VoltaicError('ERR_DEVICE', `'${name}' names no device; expected auto, cpu, cuda or cuda:N`)
    const report = cudaReport()
    if (Number(index) >= report.devices)
      throw new VoltaicError(
        'ERR_DEVICE',
        `${full} cannot be used: ${report.reason || `there are ${report.devices} CUDA devices`}`,
      )
    device = {
      kind: 'cuda',
      index: Number(index),
      id: openCard(Number(index)),
      name: full,
    }
  }
  opened.set(full, device)
  return device
}

/** 'auto' is the first CUDA device that works, else the CPU. */
export function resolveDevice(name: DeviceName = 'auto'): Device {
  if (name !== 'auto') return deviceOf(name)
  return cudaReport().devices > 0 ? deviceOf('cuda') : deviceOf('cpu')
}

/** What a device is: its name, instruction set, memory, and whether it multiplies bf16 faster than fp32. */
export function deviceInfo(device: Device): NativeDeviceInfo {
  return addon.deviceInfo(device.id)
}

/** The CPU instruction sets that this build holds and this processor runs, best last. */
export function instructionSets(): readonly string[] {
  return addon.instructionSets()
}

/** Processors this process may use: affinity and container limits respected. */
export function processors(): number {
  return addon.processors()
}
