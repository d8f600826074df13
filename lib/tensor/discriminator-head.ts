/** The discriminator's last layer with its loss: one logit a token, sigmoid cross-entropy, and counts for its metrics. */
import { run, VoltaicError } from '../runtime/index.js'
import { checkDType, checkFloat, masterOf, nodes, resultWith, type Weight } from './operands.js'
import { consumeView } from './raw.js'
import { sameShape, shapeText } from './shapes.js'
import { type Tensor, tensorValue, wrap } from './tensor.js'
import { newValue, produceAll, releaseValue, retain, viewValue } from './value.js'

/** Elements of the metrics tensor: the four cells of the confusion matrix and two histograms of 2048 bins. */
export const discriminatorMetricsSize = 4100

export interface DiscriminatorLossOptions {
  /**
   * int32 [4100], added to: true positives, false positives, true negatives, false negatives (positive is logit > 0), then
   * histograms of the positives' and the negatives' logits, 2048 bins each over [-16, 16). None when left out.
   */
  readonly metrics?: Tensor | null | undefined
}

export interface DiscriminatorLossOutput {
  /** Mean over the tokens whose label is not -100; 0 when there are none. A scalar. */
  readonly loss: Tensor
  /** float32 [tokens], detached: gradients flow through the loss. */
  readonly logits: Tensor
  /** int32 [1]: how many tokens counted. */
  readonly valid: Tensor
}

/**
 * Mean sigmoid cross-entropy of hidden · weight + bias against labels.
 * @param hidden [tokens, width]. @param weight [1, width] float32. @param bias [1] float32.
 * @param labels int32 [tokens]: 1, 0, or -100 for ignored.
 */
export function discriminatorLoss(
  hidden: Tensor,
  weight: Weight,
  bias: Weight,
  labels: Tensor,
  options: DiscriminatorLossOptions = {},
): DiscriminatorLossOutput {
  const op = 'discriminatorLoss'
  checkFloat(op, 'hidden', hidden)
  checkDType(op, 'labels', labels, 'int32')
  const kernel = masterOf(weight)
  const shift = masterOf(bias)
  const [tokens, width] = hidden.shape
  if (
    hidden.shape.length !== 2 ||
    !sameShape(kernel.shape, [1, width as number]) ||
    !sameShape(labels.shape, [tokens as number])
  ) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `${op}: hidden ${shapeText(hidden.shape)}, weight ${shapeText(kernel.shape)}, labels ${shapeText(labels.shape)}; ` +
        'expected [tokens, width], [1, width] and [tokens]',
    )
  }
  const input = tensorValue(hidden)
  const weightIn = tensorValue(kernel)
  const biasIn = tensorValue(shift)
  const wanted = tensorValue(labels)
  const metrics = options.metrics == null ? null : tensorValue(options.metrics)
  const { device } = input
  const logits = newValue(device, 'float32', wanted.shape)
  const loss = newValue(device, 'float32', [1])
  const valid = newValue(device, 'int32', [1])
  produceAll([logits, loss, valid], 'discriminator_head_forward', [
    input.handle,
    weightIn.handle,
    biasIn.handle,
    wanted.handle,
    logits.handle,
    loss.handle,
    valid.handle,
    metrics?.handle ?? null,
  ])
  const saved = [retain(input), retain(weightIn), retain(wanted), retain(logits), retain(valid)]
  const inputs = nodes(hidden, kernel, shift)
  const lossTensor = resultWith(op, consumeView(loss, []), inputs, saved, (node, gradient) => {
    const toLoss = viewValue(gradient, [1])
    const toHidden = newValue(device, input.dtype, input.shape)
    const toWeight = node.open(1, weightIn)
    const toBias = node.open(2, biasIn)
    run('discriminator_head_backward', [
      toLoss.handle,
      input.handle,
      weightIn.handle,
      wanted.handle,
      logits.handle,
      valid.handle,
      toHidden.handle,
      toWeight.handle,
      toBias.handle,
    ])
    releaseValue(toLoss)
    node.give(0, toHidden)
    node.close(1, toWeight)
    node.close(2, toBias)
  })
  return { loss: lossTensor, logits: wrap(logits), valid: wrap(valid) }
}
