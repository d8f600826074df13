/**
 * Native tensors as handles: allocate, run a kernel, move bytes. Everything here is queued on the device's stream and
 * returns at once; only `download` and `synchronize` wait. Handles are numbers (slot and generation): a call costs tens
 * of nanoseconds, and a handle of a freed tensor is refused instead of dangling.
 */
import { addon } from './addon.js'
import { type Device, deviceOf } from './devices.js'
import { type ErrorCode, VoltaicError } from './errors.js'

export type DType = 'float32' | 'bfloat16' | 'int32' | 'uint8'
export type Shape = readonly number[]
/** Uint16Array holds bfloat16 bits. */
export type TypedArray = Float32Array | Uint16Array | Int32Array | Uint8Array
/** A native tensor; 0 is none. */
export type Handle = number

/** The native functions behind this file; see native/addon/tensors.cpp. */
export interface TensorAddon {
  instructionSets(): string[]
  openCpu(limitBytes: number): number
  openLibrary(paths: readonly string[], needsDriver: boolean): LibraryReport
  openLibraryDevice(index: number, limitBytes: number): number
  deviceInfo(device: number): NativeDeviceInfo
  setThreads(count: number): void
  threads(): number
  processors(): number
  kernelTable(): KernelDescription[]
  bindCommand(buffer: Float64Array): void
  allocate(device: number, dtype: number, rank: number): number
  view(handle: Handle, dtype: number, rank: number, elementOffset: number): number
  release(handle: Handle): number
  contentVersion(handle: Handle): number
  run(op: number, tensorCount: number, attributeCount: number): number
  upload(handle: Handle, data: ArrayBufferView): number
  download(handle: Handle): Promise<ArrayBuffer> | number
  downloadSync(handle: Handle, into: ArrayBufferView): number
  synchronize(device: number): Promise<void> | number
  memoryStats(device: number): void
  emptyCache(device: number): number
  setMemoryLimit(device: number, bytes: number): void
  lastError(): string
}

/** What opening a backend library found. `reason` says why there is no device; empty when there is one. */
export interface LibraryReport {
  readonly devices: number
  readonly path: string
  readonly reason: string
  readonly buildInfo: string
}

export interface NativeDeviceInfo {
  readonly backend: string
  readonly buildInfo: string
  readonly name: string
  readonly instructionSet: string
  /** A library for products, its version and place, or why there is none; '' where the backend looks for none. */
  readonly matmulLibrary: string
  readonly totalBytes: number
  readonly freeBytes: number
  readonly bfloat16IsFast: boolean
}

/** One row of the kernel table: an op, its tensors in call order and its numeric attributes. */
export interface KernelDescription {
  readonly family: string
  readonly name: string
  readonly tensors: readonly {
    readonly name: string
    readonly role: 'in' | 'out' | 'inout'
    readonly optional: boolean
    readonly dtype: string
    readonly shape: string
  }[]
  readonly attributes: readonly string[]
}

const dtypeNumbers: Readonly<Record<DType, number>> = { float32: 0, bfloat16: 1, int32: 2, uint8: 3 }
const dtypeBytes: Readonly<Record<DType, number>> = { float32: 4, bfloat16: 2, int32: 4, uint8: 1 }
/** The codes of voltaic_status in native/engine/backend_abi.h, in order. */
const statusCodes: readonly ErrorCode[] = [
  'ERR_BACKEND',
  'ERR_SHAPE',
  'ERR_DTYPE',
  'ERR_DEVICE',
  'ERR_OUT_OF_MEMORY',
  'ERR_ARGUMENT',
  'ERR_DISPOSED',
  'ERR_DEVICE',
  'ERR_DEVICE',
  'ERR_DEVICE',
  'ERR_BACKEND',
  'ERR_UNSUPPORTED',
]

/** Handles, shapes and attributes of the call being made. */
const command = new Float64Array(64)
addon.bindCommand(command)

const table = addon.kernelTable()
const opNumbers = new Map(table.map((row, index) => [row.name, index]))

/** Throws the last refused call's error. */
export function fail(status: number): never {
  throw new VoltaicError(statusCodes[status] ?? 'ERR_BACKEND', addon.lastError())
}

/** Bytes of one element. */
export function bytesPerElement(dtype: DType): number {
  return dtypeBytes[dtype]
}

/** A typed array for `elements` numbers of a dtype, over a buffer when one is given. */
export function typedArray(dtype: DType, of: number | ArrayBuffer): TypedArray {
  switch (dtype) {
    case 'float32':
      return new Float32Array(of as number)
    case 'bfloat16':
      return new Uint16Array(of as number)
    case 'int32':
      return new Int32Array(of as number)
    case 'uint8':
      return new Uint8Array(of as number)
  }
}

function putShape(shape: Shape): void {
  if (shape.length > 6)
    throw new VoltaicError('ERR_SHAPE', `a tensor has at most 6 axes, got ${shape.length}`)
  for (let i = 0; i < shape.length; i++) command[i] = shape[i] as number
}

/** A new tensor whose content is not set. Throws ERR_OUT_OF_MEMORY, ERR_SHAPE. */
export function allocate(device: Device, dtype: DType, shape: Shape): Handle {
  putShape(shape)
  const handle = addon.allocate(device.id, dtypeNumbers[dtype], shape.length)
  return handle > 0 ? handle : fail(-handle)
}

/** The same memory under another shape, with a lifetime of its own. elementOffset counts elements of `dtype`. */
export function view(handle: Handle, dtype: DType, shape: Shape, elementOffset = 0): Handle {
  putShape(shape)
  const result = addon.view(handle, dtypeNumbers[dtype], shape.length, elementOffset)
  return result > 0 ? result : fail(-result)
}

/** Gives a tensor's memory back (when this was its last handle). Throws ERR_DISPOSED for a dead handle. */
export function release(handle: Handle): void {
  const status = addon.release(handle)
  if (status !== 0) fail(status)
}

/**
 * A number that grows with every write that is queued to a tensor's memory, through whichever handle: as long as it stands still,
 * what was computed from the tensor is up to date. Throws ERR_DISPOSED.
 */
export function contentVersion(handle: Handle): number {
  const version = addon.contentVersion(handle)
  return version >= 0 ? version : fail(-version)
}

/**
 * Queues an op of the kernel table. Tensors and attributes stand in the order of its row; null leaves out an optional
 * tensor. Throws ERR_SHAPE, ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED or ERR_ARGUMENT, naming op and argument. What only the
 * data shows (an index out of range) is reported by the next download or synchronize.
 */
export function run(
  op: string,
  tensors: readonly (Handle | null)[],
  attributes: readonly number[] = [],
): void {
  const number = opNumbers.get(op)
  if (number === undefined) throw new VoltaicError('ERR_ARGUMENT', `the kernel table has no op ${op}`)
  let at = 0
  for (let i = 0; i < tensors.length; i++) command[at++] = tensors[i] ?? 0
  for (let i = 0; i < attributes.length; i++) command[at++] = attributes[i] as number
  const status = addon.run(number, tensors.length, attributes.length)
  if (status !== 0) fail(status)
}

/** Copies data into a tensor: read at once, written in stream order. */
export function upload(handle: Handle, data: ArrayBufferView): void {
  const status = addon.upload(handle, data)
  if (status !== 0) fail(status)
}

/** A tensor's bytes once all queued work is done. Rejects with the error of a kernel that failed. */
export async function download(handle: Handle): Promise<ArrayBuffer> {
  const result = addon.download(handle)
  if (typeof result === 'number') return fail(-result)
  try {
    return await result
  } catch (cause) {
    throw streamError(cause)
  }
}

/** As download, but blocks the thread. */
export function downloadSync(handle: Handle, into: ArrayBufferView): void {
  const status = addon.downloadSync(handle, into)
  if (status !== 0) fail(status)
}

/** Resolves when all queued work of a device is done. */
export async function synchronize(device: Device): Promise<void> {
  const result = addon.synchronize(device.id)
  if (typeof result === 'number') return fail(-result)
  try {
    await result
  } catch (cause) {
    throw streamError(cause)
  }
}

function streamError(cause: unknown): VoltaicError {
  const { code, message } = cause as { code: ErrorCode; message: string }
  return new VoltaicError(code, message)
}

/** Memory of one device in this thread. */
export interface MemoryStats {
  /** In live tensors, rounded up to the allocator's size classes. */
  readonly allocatedBytes: number
  readonly peakAllocatedBytes: number
  /** Taken from the system: live and cached. */
  readonly reservedBytes: number
  readonly peakReservedBytes: number
  /** Tensors asked for, ever. */
  readonly allocations: number
  /** Times the system was asked for memory, ever: stands still in a steady training loop. */
  readonly systemAllocations: number
  readonly limitBytes: number
  /** Live tensors, views included, of all devices. */
  readonly tensors: number
}

export function memoryStats(device?: Device): MemoryStats {
  addon.memoryStats((device ?? deviceOf('cpu')).id)
  const [a, b, c, d, e, f, g, h] = command as unknown as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ]
  return {
    allocatedBytes: a,
    peakAllocatedBytes: b,
    reservedBytes: c,
    peakReservedBytes: d,
    allocations: e,
    systemAllocations: f,
    limitBytes: g,
    tensors: h,
  }
}

/** Gives cached memory back to the system; waits for queued work. */
export function emptyCache(device: Device): void {
  const status = addon.emptyCache(device.id)
  if (status !== 0) fail(status)
}

/** Most bytes a device's tensors may take, cache included; 0 is no limit. */
export function setMemoryLimit(device: Device, bytes: number): void {
  if (!(bytes >= 0 && bytes <= Number.MAX_SAFE_INTEGER))
    throw new VoltaicError('ERR_ARGUMENT', `the memory limit is ${bytes}, expected bytes, 0 or more`)
  addon.setMemoryLimit(device.id, bytes)
}

/** Threads of the CPU kernels, this process over. Never changes a result. */
export function setThreads(count: number): void {
  if (!Number.isInteger(count) || count < 1)
    throw new VoltaicError('ERR_ARGUMENT', `threads must be a whole number of 1 or more, got ${count}`)
  addon.setThreads(count)
}

export function threads(): number {
  return addon.threads()
}

/** The kernel table: every op with its signature. */
export function kernelTable(): readonly KernelDescription[] {
  return table
}
