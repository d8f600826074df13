/** Which list the tensors made now go into: the innermost running scope's, or none. */
import type { Tensor } from './tensor.js'

let tracked: Tensor[] | null = null

export function trackedTensors(): Tensor[] | null {
  return tracked
}

/** Makes `list` the current one and gives the one before. */
export function exchangeTracked(list: Tensor[] | null): Tensor[] | null {
  const before = tracked
  tracked = list
  return before
}
