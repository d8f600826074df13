/** What `feature-extraction` gives: numbers with their dimensions, with the names that transformers.js's Tensor has. */
import { VoltaicError } from '../runtime/errors.js'

/** Numbers in nested lists. */
export type NestedNumbers = number | NestedNumbers[]

export class FeatureTensor {
  readonly type = 'float32'
  readonly data: Float32Array
  readonly dims: readonly number[]

  /** @throws ERR_SHAPE when the dimensions do not fit the data */
  constructor(data: Float32Array, dims: readonly number[]) {
    const size = dims.reduce((product, length) => product * length, 1)
    if (size !== data.length) {
      throw new VoltaicError('ERR_SHAPE', `${data.length} numbers do not make [${dims.join(', ')}]`)
    }
    this.data = data
    this.dims = dims
  }

  get size(): number {
    return this.data.length
  }

  /** Nested lists, one level a dimension. */
  tolist(): NestedNumbers[] {
    let next = 0
    const build = (axis: number): NestedNumbers =>
      axis === this.dims.length
        ? (this.data[next++] as number)
        : Array.from({ length: this.dims[axis] as number }, () => build(axis + 1))
    return [build(0)].flat(1) as NestedNumbers[]
  }
}
