/** Moving data: other shapes of the same memory, permutation, slices, concatenation, rows by index. */
import { run, type Shape, VoltaicError } from '../runtime/index.js'
import { checkDType, checkSameDType, nodes, result } from './operands.js'
import { consumeView, permuteValue } from './raw.js'
import { normalizeAxis, resolveShape, sameShape, shapeText, sizeOf } from './shapes.js'
import { type Tensor, tensorNode, tensorValue } from './tensor.js'
import { filledValue, newValue, produce, releaseValue, retain, type Value, viewValue } from './value.js'

function reshaped(op: string, x: Tensor, shape: Shape): Tensor {
  const input = tensorValue(x)
  const from = input.shape
  const output = sameShape(from, shape) ? retain(input) : viewValue(input, shape)
  return result(op, output, nodes(x), [], (node, gradient) => {
    node.give(0, sameShape(gradient.shape, from) ? retain(gradient) : viewValue(gradient, from))
  })
}

/** The same memory in another shape, free of cost; one dimension may be -1. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  return reshaped('reshape', x, resolveShape('reshape', tensorValue(x).size, shape))
}

/** One axis in place of axes `start` to `end` (both included; default all). */
export function flatten(x: Tensor, start = 0, end = -1): Tensor {
  const shape = x.shape
  if (shape.length === 0) return reshape(x, [1])
  const first = normalizeAxis('flatten', start, shape.length)
  const last = normalizeAxis('flatten', end, shape.length)
  if (last < first) throw new VoltaicError('ERR_ARGUMENT', `flatten: axis ${end} stands before axis ${start}`)
  const merged = sizeOf(shape.slice(first, last + 1))
  return reshaped('flatten', x, [...shape.slice(0, first), merged, ...shape.slice(last + 1)])
}

/** Without axes of size 1: the named one, or all. */
export function squeeze(x: Tensor, axis?: number): Tensor {
  if (axis === undefined) {
    return reshaped(
      'squeeze',
      x,
      x.shape.filter((dimension) => dimension !== 1),
    )
  }
  const at = normalizeAxis('squeeze', axis, x.shape.length)
  if (x.shape[at] !== 1) {
    throw new VoltaicError('ERR_SHAPE', `squeeze: axis ${axis} of ${shapeText(x.shape)} has not size 1`)
  }
  return reshaped('squeeze', x, [...x.shape.slice(0, at), ...x.shape.slice(at + 1)])
}

/** With an axis of size 1 put in before `axis` (-1: at the end). */
export function unsqueeze(x: Tensor, axis: number): Tensor {
  const at = normalizeAxis('unsqueeze', axis, x.shape.length + 1)
  return reshape(x, [...x.shape.slice(0, at), 1, ...x.shape.slice(at)])
}

/** Axes in the given order, copied. */
export function permute(x: Tensor, axes: readonly number[]): Tensor {
  const input = tensorValue(x)
  const rank = input.shape.length
  const order = axes.map((axis) => normalizeAxis('permute', axis, rank))
  if (order.length !== rank || new Set(order).size !== rank) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `permute: axes ${shapeText(axes)} are not an order of the ${rank} axes of ${shapeText(input.shape)}`,
    )
  }
  const inverse = new Array<number>(rank)
  order.forEach((axis, position) => {
    inverse[axis] = position
  })
  return result('permute', permuteValue(input, order), nodes(x), [], (node, gradient) =>
    node.give(0, permuteValue(gradient, inverse)),
  )
}

/** Two axes exchanged; by default the last two. */
export function transpose(x: Tensor, first = -2, second = -1): Tensor {
  const rank = x.shape.length
  const a = normalizeAxis('transpose', first, rank)
  const b = normalizeAxis('transpose', second, rank)
  const order = Array.from({ length: rank }, (_, axis) => (axis === a ? b : axis === b ? a : axis))
  return permute(x, order)
}

function sliceValue(x: Value, axis: number, start: number, shape: Shape): Value {
  const outer = sizeOf(x.shape.slice(0, axis))
  // Nothing lies between the parts: a view does.
  if (outer === 1) return viewValue(x, shape, start * sizeOf(x.shape.slice(axis + 1)))
  const y = newValue(x.device, x.dtype, shape)
  return produce(y, 'slice', [x.handle, y.handle], [axis, start])
}

/** `length` elements along `axis` from `start`. */
export function narrow(x: Tensor, axis: number, start: number, length: number): Tensor {
  const input = tensorValue(x)
  const at = normalizeAxis('narrow', axis, input.shape.length)
  const size = input.shape[at] as number
  if (
    !Number.isInteger(start) ||
    !Number.isInteger(length) ||
    start < 0 ||
    length < 0 ||
    start + length > size
  ) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `narrow: ${start} to ${start + length} does not lie in axis ${axis} of ${shapeText(input.shape)}`,
    )
  }
  const shape = [...input.shape]
  shape[at] = length
  const from = input.shape
  return result('narrow', sliceValue(input, at, start, shape), nodes(x), [], (node, gradient) => {
    const whole = filledValue(gradient.device, gradient.dtype, from, 0)
    node.give(0, produce(whole, 'slice_assign', [gradient.handle, whole.handle], [at, start]))
  })
}

/** [start, end) of an axis; negative numbers count from the end, and either may be left out. */
export type Range = readonly [start?: number | undefined, end?: number | undefined]

/** A part of each axis, like NumPy's `x[a:b, :, c:d]`: null or left out is the whole axis. Ends beyond the axis are cut. */
export function slice(x: Tensor, ...ranges: readonly (Range | null)[]): Tensor {
  if (ranges.length > x.shape.length) {
    throw new VoltaicError('ERR_ARGUMENT', `slice: ${ranges.length} ranges for shape ${shapeText(x.shape)}`)
  }
  let output = x
  ranges.forEach((range, axis) => {
    if (range === null) return
    const size = x.shape[axis] as number
    const clip = (index: number): number => Math.min(Math.max(index < 0 ? index + size : index, 0), size)
    const start = clip(range[0] ?? 0)
    const end = Math.max(clip(range[1] ?? size), start)
    if (start === 0 && end === size) return
    const part = narrow(output, axis, start, end - start)
    if (output !== x) output.dispose()
    output = part
  })
  return output === x ? reshaped('slice', x, x.shape) : output
}

/** Tensors one after the other along `axis`; the other dimensions agree. */
export function concat(tensors: readonly Tensor[], axis = 0): Tensor {
  const first = tensors[0]
  if (first === undefined) throw new VoltaicError('ERR_ARGUMENT', 'concat: the list of tensors is empty')
  const at = normalizeAxis('concat', axis, first.shape.length)
  let length = 0
  for (const tensor of tensors) {
    checkSameDType('concat', first, tensor)
    if (
      tensor.shape.length !== first.shape.length ||
      tensor.shape.some((d, i) => i !== at && d !== first.shape[i])
    ) {
      throw new VoltaicError(
        'ERR_SHAPE',
        `concat: shapes ${shapeText(first.shape)} and ${shapeText(tensor.shape)} differ on another axis than ${axis}`,
      )
    }
    length += tensor.shape[at] as number
  }
  const shape = [...first.shape]
  shape[at] = length
  const parts = tensors.map(tensorValue)
  const output = newValue(first.device, first.dtype, shape)
  let start = 0
  for (const part of parts) {
    produce(output, 'slice_assign', [part.handle, output.handle], [at, start])
    start += part.shape[at] as number
  }
  const shapes = parts.map((part) => part.shape)
  return result('concat', output, tensors.map(tensorNode), [], (node, gradient) => {
    let from = 0
    shapes.forEach((part, index) => {
      if (node.needs(index)) node.give(index, sliceValue(gradient, at, from, part))
      from += part[at] as number
    })
  })
}

/** Tensors of one shape along a new axis. */
export function stack(tensors: readonly Tensor[], axis = 0): Tensor {
  const expanded = tensors.map((tensor) => unsqueeze(tensor, axis))
  try {
    return concat(expanded, axis < 0 ? axis : axis)
  } finally {
    for (const tensor of expanded) tensor.dispose()
  }
}

/**
 * The parts of `x` along `axis` that `index` (int32, any shape) names: shape `x.shape` with `index.shape` in place of the axis.
 * An index out of range is reported when the result is read. Gradients of a part taken several times add up in order of index.
 */
export function indexSelect(x: Tensor, index: Tensor, axis = 0): Tensor {
  checkDType('indexSelect', 'index', index, 'int32')
  const at = normalizeAxis('indexSelect', axis, x.shape.length)
  if (at !== 0) {
    const rank = x.shape.length
    const front = [at, ...Array.from({ length: rank }, (_, i) => i).filter((i) => i !== at)]
    const moved = permute(x, front)
    const selected = indexSelect(moved, index)
    const inserted = index.shape.length
    const back = Array.from({ length: rank - 1 + inserted }, (_, i) =>
      i < at ? i + inserted : i < at + inserted ? i - at : i,
    )
    const output = permute(selected, back)
    moved.dispose()
    selected.dispose()
    return output
  }
  const input = tensorValue(x)
  const rest = input.shape.slice(1)
  const width = sizeOf(rest)
  const rows = viewValue(input, [input.shape[0] as number, width])
  const flatIndex = viewValue(tensorValue(index), [index.size])
  const output = newValue(input.device, input.dtype, [index.size, width])
  produce(output, 'gather_rows', [rows.handle, flatIndex.handle, output.handle])
  releaseValue(rows)
  const from = input.shape
  const shaped = consumeView(output, [...index.shape, ...rest])
  const tensor = result('indexSelect', shaped, nodes(x), [flatIndex], (node, gradient) => {
    const rowsGradient = viewValue(gradient, [flatIndex.size, width])
    const buffer = node.open(0, input)
    const target = viewValue(buffer, [from[0] as number, width])
    run('scatter_add_rows', [rowsGradient.handle, flatIndex.handle, target.handle])
    releaseValue(target)
    releaseValue(rowsGradient)
    node.close(0, buffer)
  })
  releaseValue(flatIndex)
  return tensor
}

/** The first token of each sequence: rows `offsets[0 .. n-2]` of `x` [tokens, width], as [sequences, width]. */
export function firstTokens(x: Tensor, offsets: Tensor): Tensor {
  const starts = narrow(offsets, 0, 0, offsets.size - 1)
  try {
    return indexSelect(x, starts)
  } finally {
    starts.dispose()
  }
}
