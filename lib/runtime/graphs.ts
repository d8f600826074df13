/**
 * Captured graphs: a run of kernels that is noted down once and then launched again and again as one, which costs the host next to
 * nothing. A graph keeps the addresses that it was captured with, so whatever changes from launch to launch is uploaded into tensors
 * made before, and what is made inside stays the graph's.
 */
import { addon } from './addon.js'
import type { Device } from './devices.js'
import { type ErrorCode, VoltaicError } from './errors.js'
import { fail } from './tensors.js'

/** The native functions behind this file; see native/addon/graphs.cpp. */
export interface GraphAddon {
  canCapture(device: number): boolean
  beginCapture(device: number, like: number): number
  endCapture(device: number, keep: boolean): number
  launchGraph(graph: number): number
  releaseGraph(graph: number): number
  getSetting(device: number, name: string): Promise<string> | number
  setSetting(device: number, name: string, text: string): Promise<void> | number
  beginProfile(device: number): Promise<void> | number
  endProfile(device: number): Promise<string> | number
}

const finalizers = new FinalizationRegistry<number>((graph) => {
  addon.releaseGraph(graph)
})

/** See `capture`. */
export class CapturedGraph {
  readonly device: Device
  readonly #number: number
  #disposed = false

  /** @internal */
  constructor(device: Device, number: number) {
    this.device = device
    this.#number = number
    finalizers.register(this, number, this)
  }

  get disposed(): boolean {
    return this.#disposed
  }

  /** @internal */
  get number(): number {
    return this.#disposed ? -1 : this.#number
  }

  /** Queues all of it once more. Reads that are queued next see its results. @throws ERR_DISPOSED */
  launch(): void {
    const status = addon.launchGraph(this.number)
    if (status !== 0) fail(status)
  }

  /** Frees the graph, and its memory once the tensors made inside are freed, too. Twice is harmless. */
  dispose(): void {
    if (this.#disposed) return
    const status = addon.releaseGraph(this.#number)
    if (status !== 0) fail(status)
    this.#disposed = true
    finalizers.unregister(this)
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

export interface CaptureOptions {
  /**
   * Shares the memory of another graph of this device: what is free inside of that one may be used inside of this one. Launching
   * either then overwrites what the other left, so read a launch's results before the other's is queued.
   */
  readonly sharing?: CapturedGraph | undefined
}

/** Whether a device captures graphs. VOLTAIC_GRAPHS=off says no for all of them. */
export function canCapture(device: Device): boolean {
  return process.env.VOLTAIC_GRAPHS !== 'off' && addon.canCapture(device.id)
}

/**
 * Runs `body` once and notes down the kernels that it queues on `device`; they are not done before the graph is launched. Blocks until
 * the graph is there. `body` moves no data: uploads, reads and waiting are refused inside, and the capture fails with what was
 * refused. Tensors that it uses but does not make must live as long as the graph; those that it makes belong to the graph's memory,
 * and hold their values from the first launch on.
 *
 * @throws what `body` throws; ERR_ARGUMENT for something that cannot be captured, ERR_UNSUPPORTED where the device captures none;
 * nothing is left of the graph then
 */
export function capture(device: Device, body: () => void, options: CaptureOptions = {}): CapturedGraph {
  if (process.env.VOLTAIC_GRAPHS === 'off')
    throw new VoltaicError('ERR_UNSUPPORTED', 'capture: turned off with VOLTAIC_GRAPHS=off')
  const number = addon.beginCapture(device.id, options.sharing?.number ?? 0)
  if (number < 0) fail(-number)
  let done = false
  try {
    const result: unknown = body()
    if (typeof (result as PromiseLike<unknown> | undefined)?.then === 'function') {
      Promise.resolve(result as PromiseLike<unknown>).catch(() => undefined)
      throw new VoltaicError(
        'ERR_ARGUMENT',
        'capture: the body is asynchronous; what comes after an await could not be captured',
      )
    }
    done = true
  } finally {
    if (!done) addon.endCapture(device.id, false)
  }
  const status = addon.endCapture(device.id, true)
  if (status !== 0) fail(status)
  return new CapturedGraph(device, number)
}

/** The result of a native call that answers with a promise, or minus a status. */
export async function settled<T>(result: Promise<T> | number): Promise<T> {
  if (typeof result === 'number') return fail(-result)
  try {
    return await result
  } catch (cause) {
    const { code, message } = cause as { code: ErrorCode; message: string }
    throw new VoltaicError(code, message)
  }
}

/**
 * A choice that decides a device's bits beside build and card, as text; '' where there is none. `matmul`: which of a matmul library's
 * algorithms are used.
 */
export function deviceSetting(device: Device, name: string): Promise<string> {
  return settled(addon.getSetting(device.id, name))
}

/**
 * Takes such a text back; for `matmul` also 'tune': algorithms are timed at their first use.
 * @throws ERR_UNSUPPORTED when the device has no such setting, or the text is of another library or card
 */
export function setDeviceSetting(device: Device, name: string, text: string): Promise<void> {
  return settled(addon.setSetting(device.id, name, text))
}
