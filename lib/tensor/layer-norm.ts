/** LayerNorm over the last axis, alone or with the dropout and the residual sum before it. */
import { run, VoltaicError } from '../runtime/index.js'
import { checkDropout, type Dropout } from './dropout-site.js'
import { checkDType, checkFloat, masterOf, nodes, resultWith, type Weight } from './operands.js'
import { consumeView } from './raw.js'
import { sameShape, shapeText, sizeOf } from './shapes.js'
import { type Tensor, tensorValue } from './tensor.js'
import { newValue, produceAll, releaseValue, retain, type Value, viewValue } from './value.js'

export interface LayerNormOptions {
  /** Added to the variance. Default 1e-12, ELECTRA's. */
  readonly epsilon?: number | undefined
}

export interface DropoutResidualLayerNormOptions extends LayerNormOptions {
  /** Dropout of `x`; none when left out. */
  readonly dropout?: Dropout | null | undefined
}

/** The value as [rows, width], with a reference of its own. */
export function asRows(value: Value, width: number): Value {
  if (value.shape.length === 2) return retain(value)
  return viewValue(value, [sizeOf(value.shape.slice(0, -1)), width])
}

function checkNorm(op: string, x: Tensor, weight: Tensor, bias: Tensor): number {
  checkFloat(op, 'x', x)
  checkDType(op, 'the weight', weight, 'float32')
  checkDType(op, 'the bias', bias, 'float32')
  const width = x.shape[x.shape.length - 1]
  if (width === undefined || !sameShape(weight.shape, [width]) || !sameShape(bias.shape, [width])) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `${op}: x has shape ${shapeText(x.shape)}, the weight ${shapeText(weight.shape)}, the bias ` +
        `${shapeText(bias.shape)}; expected [..., width], [width] and [width]`,
    )
  }
  return width
}

/**
 * (x - mean) / sqrt(variance + epsilon) * weight + bias over the last axis.
 * @param x [..., width]; weight and bias [width], float32.
 */
export function layerNorm(x: Tensor, weight: Weight, bias: Weight, options: LayerNormOptions = {}): Tensor {
  const scale = masterOf(weight)
  const shift = masterOf(bias)
  const width = checkNorm('layerNorm', x, scale, shift)
  const { device, dtype, shape } = tensorValue(x)
  const input = asRows(tensorValue(x), width)
  const rows = input.shape[0] as number
  const scaleValue = tensorValue(scale)
  const y = newValue(device, dtype, input.shape)
  const mean = newValue(device, 'float32', [rows])
  const inverseStd = newValue(device, 'float32', [rows])
  produceAll(
    [input, y, mean, inverseStd],
    'layer_norm_forward',
    [input.handle, scaleValue.handle, tensorValue(shift).handle, y.handle, mean.handle, inverseStd.handle],
    [options.epsilon ?? 1e-12],
  )
  const saved = [input, mean, inverseStd, retain(scaleValue)]
  return resultWith('layerNorm', consumeView(y, shape), nodes(x, scale, shift), saved, (node, gradient) => {
    const from = asRows(gradient, width)
    const toInput = newValue(device, dtype, [rows, width])
    const toScale = node.open(1, scaleValue)
    const toShift = node.open(2, scaleValue)
    run('layer_norm_backward', [
      from.handle,
      input.handle,
      mean.handle,
      inverseStd.handle,
      scaleValue.handle,
      toInput.handle,
      toScale.handle,
      toShift.handle,
    ])
    releaseValue(from)
    node.give(0, consumeView(toInput, shape))
    node.close(1, toScale)
    node.close(2, toShift)
  })
}

/**
 * layerNorm(dropout(x) + residual), the end of each transformer sublayer, in one pass.
 * @param x and residual [..., width], of one dtype; weight and bias [width], float32.
 */
export function dropoutResidualLayerNorm(
  x: Tensor,
  residual: Tensor,
  weight: Weight,
  bias: Weight,
  options: DropoutResidualLayerNormOptions = {},
): Tensor {
  const op = 'dropoutResidualLayerNorm'
  const scale = masterOf(weight)
  const shift = masterOf(bias)
  const width = checkNorm(op, x, scale, shift)
  checkDType(op, 'residual', residual, x.dtype)
  if (!sameShape(x.shape, residual.shape)) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `${op}: x has shape ${shapeText(x.shape)}, the residual ${shapeText(residual.shape)}; expected the same`,
    )
  }
  const { state, probability, site } = checkDropout(op, options.dropout)
  const { device, dtype, shape } = tensorValue(x)
  const input = asRows(tensorValue(x), width)
  const beside = asRows(tensorValue(residual), width)
  const rows = input.shape[0] as number
  const scaleValue = tensorValue(scale)
  const sum = newValue(device, dtype, input.shape)
  const y = newValue(device, dtype, input.shape)
  const mean = newValue(device, 'float32', [rows])
  const inverseStd = newValue(device, 'float32', [rows])
  produceAll(
    [input, beside, sum, y, mean, inverseStd],
    'dropout_residual_layer_norm_forward',
    [
      input.handle,
      beside.handle,
      scaleValue.handle,
      tensorValue(shift).handle,
      state?.handle ?? null,
      sum.handle,
      y.handle,
      mean.handle,
      inverseStd.handle,
    ],
    [options.epsilon ?? 1e-12, probability, site],
  )
  releaseValue(input)
  releaseValue(beside)
  const saved = [sum, mean, inverseStd, retain(scaleValue)]
  if (state !== null) saved.push(retain(state))
  const inputs = nodes(x, residual, scale, shift)
  return resultWith(op, consumeView(y, shape), inputs, saved, (node, gradient) => {
    const from = asRows(gradient, width)
    const toInput = newValue(device, dtype, [rows, width])
    const toResidual = newValue(device, dtype, [rows, width])
    const toScale = node.open(2, scaleValue)
    const toShift = node.open(3, scaleValue)
    run(
      'dropout_residual_layer_norm_backward',
      [
        from.handle,
        sum.handle,
        mean.handle,
        inverseStd.handle,
        scaleValue.handle,
        state?.handle ?? null,
        toInput.handle,
        toResidual.handle,
        toScale.handle,
        toShift.handle,
      ],
      [probability, site],
    )
    releaseValue(from)
    node.give(0, consumeView(toInput, shape))
    node.give(1, consumeView(toResidual, shape))
    node.close(2, toScale)
    node.close(3, toShift)
  })
}
