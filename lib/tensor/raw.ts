/** Ops on values, without a tape: what forward and backward functions are made of. */
import type { DType, Shape } from '../runtime/index.js'
import { broadcastShapes, sameShape } from './shapes.js'
import { castValue, newValue, produce, releaseValue, retain, type Value, viewValue } from './value.js'

export type UnaryOp = 'negate' | 'absolute' | 'exp' | 'log' | 'sqrt'
export type BinaryOp = 'add' | 'subtract' | 'multiply' | 'divide' | 'power' | 'maximum' | 'minimum'
export type ComparisonOp = 'equal' | 'not_equal' | 'less' | 'less_equal' | 'greater' | 'greater_equal'

export function unary(op: UnaryOp, x: Value): Value {
  const y = newValue(x.device, x.dtype, x.shape)
  return produce(y, op, [x.handle, y.handle])
}

/** x * scale + shift */
export function affine(x: Value, scale: number, shift: number): Value {
  const y = newValue(x.device, x.dtype, x.shape)
  return produce(y, 'affine', [x.handle, y.handle], [scale, shift])
}

export function binary(op: BinaryOp | ComparisonOp, a: Value, b: Value, dtype: DType = a.dtype): Value {
  const c = newValue(a.device, dtype, broadcastShapes(op, a.shape, b.shape))
  return produce(c, op, [a.handle, b.handle, c.handle])
}

export function compare(op: ComparisonOp, a: Value, b: Value): Value {
  return binary(op, a, b, 'uint8')
}

/** condition ? a : b, broadcast. */
export function select(condition: Value, a: Value, b: Value): Value {
  const shape = broadcastShapes('where', condition.shape, broadcastShapes('where', a.shape, b.shape))
  const c = newValue(a.device, a.dtype, shape)
  return produce(c, 'where', [condition.handle, a.handle, b.handle, c.handle])
}

export function broadcastValue(x: Value, shape: Shape): Value {
  const y = newValue(x.device, x.dtype, shape)
  return produce(y, 'broadcast', [x.handle, y.handle])
}

/** sum, mean or max over `axes` (ascending); the other axes stay, the reduced ones go or become 1. */
export function reduce(
  op: 'sum' | 'mean' | 'max',
  x: Value,
  axes: readonly number[],
  keepDims: boolean,
): Value {
  const rest: number[] = []
  const kept: number[] = []
  let bits = 0
  for (let axis = 0, next = 0; axis < x.shape.length; axis++) {
    if (axes[next] === axis) {
      bits |= 1 << axis
      kept.push(1)
      next++
    } else {
      rest.push(x.shape[axis] as number)
      kept.push(x.shape[axis] as number)
    }
  }
  const y = newValue(x.device, x.dtype, rest)
  produce(y, op, [x.handle, y.handle], [bits])
  return keepDims && rest.length !== kept.length ? consumeView(y, kept) : y
}

/** A view that takes over the caller's reference. */
export function consumeView(x: Value, shape: Shape): Value {
  if (sameShape(x.shape, shape)) return x
  try {
    return viewValue(x, shape)
  } finally {
    releaseValue(x)
  }
}

/** Undoes broadcasting: sums a gradient (taken over) over the axes along which `shape` was stretched. */
export function sumTo(gradient: Value, shape: Shape): Value {
  if (sameShape(gradient.shape, shape)) return gradient
  const lead = gradient.shape.length - shape.length
  const axes: number[] = []
  for (let axis = 0; axis < gradient.shape.length; axis++) {
    if (axis < lead || (shape[axis - lead] === 1 && gradient.shape[axis] !== 1)) axes.push(axis)
  }
  try {
    return consumeView(axes.length > 0 ? reduce('sum', gradient, axes, false) : retain(gradient), shape)
  } finally {
    releaseValue(gradient)
  }
}

/** Axes in the given order. */
export function permuteValue(x: Value, axes: readonly number[]): Value {
  const y = newValue(
    x.device,
    x.dtype,
    axes.map((axis) => x.shape[axis] as number),
  )
  const attributes = [0, 1, 2, 3, 4, 5]
  for (let i = 0; i < axes.length; i++) attributes[i] = axes[i] as number
  return produce(y, 'permute', [x.handle, y.handle], attributes)
}

/** The value itself (with a further reference) when it has the dtype, else a copy. */
export function toDType(x: Value, dtype: DType): Value {
  return x.dtype === dtype ? retain(x) : castValue(x, dtype)
}

/** Like `toDType`, taking over the caller's reference. */
export function consumeToDType(x: Value, dtype: DType): Value {
  if (x.dtype === dtype) return x
  try {
    return castValue(x, dtype)
  } finally {
    releaseValue(x)
  }
}
