/**
 * Tensor: a device array with shape and dtype, and its place on the tape. The general ops are methods too (methods.ts), the fused
 * ones are functions, one file per kernel family.
 */
import {
  type Device,
  type DType,
  download,
  downloadSync,
  run,
  type Shape,
  type TypedArray,
  typedArray,
  upload,
  VoltaicError,
} from '../runtime/index.js'
import { shapeText } from './shapes.js'
import { checkSeed, disown, isRecording, propagate, TapeNode } from './tape.js'
import { trackedTensors } from './tracking.js'
import { castValue, filledValue, guard, releaseValue, retain, type Value } from './value.js'
import type { WeightCopies } from './weight-copies.js'

/** What `data()` gives: float32 and bfloat16 as Float32Array, int32 as Int32Array, uint8 as Uint8Array. */
export type TensorData = Float32Array | Int32Array | Uint8Array

export type NestedArray = number | readonly NestedArray[]

/** A parameter as ops see it: a float32 master value, and a bfloat16 copy for products in that precision. */
export interface ParameterLike {
  readonly value: Tensor
  readonly working: Tensor | null
  /** For the ops of this package only. */
  readonly copies: WeightCopies
}

/** The tensor's value; throws ERR_DISPOSED when it was freed. For the ops of this package only. */
export let tensorValue: (tensor: Tensor) => Value
/** Where gradients for the tensor go; null when it needs none, or nothing is recorded. For the ops of this package only. */
export let tensorNode: (tensor: Tensor) => TapeNode | null
/** Wraps a value (its reference is taken over) that nothing needs a gradient through. For the ops of this package only. */
export let wrap: (value: Value, node?: TapeNode | null) => Tensor
/** Puts another value, of the same shape, and another leaf under a tensor. For parameters only. */
export let rebind: (tensor: Tensor, value: Value, leaf: TapeNode | null) => void

/** Leaves a tensor, and what the tape saved on the way to it, to the finalizer. For scopes only. */
export let protectTensor: (tensor: Tensor) => void

export class Tensor {
  #value: Value | null
  #node: TapeNode | null
  #gradient: Tensor | null = null
  readonly shape: Shape
  readonly dtype: DType
  readonly device: Device

  private constructor(value: Value, node: TapeNode | null, scoped: boolean) {
    this.#value = value
    this.#node = node
    this.shape = value.shape
    this.dtype = value.dtype
    this.device = value.device
    const tracked = scoped ? trackedTensors() : null
    if (tracked !== null) tracked.push(this)
    else protect(value, node)
  }

  static {
    tensorValue = (tensor) => tensor.#value ?? tensor.#throwDisposed()
    tensorNode = (tensor) => (isRecording() ? tensor.#node : null)
    wrap = (value, node = null) => new Tensor(value, node, true)
    rebind = (tensor, value, leaf) => {
      tensor.#gradient?.dispose()
      tensor.#gradient = null
      if (tensor.#value !== null && tensor.#value !== value) releaseValue(tensor.#value)
      tensor.#value = guard(value)
      tensor.#node = leaf
    }
    protectTensor = (tensor) => protect(tensorValue(tensor), tensor.#node)
    Object.defineProperty(Tensor.prototype, Symbol.for('nodejs.util.inspect.custom'), {
      value(this: Tensor): string {
        return this.toString()
      },
    })
  }

  /** Number of elements. */
  get size(): number {
    return tensorValue(this).size
  }

  /** Number of axes. */
  get rank(): number {
    return this.shape.length
  }

  get disposed(): boolean {
    return this.#value === null
  }

  /** Whether `backward` of something computed from it brings a gradient to it, or through it. */
  get requiresGrad(): boolean {
    return this.#node !== null
  }

  /** Whether it requires a gradient and was made by the user, not by an op: such tensors keep their gradient. */
  get isLeaf(): boolean {
    return this.#node === null || this.#node.backward === null
  }

  /** Whether `grad` is there to be read. */
  get hasGrad(): boolean {
    return this.#node !== null && (this.#node.gradient ?? this.#node.keptGradient) !== null
  }

  /**
   * The gradient that `backward` summed up: float32, of the same shape. It lives as long as this tensor and changes with the next
   * `backward` and `zeroGrad`; `grad.clone()` stays.
   * @throws ERR_GRADIENT when there is none: the tensor requires none, is the result of an op, or no backward has run.
   */
  get grad(): Tensor {
    const node = this.#node
    const gradient = node === null ? null : node.backward === null ? node.gradient : node.keptGradient
    if (node === null || gradient === null) throw new VoltaicError('ERR_GRADIENT', this.#whyNoGradient())
    if (this.#gradient === null || this.#gradient.#value !== gradient) {
      this.#gradient?.dispose()
      this.#gradient = new Tensor(retain(gradient), null, false)
    }
    return this.#gradient
  }

  #whyNoGradient(): string {
    const what = `grad of a tensor of shape ${shapeText(this.shape)}: `
    if (this.#node === null)
      return `${what}it does not require a gradient; make it with { requiresGrad: true }`
    if (this.#node.backward !== null && !this.#node.keepsGradient) {
      return `${what}it is the result of ${this.#node.name}, whose gradient is not kept; call retainGrad() before backward`
    }
    return `${what}no backward has reached it yet`
  }

  /** Keeps the gradient of an op's result for `grad`, from the next backward on. */
  retainGrad(): this {
    if (this.#node === null) throw new VoltaicError('ERR_GRADIENT', this.#whyNoGradient())
    if (this.#node.backward !== null) this.#node.keepsGradient = true
    return this
  }

  /** Forgets the gradient of a leaf (in an arena: sets it to zero). */
  zeroGrad(): void {
    const node = this.#node
    if (node === null || node.gradient === null) return
    if (node.arenaGradient) {
      run('fill', [node.gradient.handle], [0])
      return
    }
    releaseValue(node.gradient)
    node.gradient = null
    this.#gradient?.dispose()
    this.#gradient = null
  }

  /**
   * Computes the gradients of every leaf that this tensor depends on and adds them to theirs. The tape is freed unless `retainGraph`.
   * @param gradient of this tensor's shape; may be left out for a tensor of one element, and is 1 then.
   * @throws ERR_GRADIENT when the tensor depends on nothing that requires a gradient, has several elements and no gradient is given,
   * or its tape was used up by an earlier backward.
   */
  backward(gradient?: Tensor | null, options: { readonly retainGraph?: boolean } = {}): void {
    const value = tensorValue(this)
    const node = this.#node
    if (node === null) {
      throw new VoltaicError(
        'ERR_GRADIENT',
        `backward: the tensor of shape ${shapeText(this.shape)} depends on nothing that requires a gradient ` +
          '(noGrad, detach, comparisons, argmax and integer casts end the tape)',
      )
    }
    if (gradient == null && value.size !== 1) {
      throw new VoltaicError(
        'ERR_GRADIENT',
        `backward: the tensor has shape ${shapeText(this.shape)}; without a gradient it must have one element ` +
          '(call sum() or mean() first, or give a gradient of that shape)',
      )
    }
    if (gradient != null) checkSeed(this.shape, tensorValue(gradient))
    const seed =
      gradient == null ? filledValue(value.device, 'float32', value.shape, 1) : retain(tensorValue(gradient))
    propagate(node, seed, options.retainGraph ?? false)
  }

  /** The same data without a tape; shares memory. */
  detach(): Tensor {
    return wrap(retain(tensorValue(this)))
  }

  /** Makes a leaf of a tensor that is on no tape. */
  requireGrad(): this {
    const value = tensorValue(this)
    checkDifferentiable(this.dtype)
    if (this.#node === null) this.#node = new TapeNode('leaf', value, [], [], null)
    return this
  }

  /**
   * The elements in row-major order, copied after all queued work; the event loop stays free.
   * Rejects with the error of an op that failed on the way.
   */
  async data(): Promise<TensorData> {
    const value = tensorValue(this)
    const source = value.dtype === 'bfloat16' ? castValue(value, 'float32') : retain(value)
    try {
      return typedArray(source.dtype, await download(source.handle)) as TensorData
    } finally {
      releaseValue(source)
    }
  }

  /** Like `data`, but blocks until the work is done: for scripts and tests. */
  dataSync(): TensorData {
    const value = tensorValue(this)
    const source = value.dtype === 'bfloat16' ? castValue(value, 'float32') : retain(value)
    try {
      const data = typedArray(source.dtype, source.size) as TensorData
      downloadSync(source.handle, data)
      return data
    } finally {
      releaseValue(source)
    }
  }

  /** The elements as nested arrays; a number for a scalar. Blocks. */
  toArray(): NestedArray {
    const data = this.dataSync()
    let next = 0
    const build = (axis: number): NestedArray =>
      axis === this.shape.length
        ? (data[next++] as number)
        : Array.from({ length: this.shape[axis] as number }, () => build(axis + 1))
    return build(0)
  }

  /** The only element. Blocks. */
  item(): number {
    if (this.size !== 1) {
      throw new VoltaicError(
        'ERR_SHAPE',
        `item: the tensor has shape ${shapeText(this.shape)}, expected one element`,
      )
    }
    return this.dataSync()[0] as number
  }

  /**
   * Overwrites the elements in place. Only for tensors that no tape knows: what an op saved would change with it.
   * @param data of the tensor's dtype (bfloat16: its bits as Uint16Array) and size.
   */
  assign(data: TypedArray): this {
    const value = tensorValue(this)
    if (this.#node !== null) {
      throw new VoltaicError(
        'ERR_GRADIENT',
        'assign: the tensor requires a gradient, and what the tape saved would change; assign to the parameter, or detach it',
      )
    }
    if (data.length !== value.size) {
      throw new VoltaicError(
        'ERR_SHAPE',
        `assign: ${data.length} elements for a tensor of shape ${shapeText(this.shape)}, expected ${value.size}`,
      )
    }
    upload(value.handle, data)
    return this
  }

  /** Frees the tensor now. What the tape needs of it stays until backward. Twice is harmless. */
  dispose(): void {
    const value = this.#value
    if (value === null) return
    this.#value = null
    this.#gradient?.dispose()
    this.#gradient = null
    const node = this.#node
    if (node !== null) {
      if (node.backward === null && node.consumers === 0 && node.gradient !== null) {
        releaseValue(node.gradient)
        node.gradient = null
      }
      disown(node)
    }
    releaseValue(value)
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  toString(): string {
    return `Tensor(${this.dtype}${shapeText(this.shape)} on ${this.device.name}${this.disposed ? ', disposed' : ''})`
  }

  #throwDisposed(): never {
    throw new VoltaicError(
      'ERR_DISPOSED',
      `a tensor of shape ${shapeText(this.shape)} was used after it was disposed ` +
        '(or after the scope it was made in ended: return it from the scope to keep it)',
    )
  }
}

function protect(value: Value, node: TapeNode | null): void {
  guard(value)
  if (node === null || node.backward === null) return
  const open = [node]
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    next.guarded = true
    for (const saved of next.saved) guard(saved)
    for (const input of next.inputs) {
      if (input !== null && input.backward !== null && !input.guarded) open.push(input)
    }
  }
}

export function checkDifferentiable(dtype: DType): void {
  if (dtype !== 'float32' && dtype !== 'bfloat16') {
    throw new VoltaicError(
      'ERR_GRADIENT',
      `a gradient of a ${dtype} tensor does not exist; only float32 and bfloat16 tensors can require one`,
    )
  }
}
