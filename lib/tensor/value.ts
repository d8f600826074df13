/**
 * A native tensor with a count of those who hold it: Tensors, the tape's saved inputs and gradients under way. The memory goes back
 * to the allocator when the last one lets go; the finalizer is the net for what is forgotten outside scopes.
 */
import {
  allocate,
  type Device,
  type DType,
  type Handle,
  release,
  run,
  type Shape,
  VoltaicError,
  view as viewHandle,
} from '../runtime/index.js'
import { sizeOf } from './shapes.js'

export class Value {
  readonly handle: Handle
  readonly dtype: DType
  readonly shape: Shape
  readonly size: number
  readonly device: Device
  /** The value whose memory this one shows; null when it is its own. */
  readonly base: Value | null
  references = 1
  /** Whether the finalizer knows it. */
  guarded = false

  constructor(handle: Handle, dtype: DType, shape: Shape, device: Device, base: Value | null) {
    this.handle = handle
    this.dtype = dtype
    this.shape = shape
    this.size = sizeOf(shape)
    this.device = device
    this.base = base
  }
}

const finalizers = new FinalizationRegistry<Handle>((handle) => release(handle))

/** Lets the finalizer release the value when nobody refers to it any more. Inside scopes this is not needed. */
export function guard(value: Value): Value {
  if (!value.guarded) {
    value.guarded = true
    finalizers.register(value, value.handle, value)
    if (value.base !== null) guard(value.base)
  }
  return value
}

export function newValue(device: Device, dtype: DType, shape: Shape): Value {
  return (
    valueIfRoom(device, dtype, shape, giveUpSpare) ??
    new Value(allocate(device, dtype, shape), dtype, shape, device, null)
  )
}

/** The same, or null where memory is short and `onShort` says so. */
export function valueIfRoom(
  device: Device,
  dtype: DType,
  shape: Shape,
  onShort: () => boolean = () => true,
): Value | null {
  let handle: Handle
  try {
    handle = allocate(device, dtype, shape)
  } catch (error) {
    if (error instanceof VoltaicError && error.code === 'ERR_OUT_OF_MEMORY' && onShort()) return null
    throw error
  }
  return new Value(handle, dtype, shape, device, null)
}

let giveUpSpare: () => boolean = () => false

/** Sets what frees values that can be made again when memory is short, and says whether there were any. */
export function setSpare(giveUp: () => boolean): void {
  giveUpSpare = giveUp
}

export function retain(value: Value): Value {
  value.references++
  return value
}

export function releaseValue(value: Value): void {
  if (--value.references > 0) return
  if (value.guarded) finalizers.unregister(value)
  release(value.handle)
  if (value.base !== null) releaseValue(value.base)
}

/** Whether the holder of `value` is the only one that can see its memory, so that it may be written to. */
export function isExclusive(value: Value): boolean {
  return value.references === 1 && (value.base === null || value.base.references === 1)
}

/** The same memory in another shape, or a contiguous part of it that starts at `elementOffset`. */
export function viewValue(value: Value, shape: Shape, elementOffset = 0): Value {
  const base = retain(value.base ?? value)
  try {
    return new Value(
      viewHandle(value.handle, value.dtype, shape, elementOffset),
      value.dtype,
      shape,
      value.device,
      base,
    )
  } catch (error) {
    releaseValue(base)
    throw error
  }
}

/** Queues an op that writes `output`, and gives `output`; when the call is refused it is released. */
export function produce(
  output: Value,
  op: string,
  tensors: readonly (Handle | null)[],
  attributes?: readonly number[],
): Value {
  try {
    run(op, tensors, attributes)
  } catch (error) {
    releaseValue(output)
    throw error
  }
  return output
}

/** The same for ops with several outputs. */
export function produceAll(
  outputs: readonly Value[],
  op: string,
  tensors: readonly (Handle | null)[],
  attributes?: readonly number[],
): void {
  try {
    run(op, tensors, attributes)
  } catch (error) {
    for (const output of outputs) releaseValue(output)
    throw error
  }
}

export function filledValue(device: Device, dtype: DType, shape: Shape, fill: number): Value {
  const value = newValue(device, dtype, shape)
  return produce(value, 'fill', [value.handle], [fill])
}

export function castValue(value: Value, dtype: DType): Value {
  const result = newValue(value.device, dtype, value.shape)
  return produce(result, 'cast', [value.handle, result.handle])
}
