/** Sums, means, maxima over any axes. */

import { VoltaicError } from '../runtime/index.js'
import { checkFloat, nodes, result } from './operands.js'
import { affine, binary, broadcastValue, compare, permuteValue, reduce } from './raw.js'
import { normalizeAxes, normalizeAxis } from './shapes.js'
import { type Tensor, tensorValue, wrap } from './tensor.js'
import { castValue, newValue, produce, releaseValue, retain, type Value, viewValue } from './value.js'

export interface ReductionOptions {
  /** Axes to reduce, negative ones counted from the end; all when left out. */
  readonly axes?: number | readonly number[] | undefined
  /** Whether reduced axes stay with size 1. Default false. */
  readonly keepDims?: boolean
}

/** A gradient of the reduced shape, stretched over the input's. */
function spread(gradient: Value, shape: readonly number[], axes: readonly number[]): Value {
  const kept = viewValue(
    gradient,
    shape.map((dimension, axis) => (axes.includes(axis) ? 1 : dimension)),
  )
  try {
    return broadcastValue(kept, shape)
  } finally {
    releaseValue(kept)
  }
}

/** The sum over `axes`. */
export function sum(x: Tensor, options: ReductionOptions = {}): Tensor {
  checkFloat('sum', 'x', x)
  const input = tensorValue(x)
  const axes = normalizeAxes('sum', options.axes, input.shape.length)
  const shape = input.shape
  const output = reduce('sum', input, axes, options.keepDims ?? false)
  return result('sum', output, nodes(x), [], (node, gradient) => node.give(0, spread(gradient, shape, axes)))
}

/** The mean over `axes`; NaN of no elements. */
export function mean(x: Tensor, options: ReductionOptions = {}): Tensor {
  checkFloat('mean', 'x', x)
  const input = tensorValue(x)
  const axes = normalizeAxes('mean', options.axes, input.shape.length)
  const shape = input.shape
  const output = reduce('mean', input, axes, options.keepDims ?? false)
  const count = axes.reduce((product, axis) => product * (shape[axis] as number), 1)
  return result('mean', output, nodes(x), [], (node, gradient) => {
    const scaled = affine(gradient, 1 / count, 0)
    node.give(0, spread(scaled, shape, axes))
    releaseValue(scaled)
  })
}

/** The maximum over `axes`. Equal maxima share the gradient evenly. @throws ERR_SHAPE over no elements. */
export function max(x: Tensor, options: ReductionOptions = {}): Tensor {
  checkFloat('max', 'x', x)
  const input = tensorValue(x)
  const axes = normalizeAxes('max', options.axes, input.shape.length)
  const shape = input.shape
  if (axes.some((axis) => shape[axis] === 0)) {
    throw new VoltaicError('ERR_SHAPE', `max: an axis of size 0 of [${shape.join(', ')}] has no maximum`)
  }
  const output = reduce('max', input, axes, options.keepDims ?? false)
  return result('max', output, nodes(x), [input, output], (node, gradient) => {
    const largest = spread(output, shape, axes)
    const found = compare('equal', input, largest)
    const ones = castValue(found, gradient.dtype)
    const count = reduce('sum', ones, axes, false)
    const flat = viewValue(gradient, count.shape)
    const share = binary('divide', flat, count)
    const stretched = spread(share, shape, axes)
    node.give(0, binary('multiply', stretched, ones))
    for (const value of [largest, found, ones, count, flat, share, stretched]) releaseValue(value)
  })
}

/** The index of the first largest element along `axis` (default the last), as int32; NaN counts as largest. Ends the tape. */
export function argmax(x: Tensor, axis = -1): Tensor {
  checkFloat('argmax', 'x', x)
  const input = tensorValue(x)
  const rank = input.shape.length
  const along = normalizeAxis('argmax', axis, rank)
  const order = Array.from({ length: rank }, (_, i) => i).filter((i) => i !== along)
  const moved = along === rank - 1 ? retain(input) : permuteValue(input, [...order, along])
  if (moved.shape[rank - 1] === 0) {
    releaseValue(moved)
    throw new VoltaicError('ERR_SHAPE', `argmax: axis ${axis} of [${input.shape.join(', ')}] has no elements`)
  }
  try {
    const output = newValue(moved.device, 'int32', moved.shape.slice(0, -1))
    return wrap(produce(output, 'argmax', [moved.handle, output.handle]))
  } finally {
    releaseValue(moved)
  }
}
