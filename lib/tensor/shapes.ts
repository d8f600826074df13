/** Arithmetic of shapes: sizes, axes and NumPy's broadcasting rule. */
import { type Shape, VoltaicError } from '../runtime/index.js'

/** As many axes as the native engine handles. */
export const maxRank = 6

export function sizeOf(shape: Shape): number {
  let size = 1
  for (let axis = 0; axis < shape.length; axis++) size *= shape[axis] as number
  return size
}

export function sameShape(a: Shape, b: Shape): boolean {
  if (a === b) return true
  if (a.length !== b.length) return false
  for (let axis = 0; axis < a.length; axis++) if (a[axis] !== b[axis]) return false
  return true
}

export function shapeText(shape: Shape): string {
  return `[${shape.join(', ')}]`
}

/** Throws ERR_SHAPE when a dimension is not a whole number from 0, or there are too many. */
export function checkShape(op: string, shape: Shape): void {
  if (shape.length > maxRank) {
    throw new VoltaicError('ERR_SHAPE', `${op}: shape ${shapeText(shape)} has more than ${maxRank} axes`)
  }
  for (const dimension of shape) {
    if (!Number.isSafeInteger(dimension) || dimension < 0) {
      throw new VoltaicError(
        'ERR_SHAPE',
        `${op}: shape ${shapeText(shape)} is not made of whole numbers from 0`,
      )
    }
  }
}

/** The axis counted from the front; -1 is the last. */
export function normalizeAxis(op: string, axis: number, rank: number): number {
  const result = axis < 0 ? axis + rank : axis
  if (!Number.isInteger(axis) || result < 0 || result >= rank) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `${op}: axis ${axis} does not exist; the tensor has ${rank} axes, so it is from ${-rank} to ${rank - 1}`,
    )
  }
  return result
}

/** Several axes, ascending; undefined means all. Throws when one comes twice. */
export function normalizeAxes(
  op: string,
  axes: number | readonly number[] | undefined,
  rank: number,
): number[] {
  if (axes === undefined) return Array.from({ length: rank }, (_, axis) => axis)
  const list = typeof axes === 'number' ? [axes] : axes
  const result = list.map((axis) => normalizeAxis(op, axis, rank)).sort((a, b) => a - b)
  for (let i = 1; i < result.length; i++) {
    if (result[i] === result[i - 1]) {
      throw new VoltaicError('ERR_ARGUMENT', `${op}: axis ${result[i]} is named twice in ${shapeText(list)}`)
    }
  }
  return result
}

/** NumPy's rule: aligned at the last axis, each pair of dimensions is equal or one of them is 1. */
export function broadcastShapes(op: string, a: Shape, b: Shape): Shape {
  if (sameShape(a, b)) return a
  const rank = Math.max(a.length, b.length)
  const result = new Array<number>(rank)
  for (let i = 1; i <= rank; i++) {
    const x = i <= a.length ? (a[a.length - i] as number) : 1
    const y = i <= b.length ? (b[b.length - i] as number) : 1
    if (x !== y && x !== 1 && y !== 1) {
      throw new VoltaicError(
        'ERR_SHAPE',
        `${op}: shapes ${shapeText(a)} and ${shapeText(b)} do not broadcast: ${x} against ${y} on axis ${rank - i}; ` +
          'they must be equal, or one of them 1',
      )
    }
    result[rank - i] = x === 1 ? y : x
  }
  return result
}

/** The shape that `reshape` asks for: one -1 stands for what is left over. */
export function resolveShape(op: string, size: number, shape: Shape): Shape {
  const open = shape.indexOf(-1)
  let result = shape
  if (open >= 0) {
    const rest = shape.reduce(
      (product, dimension, axis) => (axis === open ? product : product * dimension),
      1,
    )
    const filled = [...shape]
    filled[open] = rest === 0 ? 0 : size / rest
    result = filled
  }
  if (sizeOf(result) !== size || result.some((dimension) => !Number.isInteger(dimension) || dimension < 0)) {
    throw new VoltaicError('ERR_SHAPE', `${op}: ${size} elements do not fit shape ${shapeText(shape)}`)
  }
  checkShape(op, result)
  return result
}
