/** Softmax and log-softmax along the last axis; cross-entropy over the tokens of ragged sequences. */
import { VoltaicError } from '../runtime/index.js'
import { checkDType, checkFloat, nodes, result, resultWith } from './operands.js'
import { consumeView } from './raw.js'
import { permute } from './rows.js'
import { normalizeAxis, shapeText } from './shapes.js'
import { type Tensor, tensorValue } from './tensor.js'
import { newValue, produce, produceAll, releaseValue, retain, viewValue } from './value.js'

function softmaxAlong(op: string, x: Tensor, axis: number, logarithm: 0 | 1): Tensor {
  checkFloat(op, 'x', x)
  const rank = x.shape.length
  const along = normalizeAxis(op, axis, rank)
  if (along !== rank - 1) {
    const order = Array.from({ length: rank }, (_, i) =>
      i === along ? rank - 1 : i === rank - 1 ? along : i,
    )
    const moved = permute(x, order)
    const soft = softmaxAlong(op, moved, -1, logarithm)
    const output = permute(soft, order)
    moved.dispose()
    soft.dispose()
    return output
  }
  const input = tensorValue(x)
  const output = newValue(input.device, input.dtype, input.shape)
  produce(output, 'softmax_forward', [input.handle, output.handle], [logarithm])
  return result(op, output, nodes(x), [output], (node, gradient) => {
    const toInput = newValue(output.device, output.dtype, output.shape)
    node.give(
      0,
      produce(toInput, 'softmax_backward', [output.handle, gradient.handle, toInput.handle], [logarithm]),
    )
  })
}

/** exp(x) / sum of exp(x) along `axis` (default the last). */
export function softmax(x: Tensor, axis = -1): Tensor {
  return softmaxAlong('softmax', x, axis, 0)
}

/** log(softmax(x)), without its loss of accuracy. */
export function logSoftmax(x: Tensor, axis = -1): Tensor {
  return softmaxAlong('logSoftmax', x, axis, 1)
}

/**
 * Cross-entropy over the tokens of each sequence (question answering's start and end): the mean over sequences with a target.
 * @param logits [tokens] float32. @param offsets int32 [sequences + 1].
 * @param targets int32 [sequences], counted from the sequence's first token; -100 is ignored.
 * @returns a scalar; 0 when every sequence is ignored.
 */
export function raggedCrossEntropy(logits: Tensor, offsets: Tensor, targets: Tensor): Tensor {
  const op = 'raggedCrossEntropy'
  checkDType(op, 'logits', logits, 'float32')
  checkDType(op, 'offsets', offsets, 'int32')
  checkDType(op, 'targets', targets, 'int32')
  if (logits.shape.length !== 1 || offsets.size !== targets.size + 1) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `${op}: logits ${shapeText(logits.shape)}, offsets ${shapeText(offsets.shape)} and targets ` +
        `${shapeText(targets.shape)}; expected [tokens], [sequences + 1] and [sequences]`,
    )
  }
  const input = tensorValue(logits)
  const bounds = tensorValue(offsets)
  const wanted = tensorValue(targets)
  const loss = newValue(input.device, 'float32', [1])
  const logSumExp = newValue(input.device, 'float32', [wanted.size])
  const valid = newValue(input.device, 'int32', [1])
  produceAll([loss, logSumExp, valid], 'ragged_cross_entropy_forward', [
    input.handle,
    bounds.handle,
    wanted.handle,
    loss.handle,
    logSumExp.handle,
    valid.handle,
  ])
  const saved = [retain(input), retain(bounds), retain(wanted), logSumExp, valid]
  return resultWith(op, consumeView(loss, []), nodes(logits), saved, (node, gradient) => {
    const toLoss = viewValue(gradient, [1])
    const toLogits = newValue(input.device, 'float32', input.shape)
    produce(toLogits, 'ragged_cross_entropy_backward', [
      toLoss.handle,
      input.handle,
      bounds.handle,
      wanted.handle,
      logSumExp.handle,
      valid.handle,
      toLogits.handle,
    ])
    releaseValue(toLoss)
    node.give(0, toLogits)
  })
}
