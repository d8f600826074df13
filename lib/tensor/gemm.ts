/** Matrix products: `linear`, with bias and activation in the same pass, and NumPy's `matmul`. */
import { type Device, type DType, type Handle, run, type Shape, VoltaicError } from '../runtime/index.js'
import { type Activation, activationKind } from './activation.js'
import {
  checkDType,
  checkFloat,
  checkSameDType,
  masterOf,
  type Weight,
  weightPanels,
  weightValue,
} from './operands.js'
import { broadcastValue, consumeView, sumTo, toDType } from './raw.js'
import { broadcastShapes, sameShape, shapeText, sizeOf } from './shapes.js'
import { TapeNode } from './tape.js'
import { Tensor, tensorNode, tensorValue, wrap } from './tensor.js'
import { newValue, produce, releaseValue, retain, type Value, viewValue } from './value.js'
import type { WeightCopies } from './weight-copies.js'

const epilogue = {
  none: 0,
  bias: 1,
  biasActivation: 2,
  activationGradient: 3,
  activationGradientAndValue: 4,
} as const

export interface LinearOptions {
  /** Applied to the sum of product and bias, in the same pass. */
  readonly activation?: Activation | undefined
  /** The result's dtype; default the input's. float32 from bfloat16 keeps the product's full accuracy, for logits. */
  readonly outputDtype?: 'float32' | 'bfloat16' | undefined
}

/** What one `linear` call's backward reads. */
interface LinearCall {
  readonly x: { readonly device: Device; readonly dtype: DType; readonly shape: Shape }
  readonly input: LinearInput | null
  readonly weight: Value
  /** Of a parameter. */
  readonly copies: WeightCopies | null
  readonly preactivation: Value | null
  readonly activation: number
  readonly rows: number
  readonly inner: number
  readonly outer: number
}

/**
 * What the weight's gradient needs of x: x itself, or what it is an activation of. The layer before keeps that anyway, and one pass
 * over it costs less than its own size in memory through the rest of the step.
 */
interface LinearInput {
  readonly value: Value
  readonly activation: number | null
}

function inputOf(x: Tensor): LinearInput {
  const fusion = tensorNode(x)?.fusion ?? null
  if (fusion === null || fusion.preactivation.dtype !== x.dtype) {
    return { value: retain(tensorValue(x)), activation: null }
  }
  return { value: retain(fusion.preactivation), activation: fusion.activation }
}

/** x with a reference of its own. */
function inputValue({ value, activation }: LinearInput): Value {
  if (activation === null) return retain(value)
  const x = newValue(value.device, value.dtype, value.shape)
  return produce(x, 'activation_forward', [value.handle, x.handle], [activation])
}

/**
 * x weightᵀ + bias, and an activation of it.
 * @param x [..., k]; bfloat16 uses the weight's working copy.
 * @param weight [n, k], as checkpoints store it.
 * @param bias [n], float32; null or left out for none.
 * @returns [..., n]
 */
export function linear(x: Tensor, weight: Weight, bias?: Weight | null, options: LinearOptions = {}): Tensor {
  checkFloat('linear', 'x', x)
  const input = tensorValue(x)
  const master = masterOf(weight)
  const biasTensor = bias == null ? null : masterOf(bias)
  const inner = x.shape[x.shape.length - 1]
  const outer = master.shape[0]
  if (inner === undefined || master.shape.length !== 2 || master.shape[1] !== inner || outer === undefined) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `linear: x has shape ${shapeText(x.shape)} and the weight ${shapeText(master.shape)}, ` +
        'expected [..., k] and [n, k]',
    )
  }
  if (biasTensor !== null && (biasTensor.shape.length !== 1 || biasTensor.shape[0] !== outer)) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `linear: the bias has shape ${shapeText(biasTensor.shape)}, expected [${outer}]`,
    )
  }
  if (biasTensor !== null) checkDType('linear', 'the bias', biasTensor, 'float32')
  const biasValue = biasTensor === null ? null : tensorValue(biasTensor)
  const rows = sizeOf(x.shape.slice(0, -1))
  const inputs = [tensorNode(x), tensorNode(master), biasTensor === null ? null : tensorNode(biasTensor)]
  const recorded = inputs[0] !== null || inputs[1] !== null || inputs[2] !== null
  const activation = options.activation === undefined ? 0 : activationKind('linear', options.activation)
  const activates = options.activation !== undefined
  const panels = weightPanels(weight, x.dtype, !recorded)
  const weightIn = recorded || panels === null ? weightValue(weight, x.dtype) : null
  const shape = [...x.shape.slice(0, -1), outer]
  const output = newValue(input.device, options.outputDtype ?? x.dtype, shape)
  const preactivation = activates && recorded ? newValue(input.device, x.dtype, shape) : null
  const kind = activates ? epilogue.biasActivation : biasValue !== null ? epilogue.bias : epilogue.none
  try {
    const others = [biasValue?.handle ?? null, preactivation?.handle ?? null, null, output.handle]
    const sizes = { m: rows, n: outer, k: inner }
    multiplyWeight(input, weightIn, panels, others, sizes, { transpose: 1, beta: 0, kind, activation })
  } catch (error) {
    for (const value of [output, weightIn, preactivation, panels]) if (value !== null) releaseValue(value)
    throw error
  }
  if (panels !== null) releaseValue(panels)
  if (!recorded || weightIn === null) {
    if (weightIn !== null) releaseValue(weightIn)
    return wrap(output)
  }
  const copies = weight instanceof Tensor ? null : weight.copies
  const kept = inputs[1] === null ? null : inputOf(x)
  const call: LinearCall = {
    x: { device: input.device, dtype: input.dtype, shape: input.shape },
    input: kept,
    weight: weightIn,
    copies,
    preactivation,
    activation,
    rows,
    inner,
    outer,
  }
  const saved = [weightIn]
  if (kept !== null) saved.push(kept.value)
  if (preactivation !== null) saved.push(preactivation)
  const node = new TapeNode('linear', output, inputs, saved, (self, gradient) =>
    linearBackward(self, gradient, call),
  )
  node.acceptsAnyFloat = true
  if (preactivation !== null) node.fusion = { preactivation, activation }
  return wrap(output, node)
}

/** A product with a weight: of its panels where it has some. `others`: bias, saved, the bias's gradient and the result. */
function multiplyWeight(
  a: Value,
  weight: Value | null,
  panels: Value | null,
  others: readonly (Handle | null)[],
  { m, n, k }: { readonly m: number; readonly n: number; readonly k: number },
  call: {
    readonly transpose: 0 | 1
    readonly beta: 0 | 1
    readonly kind: number
    readonly activation: number
  },
): void {
  const { transpose, beta, kind, activation } = call
  if (panels !== null) {
    run('gemm_packed', [a.handle, panels.handle, ...others], [m, n, k, beta, kind, activation])
  } else {
    const b = (weight as Value).handle
    run('gemm', [a.handle, b, ...others], [m, n, k, 0, transpose, 1, beta, kind, activation, 1, 0, 0, 0])
  }
}

function linearBackward(node: TapeNode, gradient: Value, call: LinearCall): void {
  let sums = toDType(gradient, call.x.dtype)
  const { preactivation } = call
  const fused = node.preactivationGradient
  if (preactivation !== null && !fused) {
    const before = newValue(sums.device, sums.dtype, sums.shape)
    run('activation_backward', [preactivation.handle, sums.handle, before.handle], [call.activation])
    releaseValue(sums)
    sums = before
  }
  if (node.needs(2) && !fused) addBiasGradient(node, sums, call)
  const activated = node.needs(0) && giveInputGradient(node, sums, call)
  if (node.needs(1) && call.input !== null) {
    const x = activated ? retain(call.input.value) : inputValue(call.input)
    const buffer = node.open(1, call.weight)
    run(
      'gemm',
      [sums.handle, x.handle, null, null, null, buffer.handle],
      [call.outer, call.inner, call.rows, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0],
    )
    releaseValue(x)
    node.close(1, buffer)
  }
  releaseValue(sums)
}

function addBiasGradient(node: TapeNode, sums: Value, call: LinearCall): void {
  const rows = sums.shape.length === 2 ? retain(sums) : viewValue(sums, [call.rows, call.outer])
  const buffer = node.openShape(2, sums.device, [call.outer])
  run('bias_gradient', [rows.handle, buffer.handle])
  node.close(2, buffer)
  releaseValue(rows)
}

/**
 * sums weight, added to what the input's gradient is already, or through the activation of the layer before. True when that turned
 * the pre-activation, which nothing else reads any more, into the activation: the weight's gradient wants it next.
 */
function giveInputGradient(node: TapeNode, sums: Value, call: LinearCall): boolean {
  const { x, weight } = call
  const panels =
    call.copies?.panels('inputGradient', weight, weight.dtype, () => retain(weight), false) ?? null
  const sizes = { m: call.rows, n: call.inner, k: call.outer }
  const plain = { transpose: 0, beta: 0, kind: epilogue.none, activation: 0 } as const
  const pending = node.pending(0)
  const output = pending === null ? newValue(x.device, x.dtype, x.shape) : null
  let activated = false
  try {
    if (output === null) {
      const others = [null, null, null, (pending as Value).handle]
      multiplyWeight(sums, weight, panels, others, sizes, { ...plain, beta: 1 })
      return false
    }
    const producer = node.fusible(0)
    if (producer?.fusion == null || producer.fusion.preactivation.dtype !== sums.dtype) {
      multiplyWeight(sums, weight, panels, [null, null, null, output.handle], sizes, plain)
    } else {
      const { preactivation, activation } = producer.fusion
      const bias = producer.needs(2) ? producer.openShape(2, output.device, [call.inner]) : null
      const others = [null, preactivation.handle, bias?.handle ?? null, output.handle]
      activated = node.needs(1) && call.input?.value === preactivation && x.device.kind === 'cpu'
      const kind = activated ? epilogue.activationGradientAndValue : epilogue.activationGradient
      multiplyWeight(sums, weight, panels, others, sizes, { ...plain, kind, activation })
      if (bias !== null) producer.close(2, bias)
      producer.preactivationGradient = true
    }
  } catch (error) {
    if (output !== null) releaseValue(output)
    throw error
  } finally {
    if (panels !== null) releaseValue(panels)
  }
  node.give(0, output)
  return activated
}

/** One batched product: items of a [m, k], b [k, n], c [m, n]; stride 0 shares an item. */
function products(
  a: Value,
  b: Value,
  c: Value,
  sizes: { m: number; n: number; k: number; batch: number },
  options: { transposeA?: boolean; transposeB?: boolean; sharedA?: boolean; sharedB?: boolean },
): Value {
  const { m, n, k, batch } = sizes
  const strideA = options.sharedA ? 0 : m * k
  const strideB = options.sharedB ? 0 : k * n
  const transposes = [options.transposeA ? 1 : 0, options.transposeB ? 1 : 0]
  return produce(
    c,
    'gemm',
    [a.handle, b.handle, null, null, null, c.handle],
    [m, n, k, ...transposes, 1, 0, 0, 0, batch, strideA, strideB, m * n],
  )
}

/**
 * NumPy's matmul: products of the last two axes, the axes before broadcast. A 1-D operand is a row on the left and a column on
 * the right, and its axis is absent from the result.
 */
export function matmul(a: Tensor, b: Tensor): Tensor {
  checkFloat('matmul', 'a', a)
  checkSameDType('matmul', a, b)
  const first = tensorValue(a)
  const second = tensorValue(b)
  if (first.shape.length === 0 || second.shape.length === 0) {
    throw new VoltaicError('ERR_SHAPE', 'matmul: an operand is a scalar; use mul')
  }
  const shapeA = first.shape.length === 1 ? [1, first.size] : first.shape
  const shapeB = second.shape.length === 1 ? [second.size, 1] : second.shape
  const [m, k] = shapeA.slice(-2) as [number, number]
  const [rowsB, n] = shapeB.slice(-2) as [number, number]
  if (k !== rowsB) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `matmul: shapes ${shapeText(first.shape)} and ${shapeText(second.shape)} do not fit: ${k} columns against ` +
        `${rowsB} rows`,
    )
  }
  const batchA = shapeA.slice(0, -2)
  const batchB = shapeB.slice(0, -2)
  const batch = broadcastShapes('matmul', batchA, batchB)
  const items = sizeOf(batch)
  const left = batchOperand(first, batchA, batch, [m, k])
  const right = batchOperand(second, batchB, batch, [k, n])
  const sizes = { m, n, k, batch: items }
  const shape = [...batch]
  if (first.shape.length > 1) shape.push(m)
  if (second.shape.length > 1) shape.push(n)
  const output = newValue(first.device, first.dtype, shape)
  products(left.value, right.value, output, sizes, { sharedA: left.shared, sharedB: right.shared })
  const inputs = [tensorNode(a), tensorNode(b)]
  if (inputs[0] === null && inputs[1] === null) {
    releaseValue(left.value)
    releaseValue(right.value)
    return wrap(output)
  }
  const node = new TapeNode('matmul', output, inputs, [left.value, right.value], (self, gradient) => {
    if (self.needs(0)) {
      const c = newValue(gradient.device, gradient.dtype, [...batch, m, k])
      products(
        gradient,
        right.value,
        c,
        { m, n: k, k: n, batch: items },
        { transposeB: true, sharedB: right.shared },
      )
      self.give(0, consumeView(sumTo(c, shapeA), first.shape))
    }
    if (self.needs(1) && right.shared && !left.shared) {
      // All items of a share b: their rows are one tall matrix.
      const c = newValue(gradient.device, gradient.dtype, [k, n])
      products(left.value, gradient, c, { m: k, n, k: items * m, batch: 1 }, { transposeA: true })
      self.give(1, consumeView(c, second.shape))
    } else if (self.needs(1)) {
      const c = newValue(gradient.device, gradient.dtype, [...batch, k, n])
      products(
        left.value,
        gradient,
        c,
        { m: k, n, k: m, batch: items },
        { transposeA: true, sharedA: left.shared },
      )
      self.give(1, consumeView(sumTo(c, shapeB), second.shape))
    }
  })
  return wrap(output, node)
}

/** A matmul operand with a reference of its own: one item shared by the whole batch, or as many items as the batch has. */
function batchOperand(
  value: Value,
  own: Shape,
  batch: Shape,
  matrix: readonly [number, number],
): { readonly value: Value; readonly shared: boolean } {
  if (sameShape(own, batch)) return { value: retain(value), shared: false }
  if (sizeOf(own) === 1) return { value: retain(value), shared: true }
  return { value: broadcastValue(value, [...batch, ...matrix]), shared: false }
}
