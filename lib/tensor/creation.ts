/** Tensors from numbers. */
import {
  type Device,
  type DeviceName,
  type DType,
  resolveDevice,
  type Shape,
  type TypedArray,
  upload,
  VoltaicError,
} from '../runtime/index.js'
import { consumeToDType } from './raw.js'
import { checkShape, resolveShape, shapeText, sizeOf } from './shapes.js'
import { type NestedArray, type Tensor, wrap } from './tensor.js'
import { filledValue, newValue, releaseValue, type Value } from './value.js'

export interface TensorOptions {
  /** Default float32; for typed arrays their own type. */
  readonly dtype?: DType | undefined
  /** Default 'cpu'. */
  readonly device?: DeviceName | Device | undefined
  /** Whether `backward` brings a gradient to it. Default false. */
  readonly requiresGrad?: boolean | undefined
}

export function deviceFrom(device: DeviceName | Device | undefined): Device {
  return typeof device === 'object' ? device : resolveDevice(device ?? 'cpu')
}

/** A new tensor of a value; a leaf of the tape when asked for. */
export function created(value: Value, options: TensorOptions): Tensor {
  const tensor = wrap(value)
  try {
    return options.requiresGrad === true ? tensor.requireGrad() : tensor
  } catch (error) {
    tensor.dispose()
    throw error
  }
}

/** Uploads numbers of any typed array as `dtype`. */
function uploaded(device: Device, data: TypedArray, from: DType, dtype: DType, shape: Shape): Value {
  const value = newValue(device, from, shape)
  try {
    upload(value.handle, data)
  } catch (error) {
    releaseValue(value)
    throw error
  }
  return consumeToDType(value, dtype)
}

function nestedShape(values: NestedArray): number[] {
  const shape: number[] = []
  let level: NestedArray | undefined = values
  while (Array.isArray(level)) {
    shape.push(level.length)
    level = level[0] as NestedArray | undefined
  }
  return shape
}

function flattenInto(data: Float32Array | Int32Array | Uint8Array, values: NestedArray, shape: Shape): void {
  let next = 0
  const visit = (item: NestedArray, axis: number): void => {
    if (axis === shape.length) {
      if (typeof item !== 'number' && typeof item !== 'boolean') {
        throw new VoltaicError(
          'ERR_SHAPE',
          `tensor: found ${typeof item} where shape ${shapeText(shape)} has a number`,
        )
      }
      data[next++] = Number(item)
      return
    }
    if (!Array.isArray(item) || item.length !== shape[axis]) {
      const found = Array.isArray(item) ? `${item.length} elements` : 'a number'
      throw new VoltaicError(
        'ERR_SHAPE',
        `tensor: rows of different lengths: found ${found} on axis ${axis}, expected ${shape[axis]}`,
      )
    }
    for (const inner of item) visit(inner, axis + 1)
  }
  visit(values, 0)
}

/** The dtype whose bytes a typed array holds as they are. */
function dtypeOf(data: TypedArray): DType {
  if (data instanceof Float32Array) return 'float32'
  if (data instanceof Int32Array) return 'int32'
  if (data instanceof Uint16Array) return 'bfloat16'
  if (data instanceof Uint8Array) return 'uint8'
  throw new VoltaicError(
    'ERR_ARGUMENT',
    `tensor: ${Object.prototype.toString.call(data)} given; expected numbers, nested arrays of equal length, or a ` +
      'Float32Array, Int32Array, Uint16Array (bfloat16 bits) or Uint8Array',
  )
}

/**
 * A tensor of a number, of nested arrays, or of a typed array (Uint16Array: bfloat16 bits), whose shape may be given with it.
 * @throws ERR_SHAPE when rows differ in length or the shape does not fit.
 */
export function tensor(
  values: NestedArray | TypedArray,
  options: TensorOptions & { readonly shape?: Shape | undefined } = {},
): Tensor {
  const device = deviceFrom(options.device)
  if (typeof values === 'number' || typeof values === 'boolean' || Array.isArray(values)) {
    const dtype = options.dtype ?? 'float32'
    const shape = nestedShape(values)
    checkShape('tensor', shape)
    const size = sizeOf(shape)
    const from: DType = dtype === 'bfloat16' ? 'float32' : dtype
    const data =
      from === 'float32'
        ? new Float32Array(size)
        : from === 'int32'
          ? new Int32Array(size)
          : new Uint8Array(size)
    flattenInto(data, values, shape)
    const asked = options.shape === undefined ? shape : resolveShape('tensor', size, options.shape)
    return created(uploaded(device, data, from, dtype, asked), options)
  }
  const data = values as TypedArray
  const from = dtypeOf(data)
  const shape =
    options.shape === undefined ? [data.length] : resolveShape('tensor', data.length, options.shape)
  return created(uploaded(device, data, from, options.dtype ?? from, shape), options)
}

/** A tensor of raw little-endian bytes, such as a checkpoint's. */
export function fromBuffer(
  bytes: ArrayBufferView | ArrayBuffer,
  shape: Shape,
  options: TensorOptions = {},
): Tensor {
  checkShape('fromBuffer', shape)
  const dtype = options.dtype ?? 'float32'
  const width = dtype === 'uint8' ? 1 : dtype === 'bfloat16' ? 2 : 4
  if (bytes.byteLength !== sizeOf(shape) * width) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `fromBuffer: ${bytes.byteLength} bytes for ${dtype} of shape ${shapeText(shape)}, expected ${sizeOf(shape) * width}`,
    )
  }
  const view = ArrayBuffer.isView(bytes)
    ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    : new Uint8Array(bytes)
  const value = newValue(deviceFrom(options.device), dtype, [...shape])
  try {
    upload(value.handle, view)
  } catch (error) {
    releaseValue(value)
    throw error
  }
  return created(value, options)
}

/** A tensor of one number all over. */
export function full(shape: Shape, fill: number, options: TensorOptions = {}): Tensor {
  checkShape('full', shape)
  return created(
    filledValue(deviceFrom(options.device), options.dtype ?? 'float32', [...shape], fill),
    options,
  )
}

/** Zeros. */
export function zeros(shape: Shape, options: TensorOptions = {}): Tensor {
  return full(shape, 0, options)
}

/** Ones. */
export function ones(shape: Shape, options: TensorOptions = {}): Tensor {
  return full(shape, 1, options)
}

/** start, start + step, … below `end`. `arange(n)` counts from 0. */
export function arange(start: number, end?: number, step = 1, options: TensorOptions = {}): Tensor {
  const [from, to] = end === undefined ? [0, start] : [start, end]
  if (!(step !== 0 && Number.isFinite(from) && Number.isFinite(to) && Number.isFinite(step))) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `arange: from ${from} to ${to} by ${step} is not a finite row of numbers`,
    )
  }
  const size = Math.max(0, Math.ceil((to - from) / step))
  const dtype = options.dtype ?? 'float32'
  const whole = dtype === 'int32' || dtype === 'uint8'
  const data = whole ? new Int32Array(size) : new Float32Array(size)
  for (let i = 0; i < size; i++) data[i] = from + i * step
  const device = deviceFrom(options.device)
  return created(uploaded(device, data, whole ? 'int32' : 'float32', dtype, [size]), options)
}
