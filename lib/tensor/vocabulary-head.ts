/** Cross-entropy of rows of logits with what else one pass over them gives: predictions, counts and Gumbel-max samples. */
import { VoltaicError } from '../runtime/index.js'
import type { RandomSite } from './dropout-site.js'
import { checkDType, checkFloat, nodes, resultWith } from './operands.js'
import { consumeView, toDType } from './raw.js'
import { sameShape, shapeText } from './shapes.js'
import { type Tensor, tensorValue, wrap } from './tensor.js'
import { newValue, produce, produceAll, releaseValue, retain, type Value, viewValue } from './value.js'

export interface SamplingOptions extends RandomSite {
  /** Divides the logits before sampling. Default 1. */
  readonly temperature?: number | undefined
  /** Makes a sample equal to the target as good as impossible. Default false. */
  readonly disallowTarget?: boolean | undefined
}

export interface VocabularyCrossEntropyOptions {
  /** Draws a class for each counted row; none when left out. */
  readonly sampling?: SamplingOptions | null | undefined
  /** dtype of the gradient handed back to the product behind the logits. Default: the logits' own. */
  readonly gradientDtype?: 'float32' | 'bfloat16' | undefined
}

export interface VocabularyCrossEntropyOutput {
  /** Mean over the rows whose target is not -100; 0 when there are none. A scalar. */
  readonly loss: Tensor
  /** int32 [rows]: the largest logit's class. */
  readonly predictions: Tensor
  /** int32 [2]: rows counted, and those of them predicted right. */
  readonly counts: Tensor
  /** int32 [rows]: the classes drawn, -1 in ignored rows; null when none were asked for. */
  readonly samples: Tensor | null
}

/** @param logits [rows, classes]. @param targets int32 [rows]; -100 is ignored. */
export function vocabularyCrossEntropy(
  logits: Tensor,
  targets: Tensor,
  options: VocabularyCrossEntropyOptions = {},
): VocabularyCrossEntropyOutput {
  const op = 'vocabularyCrossEntropy'
  checkFloat(op, 'logits', logits)
  checkDType(op, 'targets', targets, 'int32')
  if (logits.shape.length !== 2 || !sameShape(targets.shape, [logits.shape[0] as number])) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `${op}: logits ${shapeText(logits.shape)} and targets ${shapeText(targets.shape)}; expected [rows, classes] ` +
        'and [rows]',
    )
  }
  const sampling = options.sampling ?? null
  const wanted = tensorValue(targets)
  const { device } = wanted
  const rows = wanted.size
  const state = sampling === null ? null : tensorValue(sampling.state)
  const given = tensorValue(logits)
  const gradientDtype = options.gradientDtype ?? given.dtype
  const input = toDType(given, 'float32')
  const loss = newValue(device, 'float32', [1])
  const logSumExp = newValue(device, 'float32', [rows])
  const predictions = newValue(device, 'int32', [rows])
  const counts = newValue(device, 'int32', [2])
  const samples = sampling === null ? null : newValue(device, 'int32', [rows])
  const outputs: Value[] = [input, loss, logSumExp, predictions, counts]
  if (samples !== null) outputs.push(samples)
  produceAll(
    outputs,
    'vocabulary_head_forward',
    [
      input.handle,
      wanted.handle,
      state?.handle ?? null,
      loss.handle,
      logSumExp.handle,
      predictions.handle,
      counts.handle,
      samples?.handle ?? null,
    ],
    [sampling?.temperature ?? 1, sampling?.site ?? 0, sampling?.disallowTarget === true ? 1 : 0],
  )
  const saved = [input, retain(wanted), logSumExp, retain(counts)]
  const lossTensor = resultWith(op, consumeView(loss, []), nodes(logits), saved, (node, gradient) => {
    const toLoss = viewValue(gradient, [1])
    const toLogits = newValue(device, gradientDtype, input.shape)
    produce(toLogits, 'vocabulary_head_backward', [
      toLoss.handle,
      input.handle,
      wanted.handle,
      logSumExp.handle,
      counts.handle,
      toLogits.handle,
    ])
    releaseValue(toLoss)
    node.give(0, toLogits)
  })
  return {
    loss: lossTensor,
    predictions: wrap(predictions),
    counts: wrap(counts),
    samples: samples === null ? null : wrap(samples),
  }
}

/** Mean cross-entropy of `logits` [rows, classes] against int32 `targets` [rows]; -100 is ignored. A scalar. */
export function crossEntropy(logits: Tensor, targets: Tensor): Tensor {
  const { loss, predictions, counts } = vocabularyCrossEntropy(logits, targets)
  predictions.dispose()
  counts.dispose()
  return loss
}
