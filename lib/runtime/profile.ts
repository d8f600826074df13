/** Where the time of queued work goes, kernel by kernel. */
import { addon } from './addon.js'
import type { Device } from './devices.js'
import { settled } from './graphs.js'

/** All calls of an op with tensors of the same dtypes and shapes. */
export interface KernelProfile {
  /** The op's name in the kernel table; 'captured graph' for the launch of one. */
  readonly op: string
  /** dtype and shape of each tensor in the order of the kernel table: 'f32[4096,256]'; '-' for one that was left out. */
  readonly tensors: readonly string[]
  readonly calls: number
  /** Of all calls together. */
  readonly seconds: number
}

export interface Profile<T> {
  /** What `body` gave. */
  readonly result: T
  /** Most time first. */
  readonly kernels: readonly KernelProfile[]
  /** From the first kernel's queueing to the end of the last. */
  readonly seconds: number
}

/**
 * Runs `body` and times each kernel that it queues on `device`; work that was queued before is waited for first. On a CUDA device
 * each kernel is waited for, so the whole takes longer than without a profile. One profile of a device at a time.
 * @throws what `body` throws; the error of a kernel
 */
export async function profile<T>(device: Device, body: () => T | Promise<T>): Promise<Profile<T>> {
  await settled(addon.beginProfile(device.id))
  const begin = performance.now()
  let text = ''
  let result: T
  try {
    result = await body()
  } finally {
    text = await settled(addon.endProfile(device.id))
  }
  const seconds = (performance.now() - begin) / 1000
  const kernels = text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [what, calls, time] = line.split('\t') as [string, string, string]
      const [op, ...tensors] = what === 'captured graph' ? [what] : (what.split(' ') as [string, ...string[]])
      return { op, tensors, calls: Number(calls), seconds: Number(time) }
    })
    .sort((a, b) => b.seconds - a.seconds)
  return { result, kernels, seconds }
}
