/** Element by element, with NumPy's broadcasting; casts. Gradients are summed over the axes that were stretched. */
import { type DType, type Shape, VoltaicError } from '../runtime/index.js'
import { checkFloat, checkSameDType, nodes, operandValue, result } from './operands.js'
import {
  affine,
  type BinaryOp,
  binary,
  broadcastValue,
  type ComparisonOp,
  compare,
  select,
  sumTo,
  type UnaryOp,
  unary,
} from './raw.js'
import { broadcastShapes, checkShape, sameShape, shapeText } from './shapes.js'
import type { Backward, TapeNode } from './tape.js'
import { Tensor, tensorNode, tensorValue, wrap } from './tensor.js'
import { castValue, filledValue, releaseValue, retain, type Value } from './value.js'

/** A tensor, or a number that takes the other operand's dtype. */
export type Operand = Tensor | number

/** A value in the middle of an expression: `use(value, v => …)` releases it after its last use. */
function consume(value: Value, next: (value: Value) => Value): Value {
  try {
    return next(value)
  } finally {
    releaseValue(value)
  }
}

function product(a: Value, b: Value): Value {
  return binary('multiply', a, b)
}

function scalarLike(like: Value, scalar: number): Value {
  return filledValue(like.device, like.dtype, [], scalar)
}

/** The tensor among two operands; at least one is. */
function tensorOf(op: string, a: Operand, b: Operand): Tensor {
  if (a instanceof Tensor) {
    if (b instanceof Tensor) checkSameDType(op, a, b)
    return a
  }
  if (b instanceof Tensor) return b
  throw new VoltaicError('ERR_ARGUMENT', `${op}: both operands are numbers; at least one must be a tensor`)
}

/** Both operands as tensors' values; the backward function gets them as (a, b, c). */
function binaryOp(
  op: BinaryOp,
  a: Operand,
  b: Operand,
  backward: (node: TapeNode, gradient: Value, a: Value, b: Value, c: Value) => void,
): Tensor {
  const like = tensorOf(op, a, b)
  const first = operandValue(a, like)
  const second = operandValue(b, like)
  try {
    const output = binary(op, first, second)
    const inputs = [a instanceof Tensor ? tensorNode(a) : null, b instanceof Tensor ? tensorNode(b) : null]
    return result(op, output, inputs, [first, second, output], (node, gradient) =>
      backward(node, gradient, first, second, output),
    )
  } finally {
    releaseValue(first)
    releaseValue(second)
  }
}

/** x * scale + shift for numbers, in one pass. */
function affineOp(x: Tensor, scale: number, shift: number): Tensor {
  const output = affine(tensorValue(x), scale, shift)
  return result('affine', output, nodes(x), [], (node, gradient) =>
    node.give(0, scale === 1 ? retain(gradient) : affine(gradient, scale, 0)),
  )
}

function isFloat(tensor: Tensor): boolean {
  return tensor.dtype === 'float32' || tensor.dtype === 'bfloat16'
}

/** a + b */
export function add(a: Operand, b: Operand): Tensor {
  if (typeof b === 'number' && a instanceof Tensor && isFloat(a)) return affineOp(a, 1, b)
  if (typeof a === 'number' && b instanceof Tensor && isFloat(b)) return affineOp(b, 1, a)
  return sumOp('add', a, b, 1)
}

/** a - b */
export function sub(a: Operand, b: Operand): Tensor {
  if (typeof b === 'number' && a instanceof Tensor && isFloat(a)) return affineOp(a, 1, -b)
  if (typeof a === 'number' && b instanceof Tensor && isFloat(b)) return affineOp(b, -1, a)
  return sumOp('subtract', a, b, -1)
}

/** Sums and differences need no operand for their gradient, only its shape. */
function sumOp(op: 'add' | 'subtract', a: Operand, b: Operand, sign: number): Tensor {
  const like = tensorOf(op, a, b)
  const first = operandValue(a, like)
  const second = operandValue(b, like)
  const firstShape = first.shape
  const secondShape = second.shape
  try {
    const output = binary(op, first, second)
    const inputs = [a instanceof Tensor ? tensorNode(a) : null, b instanceof Tensor ? tensorNode(b) : null]
    return result(op, output, inputs, [], (node, gradient) => {
      if (node.needs(0)) node.give(0, sumTo(retain(gradient), firstShape))
      if (node.needs(1)) {
        node.give(1, sumTo(sign === 1 ? retain(gradient) : unary('negate', gradient), secondShape))
      }
    })
  } finally {
    releaseValue(first)
    releaseValue(second)
  }
}

/** a * b */
export function mul(a: Operand, b: Operand): Tensor {
  if (typeof b === 'number' && a instanceof Tensor && isFloat(a)) return affineOp(a, b, 0)
  if (typeof a === 'number' && b instanceof Tensor && isFloat(b)) return affineOp(b, a, 0)
  return binaryOp('multiply', a, b, (node, gradient, first, second) => {
    if (node.needs(0)) node.give(0, sumTo(product(gradient, second), first.shape))
    if (node.needs(1)) node.give(1, sumTo(product(gradient, first), second.shape))
  })
}

/** a / b; floats only. */
export function div(a: Operand, b: Operand): Tensor {
  return binaryOp('divide', a, b, (node, gradient, first, second, quotient) => {
    const toFirst = binary('divide', gradient, second)
    // d(a/b)/db = -(a/b)/b
    if (node.needs(1)) {
      const toSecond = consume(product(toFirst, quotient), (value) => unary('negate', value))
      node.give(1, sumTo(toSecond, second.shape))
    }
    node.give(0, sumTo(toFirst, first.shape))
  })
}

/**
 * a to the power of b; floats only. The gradient to a base of 0 with exponent 0 is 0, and so is the gradient to the exponent of a
 * base of 0.
 */
export function pow(a: Operand, b: Operand): Tensor {
  return binaryOp('power', a, b, (node, gradient, base, exponent, power) => {
    const zero = scalarLike(base, 0)
    if (node.needs(0)) {
      const slope = consume(affine(exponent, 1, -1), (less) => binary('power', base, less))
      const scaled = consume(slope, (value) => product(value, exponent))
      const isZero = compare('equal', exponent, zero)
      const safe = consume(scaled, (value) => select(isZero, zero, value))
      releaseValue(isZero)
      node.give(
        0,
        sumTo(
          consume(safe, (value) => product(gradient, value)),
          base.shape,
        ),
      )
    }
    if (node.needs(1)) {
      const slope = consume(unary('log', base), (logarithm) => product(power, logarithm))
      const isZero = compare('equal', base, zero)
      const safe = consume(slope, (value) => select(isZero, zero, value))
      releaseValue(isZero)
      node.give(
        1,
        sumTo(
          consume(safe, (value) => product(gradient, value)),
          exponent.shape,
        ),
      )
    }
    releaseValue(zero)
  })
}

function extremeBackward(comparison: ComparisonOp): Parameters<typeof binaryOp>[3] {
  return (node, gradient, first, second) => {
    const chosen = compare(comparison, first, second)
    const zero = scalarLike(gradient, 0)
    if (node.needs(0)) node.give(0, sumTo(select(chosen, gradient, zero), first.shape))
    if (node.needs(1)) node.give(1, sumTo(select(chosen, zero, gradient), second.shape))
    releaseValue(chosen)
    releaseValue(zero)
  }
}

const maximumBackward = extremeBackward('greater_equal')
const minimumBackward = extremeBackward('less_equal')

/** The larger of each pair; NaN wins. Where both are equal the gradient goes to `a`. */
export function maximum(a: Operand, b: Operand): Tensor {
  return binaryOp('maximum', a, b, maximumBackward)
}

/** The smaller of each pair; NaN wins. Where both are equal the gradient goes to `a`. */
export function minimum(a: Operand, b: Operand): Tensor {
  return binaryOp('minimum', a, b, minimumBackward)
}

function comparison(op: ComparisonOp, a: Operand, b: Operand): Tensor {
  const like = tensorOf(op, a, b)
  const first = operandValue(a, like)
  const second = operandValue(b, like)
  try {
    return wrap(compare(op, first, second))
  } finally {
    releaseValue(first)
    releaseValue(second)
  }
}

/** a == b as uint8, 1 where it holds. Comparisons end the tape. */
export function equal(a: Operand, b: Operand): Tensor {
  return comparison('equal', a, b)
}

/** a != b as uint8. */
export function notEqual(a: Operand, b: Operand): Tensor {
  return comparison('not_equal', a, b)
}

/** a < b as uint8. */
export function less(a: Operand, b: Operand): Tensor {
  return comparison('less', a, b)
}

/** a <= b as uint8. */
export function lessEqual(a: Operand, b: Operand): Tensor {
  return comparison('less_equal', a, b)
}

/** a > b as uint8. */
export function greater(a: Operand, b: Operand): Tensor {
  return comparison('greater', a, b)
}

/** a >= b as uint8. */
export function greaterEqual(a: Operand, b: Operand): Tensor {
  return comparison('greater_equal', a, b)
}

/** `a` where `condition` (uint8) is not 0, else `b`; all three broadcast. */
export function where(condition: Tensor, a: Operand, b: Operand): Tensor {
  const like = tensorOf('where', a, b)
  const test = tensorValue(condition)
  const first = operandValue(a, like)
  const second = operandValue(b, like)
  const firstShape = first.shape
  const secondShape = second.shape
  try {
    const output = select(test, first, second)
    const inputs = [a instanceof Tensor ? tensorNode(a) : null, b instanceof Tensor ? tensorNode(b) : null]
    return result('where', output, inputs, [test], (node, gradient) => {
      const zero = scalarLike(gradient, 0)
      if (node.needs(0)) node.give(0, sumTo(select(test, gradient, zero), firstShape))
      if (node.needs(1)) node.give(1, sumTo(select(test, zero, gradient), secondShape))
      releaseValue(zero)
    })
  } finally {
    releaseValue(first)
    releaseValue(second)
  }
}

/** What backward gets: x, y = f(x), and y's gradient; it gives x's. */
function unaryOp(
  op: UnaryOp,
  x: Tensor,
  slope: (gradient: Value, x: Value, y: Value) => Value,
  keeps: 'x' | 'y' | 'nothing',
): Tensor {
  checkFloat(op, 'x', x)
  const input = tensorValue(x)
  const output = unary(op, input)
  const saved = keeps === 'x' ? [input] : keeps === 'y' ? [output] : []
  const backward: Backward = (node, gradient) => node.give(0, slope(gradient, input, output))
  return result(op, output, nodes(x), saved, backward)
}

/** -x */
export function neg(x: Tensor): Tensor {
  return unaryOp('negate', x, (gradient) => unary('negate', gradient), 'nothing')
}

/** |x|; the gradient at 0 is 0. */
export function abs(x: Tensor): Tensor {
  return unaryOp(
    'absolute',
    x,
    (gradient, input) => {
      const zero = scalarLike(input, 0)
      const positive = compare('greater', input, zero)
      const negative = compare('less', input, zero)
      const minus = unary('negate', gradient)
      const rest = select(negative, minus, zero)
      const output = select(positive, gradient, rest)
      for (const value of [zero, positive, negative, minus, rest]) releaseValue(value)
      return output
    },
    'x',
  )
}

/** e to the power of x. */
export function exp(x: Tensor): Tensor {
  return unaryOp('exp', x, (gradient, _, output) => product(gradient, output), 'y')
}

/** Natural logarithm. */
export function log(x: Tensor): Tensor {
  return unaryOp('log', x, (gradient, input) => binary('divide', gradient, input), 'x')
}

/** Square root. */
export function sqrt(x: Tensor): Tensor {
  return unaryOp(
    'sqrt',
    x,
    (gradient, _, output) => consume(binary('divide', gradient, output), (value) => affine(value, 0.5, 0)),
    'y',
  )
}

/** The tensor in another dtype; itself (a new Tensor of the same memory) when it has it. To int32 and uint8 ends the tape. */
export function cast(x: Tensor, dtype: DType): Tensor {
  const input = tensorValue(x)
  const output = input.dtype === dtype ? retain(input) : castValue(input, dtype)
  if (dtype !== 'float32' && dtype !== 'bfloat16') return wrap(output)
  return result('cast', output, nodes(x), [], (node, gradient) => {
    node.give(0, gradient.dtype === input.dtype ? retain(gradient) : castValue(gradient, input.dtype))
  })
}

/** Stretched to `shape` by NumPy's rule. */
export function broadcastTo(x: Tensor, shape: Shape): Tensor {
  const input = tensorValue(x)
  checkShape('broadcastTo', shape)
  if (!sameShape(broadcastShapes('broadcastTo', input.shape, shape), shape)) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `broadcastTo: shape ${shapeText(input.shape)} does not stretch to ${shapeText(shape)}`,
    )
  }
  const from = input.shape
  const output = broadcastValue(input, [...shape])
  return result('broadcastTo', output, nodes(x), [], (node, gradient) =>
    node.give(0, sumTo(retain(gradient), from)),
  )
}

/** An independent copy; gradients pass through. */
export function clone(x: Tensor): Tensor {
  const output = castValue(tensorValue(x), x.dtype)
  return result('clone', output, nodes(x), [], (node, gradient) => node.give(0, retain(gradient)))
}
