/**
 * Parameter: a float32 master value that training changes, its float32 gradient, and in bfloat16 training a working copy for
 * products. Alone it owns its memory; in a ParameterArena all three are views of the arena. What products on the CPU read in the
 * values' place (weight-copies.ts) is its own in both cases.
 */
import { type Device, type DeviceName, run, type Shape, upload, VoltaicError } from '../runtime/index.js'
import { created, deviceFrom } from '../tensor/creation.js'
import type { ParameterLike, Tensor } from '../tensor/index.js'
import { defaultDraw } from '../tensor/random.js'
import { unscoped } from '../tensor/scope.js'
import { sameShape, shapeText, sizeOf } from '../tensor/shapes.js'
import { TapeNode } from '../tensor/tape.js'
import { rebind, tensorValue, wrap } from '../tensor/tensor.js'
import { guard, newValue, releaseValue, type Value, viewValue } from '../tensor/value.js'
import { WeightCopies } from '../tensor/weight-copies.js'
import { type Initializer, zerosInitializer } from './initializers.js'

export interface ParameterOptions {
  /** Default zeros. */
  readonly initializer?: Initializer | undefined
  /** Default 'cpu'. */
  readonly device?: DeviceName | Device | undefined
  /** Names, in checkpoints, of equal parts along the first axis: `['query.weight', 'key.weight', 'value.weight']`. */
  readonly parts?: readonly string[] | undefined
}

/** What checkpoints and tools see of a parameter, or of a part of one. */
export interface NamedParameter {
  readonly shape: Shape
  readonly size: number
  /** float32; of a part: a view, made anew at each reading. */
  readonly value: Tensor
  /** float32. @throws ERR_GRADIENT when no backward has reached the parameter. */
  readonly grad: Tensor
  readonly hasGrad: boolean
  /** The values, after all queued work. */
  data(): Promise<Float32Array>
  /** Overwrites the values. @throws ERR_SHAPE when their number differs. */
  assign(data: Float32Array): void
}

/** Memory for a parameter in an arena. */
export interface Placement {
  readonly value: Value
  readonly gradient: Value
  readonly working: Value | null
}

function checkLength(data: Float32Array, shape: Shape): void {
  if (data.length !== sizeOf(shape)) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `assign: ${data.length} numbers for a parameter of shape ${shapeText(shape)}, expected ${sizeOf(shape)}`,
    )
  }
}

export class Parameter implements ParameterLike, NamedParameter {
  readonly shape: Shape
  readonly parts: readonly string[]
  readonly initializer: Initializer
  /** The float32 master. */
  readonly value: Tensor
  /** What products on the CPU read of it. For the ops of this package only. */
  readonly copies: WeightCopies = new WeightCopies()
  readonly #leaf: TapeNode
  #working: Tensor | null = null
  #placed = false

  constructor(shape: Shape, options: ParameterOptions = {}) {
    this.shape = [...shape]
    this.parts = options.parts ?? []
    this.initializer = options.initializer ?? zerosInitializer
    if (this.parts.length > 0 && (shape[0] as number) % this.parts.length !== 0) {
      throw new VoltaicError(
        'ERR_SHAPE',
        `a parameter of shape ${shapeText(shape)} does not divide into ${this.parts.length} equal parts`,
      )
    }
    const device = deviceFrom(options.device)
    this.value = unscoped(() => created(newValue(device, 'float32', this.shape), {}))
    this.#leaf = new TapeNode('parameter', tensorValue(this.value), [], [], null)
    rebind(this.value, tensorValue(this.value), this.#leaf)
    const draw = defaultDraw(device)
    try {
      this.initializer(this, draw)
    } finally {
      draw.state.dispose()
    }
  }

  get size(): number {
    return sizeOf(this.shape)
  }

  get device(): Device {
    return this.value.device
  }

  /** The bfloat16 copy; null outside bfloat16 training. */
  get working(): Tensor | null {
    return this.#working
  }

  get grad(): Tensor {
    return this.value.grad
  }

  get hasGrad(): boolean {
    return this.value.hasGrad
  }

  /** Whether backward brings it a gradient. Default true; false freezes it (its optimizer multiplier should then be 0). */
  get requiresGrad(): boolean {
    return this.value.requiresGrad
  }

  set requiresGrad(required: boolean) {
    rebind(this.value, tensorValue(this.value), required ? this.#leaf : null)
  }

  /** Whether an arena holds its memory. */
  get inArena(): boolean {
    return this.#placed
  }

  zeroGrad(): void {
    if (this.hasGrad) this.value.zeroGrad()
  }

  async data(): Promise<Float32Array> {
    return (await this.value.data()) as Float32Array
  }

  assign(data: Float32Array): void {
    checkLength(data, this.shape)
    upload(tensorValue(this.value).handle, data)
    this.refreshWorking()
  }

  /** Takes over another parameter's or tensor's values. */
  copyFrom(source: Parameter | Tensor): void {
    const from = tensorValue(source instanceof Parameter ? source.value : source)
    if (!sameShape(from.shape, this.shape)) {
      throw new VoltaicError(
        'ERR_SHAPE',
        `copyFrom: shape ${shapeText(from.shape)} for a parameter of shape ${shapeText(this.shape)}`,
      )
    }
    run('cast', [from.handle, tensorValue(this.value).handle])
    this.refreshWorking()
  }

  /** Rounds the working copy anew from the master. */
  refreshWorking(): void {
    if (this.#working !== null) {
      run('cast', [tensorValue(this.value).handle, tensorValue(this.#working).handle])
    }
  }

  /** Moves the values into an arena's memory (whose references are taken over). For ParameterArena only. */
  place(placement: Placement): void {
    run('cast', [tensorValue(this.value).handle, placement.value.handle])
    if (this.#leaf.gradient !== null) releaseValue(this.#leaf.gradient)
    this.#leaf.gradient = guard(placement.gradient)
    this.#leaf.arenaGradient = true
    rebind(this.value, placement.value, this.requiresGrad ? this.#leaf : null)
    this.copies.release()
    this.#placed = true
    const { working } = placement
    if (working !== null) this.#working = unscoped(() => wrap(working))
    this.refreshWorking()
  }

  /** Frees the values. */
  dispose(): void {
    if (this.value.disposed) return
    this.copies.release()
    this.#working?.dispose()
    this.#working = null
    if (this.#leaf.gradient !== null) releaseValue(this.#leaf.gradient)
    this.#leaf.gradient = null
    this.value.dispose()
  }
}

/** One of the equal parts of a parameter along its first axis, under a name of its own in checkpoints. */
export class ParameterPart implements NamedParameter {
  readonly parameter: Parameter
  readonly shape: Shape
  readonly #offset: number

  constructor(parameter: Parameter, index: number) {
    this.parameter = parameter
    const rows = (parameter.shape[0] as number) / parameter.parts.length
    this.shape = [rows, ...parameter.shape.slice(1)]
    this.#offset = index * this.size
  }

  get size(): number {
    return sizeOf(this.shape)
  }

  get value(): Tensor {
    return wrap(viewValue(tensorValue(this.parameter.value), this.shape, this.#offset))
  }

  get grad(): Tensor {
    return wrap(viewValue(tensorValue(this.parameter.grad), this.shape, this.#offset))
  }

  get hasGrad(): boolean {
    return this.parameter.hasGrad
  }

  async data(): Promise<Float32Array> {
    const view = this.value
    try {
      return (await view.data()) as Float32Array
    } finally {
      view.dispose()
    }
  }

  assign(data: Float32Array): void {
    checkLength(data, this.shape)
    const view = this.value
    upload(tensorValue(view).handle, data)
    view.dispose()
    this.parameter.refreshWorking()
  }
}
