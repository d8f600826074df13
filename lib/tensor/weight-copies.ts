/**
 * What products read in place of a parameter's values, made once and kept as long as these do not change: a bfloat16 copy, where no
 * arena has one, and panels in the order in which the CPU's kernels read them (`pack_weight`). `contentVersion` says whether the values
 * changed, whoever wrote to them.
 *
 * Panels are made when one content is used for the second time: inference and gradient accumulation gain, and a step that uses each
 * weight once pays nothing. When memory is short they go first.
 */
import { contentVersion, type DType, type Handle } from '../runtime/index.js'
import {
  castValue,
  guard,
  produce,
  releaseValue,
  retain,
  setSpare,
  type Value,
  valueIfRoom,
} from './value.js'

/** Elements that hold an [n, k] weight's panels, whatever the instruction set: packed_elements in native/engine/gemm_arguments.h. */
function packedElements(n: number, k: number): number {
  return (n + 48) * Math.ceil(k / 32) * 32
}

/** One value made from a content of another, and how often that content was asked for. */
class Derived {
  value: Value | null = null
  uses = 0
  #handle: Handle = 0
  #version = -1
  #dtype: DType = 'float32'

  /** Counts a use of `origin` as it is now; drops what was made of another content. */
  use(origin: Value, dtype: DType): void {
    const version = contentVersion(origin.handle)
    if (origin.handle !== this.#handle || version !== this.#version || dtype !== this.#dtype) {
      this.drop()
      this.#handle = origin.handle
      this.#version = version
      this.#dtype = dtype
    }
    this.uses++
  }

  drop(): void {
    if (this.value !== null) releaseValue(this.value)
    this.value = null
    this.uses = 0
  }
}

export type Use = 'forward' | 'inputGradient'

const holders = new Set<WeakRef<WeightCopies>>()
const forgotten = new FinalizationRegistry<WeakRef<WeightCopies>>((holder) => holders.delete(holder))

setSpare(() => {
  let freed = false
  for (const holder of holders) freed = holder.deref()?.dropPanels() === true || freed
  return freed
})

export class WeightCopies {
  readonly #copy = new Derived()
  readonly #panels: Readonly<Record<Use, Derived>> = { forward: new Derived(), inputGradient: new Derived() }
  #holder: WeakRef<WeightCopies> | null = null

  /** `master` rounded to bfloat16, with a reference for the caller. */
  rounded(master: Value): Value {
    this.#copy.use(master, 'bfloat16')
    this.#copy.value ??= guard(castValue(master, 'bfloat16'))
    return retain(this.#copy.value)
  }

  /**
   * The panels of a weight [n, k] in `dtype` for a product with its transpose (forward) or with itself (the input's gradient), with a
   * reference for the caller; null at the first use of its content, on devices without `pack_weight`, and when memory is short.
   * @param origin the weight, or where `dtype` is another one, what `rows` is made from
   * @param rows gives the weight in `dtype`, with a reference
   * @param last whether the product reads nothing else of the weight: the copy is freed when its panels are there
   */
  panels(use: Use, origin: Value, dtype: DType, rows: () => Value, last: boolean): Value | null {
    if (origin.device.kind !== 'cpu') return null
    const kept = this.#panels[use]
    kept.use(origin, dtype)
    if (kept.value === null && kept.uses === 2) {
      kept.value = this.#pack(use, origin, dtype, rows)
      if (last && kept.value !== null) this.#copy.drop()
    }
    return kept.value === null ? null : retain(kept.value)
  }

  #pack(use: Use, origin: Value, dtype: DType, rows: () => Value): Value | null {
    const [outer, inner] = origin.shape as [number, number]
    const [n, k] = use === 'forward' ? [outer, inner] : [inner, outer]
    const from = rows()
    try {
      const packed = valueIfRoom(origin.device, dtype, [packedElements(n, k)])
      if (packed === null) return null
      produce(packed, 'pack_weight', [from.handle, packed.handle], [n, k, use === 'forward' ? 1 : 0])
      if (this.#holder === null) {
        this.#holder = new WeakRef(this)
        forgotten.register(this, this.#holder)
      }
      holders.add(this.#holder)
      return guard(packed)
    } finally {
      releaseValue(from)
    }
  }

  /** Frees the panels; says whether there were any. They are not made again before the content changes. */
  dropPanels(): boolean {
    if (this.#holder !== null) holders.delete(this.#holder)
    const { forward, inputGradient } = this.#panels
    const had = forward.value !== null || inputGradient.value !== null
    for (const kept of [forward, inputGradient]) {
      if (kept.value !== null) releaseValue(kept.value)
      kept.value = null
    }
    return had
  }

  /** Frees all. */
  release(): void {
    this.#copy.drop()
    this.dropPanels()
  }
}
