/** What the differentiable functions share: operands that may be numbers or parameters, and results with or without a tape. */
import { type DType, VoltaicError } from '../runtime/index.js'
import { toDType } from './raw.js'
import { type Backward, TapeNode } from './tape.js'
import { type ParameterLike, Tensor, tensorNode, tensorValue, wrap } from './tensor.js'
import { filledValue, releaseValue, retain, type Value } from './value.js'

/** A tensor, or a parameter whose working copy serves where the input is bfloat16. */
export type Weight = Tensor | ParameterLike

export function masterOf(weight: Weight): Tensor {
  return weight instanceof Tensor ? weight : weight.value
}

/**
 * The weight's value in the asked dtype, with a reference of its own: the master, the working copy, the copy that a parameter on the CPU
 * keeps, or a cast made now.
 */
export function weightValue(weight: Weight, dtype: DType): Value {
  const master = tensorValue(masterOf(weight))
  if (weight instanceof Tensor || dtype !== 'bfloat16') return toDType(master, dtype)
  if (weight.working !== null) return retain(tensorValue(weight.working))
  // A captured graph would go on reading the copy of the values that it was captured with.
  return master.device.kind === 'cpu' ? weight.copies.rounded(master) : toDType(master, dtype)
}

/**
 * The panels that a product with the transposed weight may read in its place, with a reference; null where there are none.
 * @param last whether the caller reads nothing else of the weight
 */
export function weightPanels(weight: Weight, dtype: DType, last: boolean): Value | null {
  if (weight instanceof Tensor) return null
  const working = dtype === 'bfloat16' ? weight.working : null
  const origin = tensorValue(working ?? weight.value)
  return weight.copies.panels('forward', origin, dtype, () => weightValue(weight, dtype), last)
}

/**
 * Wraps an op's result. `saved` values (their references stay the caller's) are kept for backward when one of `inputs` needs a
 * gradient.
 */
export function result(
  name: string,
  output: Value,
  inputs: readonly (TapeNode | null)[],
  saved: readonly Value[],
  backward: Backward,
): Tensor {
  for (const input of inputs) {
    if (input === null) continue
    for (const value of saved) retain(value)
    return wrap(output, new TapeNode(name, output, inputs, saved, backward))
  }
  return wrap(output)
}

/** The same for values that nobody else holds: they are the node's, or released. */
export function resultWith(
  name: string,
  output: Value,
  inputs: readonly (TapeNode | null)[],
  saved: readonly Value[],
  backward: Backward,
): Tensor {
  const tensor = result(name, output, inputs, saved, backward)
  for (const value of saved) releaseValue(value)
  return tensor
}

/** The gradient destinations of tensors; null for those absent. */
export function nodes(...tensors: readonly (Tensor | null | undefined)[]): (TapeNode | null)[] {
  return tensors.map((tensor) => (tensor == null ? null : tensorNode(tensor)))
}

/** A number as a value of shape [] beside `like`; a tensor's value with a further reference. */
export function operandValue(operand: Tensor | number, like: Tensor): Value {
  if (typeof operand !== 'number') return retain(tensorValue(operand))
  return filledValue(like.device, like.dtype, [], operand)
}

export function checkFloat(op: string, argument: string, tensor: Tensor): void {
  if (tensor.dtype !== 'float32' && tensor.dtype !== 'bfloat16') {
    throw new VoltaicError(
      'ERR_DTYPE',
      `${op}: ${argument} is ${tensor.dtype}, expected float32 or bfloat16; convert it with to('float32')`,
    )
  }
}

export function checkSameDType(op: string, a: Tensor, b: Tensor): void {
  if (a.dtype !== b.dtype) {
    throw new VoltaicError(
      'ERR_DTYPE',
      `${op}: the operands are ${a.dtype} and ${b.dtype}; convert one of them with to('${a.dtype}')`,
    )
  }
}

export function checkDType(op: string, argument: string, tensor: Tensor, dtype: DType): void {
  if (tensor.dtype !== dtype) {
    throw new VoltaicError('ERR_DTYPE', `${op}: ${argument} is ${tensor.dtype}, expected ${dtype}`)
  }
}
