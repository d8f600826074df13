/**
 * All parameters of a training run in one flat float32 buffer, shared ones once; gradients in a buffer of the same layout, and in
 * bfloat16 training a working copy. Clipping and the optimizer are one launch each, a checkpoint is one contiguous range.
 */
import { type Device, run, upload, VoltaicError } from '../runtime/index.js'
import type { Tensor } from '../tensor/index.js'
import { unscoped } from '../tensor/scope.js'
import { sizeOf } from '../tensor/shapes.js'
import { tensorValue, wrap } from '../tensor/tensor.js'
import { filledValue, viewValue } from '../tensor/value.js'
import { Module, parameterNames } from './module.js'
import { Parameter } from './parameter.js'

/** Segments start at multiples of so many elements: a cache line of float32. */
export const segmentAlignment = 16

export interface ArenaSegment {
  readonly parameter: Parameter
  /** Every name the parameter has; `parameter.N` where no module gives one. */
  readonly names: readonly string[]
  /** First element. */
  readonly offset: number
  readonly size: number
}

export interface ParameterArenaOptions {
  /** Keep a bfloat16 copy for products. Default false. */
  readonly workingCopy?: boolean | undefined
}

function namesOf(source: Module | readonly (Module | Parameter)[]): Map<Parameter, string[]> {
  const list = source instanceof Module ? [source] : source
  const names = parameterNames(list.filter((item) => item instanceof Module))
  list.forEach((item, index) => {
    if (item instanceof Parameter && !names.has(item)) names.set(item, [`parameter.${index}`])
  })
  return names
}

export class ParameterArena {
  readonly device: Device
  readonly segments: readonly ArenaSegment[]
  /** Elements of each buffer, gaps between segments included (always 0). */
  readonly length: number
  /** float32 [length] */
  readonly values: Tensor
  /** float32 [length]; backward adds to it. */
  readonly gradients: Tensor
  /** bfloat16 [length], or null. */
  readonly working: Tensor | null
  readonly #byName: ReadonlyMap<string, ArenaSegment>

  /**
   * Moves the parameters into the arena; they keep their values and become views of it.
   * @throws ERR_ARGUMENT when there is none, or one is in an arena already; ERR_DEVICE when they are on several devices.
   */
  constructor(source: Module | readonly (Module | Parameter)[], options: ParameterArenaOptions = {}) {
    const names = namesOf(source)
    const [first] = names.keys()
    if (first === undefined) throw new VoltaicError('ERR_ARGUMENT', 'ParameterArena: there are no parameters')
    this.device = first.device
    const segments: ArenaSegment[] = []
    let offset = 0
    for (const [parameter, all] of names) {
      this.#check(parameter, all)
      segments.push({ parameter, names: all, offset, size: parameter.size })
      offset += Math.ceil(parameter.size / segmentAlignment) * segmentAlignment
    }
    this.segments = segments
    this.length = offset
    this.#byName = new Map(segments.flatMap((segment) => segment.names.map((name) => [name, segment])))
    const make = (dtype: 'float32' | 'bfloat16'): Tensor =>
      unscoped(() => wrap(filledValue(this.device, dtype, [offset], 0)))
    this.values = make('float32')
    this.gradients = make('float32')
    this.working = options.workingCopy === true ? make('bfloat16') : null
    for (const { parameter, offset: start } of segments) {
      const place = (tensor: Tensor) => viewValue(tensorValue(tensor), parameter.shape, start)
      parameter.place({
        value: place(this.values),
        gradient: place(this.gradients),
        working: this.working === null ? null : place(this.working),
      })
    }
  }

  #check(parameter: Parameter, names: readonly string[]): void {
    if (parameter.inArena) {
      throw new VoltaicError('ERR_ARGUMENT', `ParameterArena: ${names[0]} is in another arena already`)
    }
    if (parameter.device.id !== this.device.id) {
      throw new VoltaicError(
        'ERR_DEVICE',
        `ParameterArena: ${names[0]} is on ${parameter.device.name}, the first parameter on ${this.device.name}`,
      )
    }
  }

  /** The segment of a name. @throws ERR_ARGUMENT when there is none. */
  segment(name: string): ArenaSegment {
    const segment = this.#byName.get(name)
    if (segment === undefined) {
      throw new VoltaicError('ERR_ARGUMENT', `ParameterArena: there is no parameter ${name}`)
    }
    return segment
  }

  /** The parameter of a name. @throws ERR_ARGUMENT when there is none. */
  parameter(name: string): Parameter {
    return this.segment(name).parameter
  }

  /** Sets all gradients to 0. */
  zeroGradients(): void {
    run('fill', [tensorValue(this.gradients).handle], [0])
  }

  /** Rounds the working copy anew from the values. */
  refreshWorking(): void {
    if (this.working === null) return
    run('cast', [tensorValue(this.values).handle, tensorValue(this.working).handle])
  }

  /** All values as little-endian float32, gaps included, after all queued work. */
  async export(): Promise<Uint8Array> {
    return exportBytes(this.values)
  }

  /** Takes values back from `export`. @throws ERR_FORMAT when the length differs. */
  import(bytes: Uint8Array): void {
    importBytes(this.values, bytes, 'parameters')
    this.refreshWorking()
  }

  /** Frees the buffers and the parameters. */
  dispose(): void {
    for (const { parameter } of this.segments) parameter.dispose()
    this.values.dispose()
    this.gradients.dispose()
    this.working?.dispose()
  }
}

/** A float32 buffer's bytes. */
export async function exportBytes(tensor: Tensor): Promise<Uint8Array> {
  const data = await tensor.data()
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
}

/** Overwrites a float32 buffer with bytes of the same length. */
export function importBytes(tensor: Tensor, bytes: Uint8Array, what: string): void {
  const expected = sizeOf(tensor.shape) * 4
  if (bytes.byteLength !== expected) {
    throw new VoltaicError(
      'ERR_FORMAT',
      `${what}: ${bytes.byteLength} bytes, expected ${expected}; they belong to another model`,
    )
  }
  upload(tensorValue(tensor).handle, bytes)
}
