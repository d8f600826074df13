/** Losses made of general ops; cross-entropies have kernels of their own. */
import { VoltaicError } from '../runtime/index.js'
import { abs, add, exp, log, maximum, mul, neg, sub } from './elementwise.js'
import { mean } from './reduction.js'
import { sameShape, shapeText } from './shapes.js'
import type { Tensor } from './tensor.js'

function checkShapes(op: string, x: Tensor, targets: Tensor): void {
  if (!sameShape(x.shape, targets.shape)) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `${op}: shapes ${shapeText(x.shape)} and ${shapeText(targets.shape)}; expected the same`,
    )
  }
}

/** Mean of (x - targets)². A scalar. */
export function meanSquaredError(x: Tensor, targets: Tensor): Tensor {
  checkShapes('meanSquaredError', x, targets)
  const difference = sub(x, targets)
  const square = mul(difference, difference)
  const output = mean(square)
  difference.dispose()
  square.dispose()
  return output
}

/** Mean sigmoid cross-entropy of logits against targets between 0 and 1, of the same dtype. A scalar. */
export function binaryCrossEntropyWithLogits(logits: Tensor, targets: Tensor): Tensor {
  checkShapes('binaryCrossEntropyWithLogits', logits, targets)
  // max(x, 0) - x t + log(1 + exp(-|x|)) is finite for any x.
  const size = abs(logits)
  const minus = neg(size)
  const small = exp(minus)
  const one = add(small, 1)
  const softplus = log(one)
  const positive = maximum(logits, 0)
  const product = mul(logits, targets)
  const linear = sub(positive, product)
  const each = add(linear, softplus)
  const output = mean(each)
  for (const tensor of [size, minus, small, one, softplus, positive, product, linear, each]) tensor.dispose()
  return output
}
