/**
 * Cross-entropy over a vocabulary with what else one pass over the logits gives: predictions, counts and Gumbel-max samples. Of given
 * logits, or of a projection whose logits are computed tile by tile and never all in memory.
 */
import { type Device, run, VoltaicError } from '../runtime/index.js'
import type { RandomSite } from './dropout-site.js'
import { checkDType, checkFloat, masterOf, nodes, resultWith, type Weight, weightValue } from './operands.js'
import { consumeView, toDType } from './raw.js'
import { sameShape, shapeText } from './shapes.js'
import type { TapeNode } from './tape.js'
import { type Tensor, tensorValue, wrap } from './tensor.js'
import { newValue, produce, releaseValue, retain, type Value, viewValue } from './value.js'

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

export interface VocabularyHeadOptions {
  /** Draws a class for each counted row; none when left out. */
  readonly sampling?: SamplingOptions | null | undefined
  /** Classes whose logits are in memory at once, a multiple of 4. Default: 2048 on the CPU, elsewhere all. */
  readonly tile?: number | undefined
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

/**
 * On the CPU: 612 rows' logits of a tile are 5 MB and stay in the shared cache between the product and the pass over them, while each
 * product is large enough to run at full speed.
 */
const cpuTile = 2048

/** What a pass over the tiles of the logits leaves. */
class HeadPass {
  readonly #targets: Value
  readonly #sampling: SamplingOptions | null
  readonly #classes: number
  readonly #statistics: Value
  readonly #device: Device
  readonly predictions: Value
  readonly samples: Value | null
  readonly loss: Value
  readonly logSumExp: Value
  readonly counts: Value

  constructor(targets: Value, classes: number, sampling: SamplingOptions | null) {
    const { device, size: rows } = targets
    this.#targets = targets
    this.#sampling = sampling
    this.#classes = classes
    this.#device = device
    this.#statistics = newValue(device, 'float32', [rows, 4])
    this.predictions = newValue(device, 'int32', [rows])
    this.samples = sampling === null ? null : newValue(device, 'int32', [rows])
    this.loss = newValue(device, 'float32', [1])
    this.logSumExp = newValue(device, 'float32', [rows])
    this.counts = newValue(device, 'int32', [2])
  }

  /** The classes from `first` on; tiles come in order. */
  take(logits: Value, first: number): void {
    const { state, temperature = 1, site = 0, disallowTarget = false } = this.#sampling ?? {}
    run(
      'vocabulary_head_tile',
      [
        logits.handle,
        this.#targets.handle,
        state === undefined ? null : tensorValue(state).handle,
        this.#statistics.handle,
        this.predictions.handle,
        this.samples?.handle ?? null,
      ],
      [first, this.#classes, temperature, site, disallowTarget ? 1 : 0],
    )
  }

  /** After the last tile. */
  finish(): void {
    run('vocabulary_head_loss', [
      this.#statistics.handle,
      this.#targets.handle,
      this.predictions.handle,
      this.loss.handle,
      this.logSumExp.handle,
      this.counts.handle,
    ])
    releaseValue(this.#statistics)
  }

  /** The gradient of the logits from `first` on, in `dtype`. */
  gradient(toLoss: Value, logits: Value, first: number, dtype: 'float32' | 'bfloat16'): Value {
    const output = newValue(this.#device, dtype, logits.shape)
    return produce(
      output,
      'vocabulary_head_backward',
      [
        toLoss.handle,
        logits.handle,
        this.#targets.handle,
        this.logSumExp.handle,
        this.counts.handle,
        output.handle,
      ],
      [first, this.#classes],
    )
  }

  /** Frees everything, for a call that was refused. */
  release(): void {
    const { predictions, samples, loss, logSumExp, counts } = this
    for (const value of [this.#statistics, predictions, samples, loss, logSumExp, counts])
      if (value !== null) releaseValue(value)
  }

  /** The results as tensors; `saved` is what backward reads beside them. */
  output(
    op: string,
    inputs: readonly (TapeNode | null)[],
    saved: readonly Value[],
    backward: (node: TapeNode, toLoss: Value) => void,
  ): VocabularyCrossEntropyOutput {
    const kept = [...saved, retain(this.#targets), this.logSumExp, retain(this.counts)]
    const loss = resultWith(op, consumeView(this.loss, []), inputs, kept, (node, gradient) => {
      const toLoss = viewValue(gradient, [1])
      try {
        backward(node, toLoss)
      } finally {
        releaseValue(toLoss)
      }
    })
    return {
      loss,
      predictions: wrap(this.predictions),
      counts: wrap(this.counts),
      samples: this.samples === null ? null : wrap(this.samples),
    }
  }
}

function checkTargets(op: string, what: string, input: Tensor, targets: Tensor): void {
  checkFloat(op, what, input)
  checkDType(op, 'targets', targets, 'int32')
  if (input.shape.length !== 2 || !sameShape(targets.shape, [input.shape[0] as number])) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `${op}: ${what} ${shapeText(input.shape)} and targets ${shapeText(targets.shape)}; expected [rows, ` +
        `${what === 'logits' ? 'classes' : 'width'}] and [rows]`,
    )
  }
}

/** @param logits [rows, classes]. @param targets int32 [rows]; -100 is ignored. */
export function vocabularyCrossEntropy(
  logits: Tensor,
  targets: Tensor,
  options: VocabularyCrossEntropyOptions = {},
): VocabularyCrossEntropyOutput {
  const op = 'vocabularyCrossEntropy'
  checkTargets(op, 'logits', logits, targets)
  const given = tensorValue(logits)
  const gradientDtype = options.gradientDtype ?? (given.dtype as 'float32' | 'bfloat16')
  const pass = new HeadPass(tensorValue(targets), given.shape[1] as number, options.sampling ?? null)
  const input = toDType(given, 'float32')
  try {
    pass.take(input, 0)
    pass.finish()
  } catch (error) {
    releaseValue(input)
    pass.release()
    throw error
  }
  return pass.output(op, nodes(logits), [input], (node, toLoss) => {
    node.give(0, pass.gradient(toLoss, input, 0, gradientDtype))
  })
}

/**
 * `vocabularyCrossEntropy` of the logits features weightᵀ + bias, float32, which exist a tile of classes at a time: backward computes
 * them again and goes straight on to the gradients. Predictions and samples are those of all logits at once; where one tile holds all
 * classes, its logits are kept for backward.
 * @param features [rows, width]; bfloat16 uses the weight's working copy. @param weight [classes, width]. @param bias [classes].
 * @param targets int32 [rows]; -100 is ignored.
 */
export function vocabularyHead(
  features: Tensor,
  weight: Weight,
  bias: Weight,
  targets: Tensor,
  options: VocabularyHeadOptions = {},
): VocabularyCrossEntropyOutput {
  const op = 'vocabularyHead'
  checkTargets(op, 'features', features, targets)
  const input = tensorValue(features)
  const [rows, width] = input.shape as [number, number]
  const master = masterOf(weight)
  const shift = masterOf(bias)
  const classes = master.shape[0] as number
  if (!sameShape(master.shape, [classes, width]) || !sameShape(shift.shape, [classes])) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `${op}: features ${shapeText(features.shape)}, weight ${shapeText(master.shape)}, bias ${shapeText(shift.shape)}; ` +
        'expected [rows, width], [classes, width] and [classes]',
    )
  }
  checkDType(op, 'the bias', shift, 'float32')
  const { device } = input
  const tile = options.tile ?? (device.kind === 'cpu' ? cpuTile : Math.max(4, Math.ceil(classes / 4) * 4))
  if (!Number.isInteger(tile) || tile < 4 || tile % 4 !== 0) {
    throw new VoltaicError('ERR_ARGUMENT', `${op}: the tile is ${tile}, expected a multiple of 4`)
  }
  const firsts = Array.from({ length: Math.max(1, Math.ceil(classes / tile)) }, (_, i) => i * tile)
  const weightIn = weightValue(weight, input.dtype)
  const biasIn = tensorValue(shift)

  /** Runs `body` with rows of the weight and of vectors beside it: those of a tile. */
  const partsOf = (
    values: readonly Value[],
    first: number,
    body: (parts: readonly Value[]) => void,
  ): void => {
    const columns = Math.min(tile, classes - first)
    const parts: Value[] = []
    try {
      for (const value of values) {
        const row = value.shape.slice(1)
        parts.push(viewValue(value, [columns, ...row], first * (row[0] ?? 1)))
      }
      body(parts)
    } finally {
      for (const part of parts) releaseValue(part)
    }
  }
  const product = (a: Value, b: Value, c: Value, attributes: readonly number[], added?: Value): void =>
    run(
      'gemm',
      [a.handle, b.handle, added?.handle ?? null, null, null, c.handle],
      [...attributes, added === undefined ? 0 : 1, ...[0, 1, 0, 0, 0]],
    )
  const logitsOf = (weightPart: Value, biasPart: Value): Value => {
    const columns = weightPart.shape[0] as number
    const logits = newValue(device, 'float32', [rows, columns])
    try {
      product(input, weightPart, logits, [rows, columns, width, 0, 1, 1, 0], biasPart)
    } catch (error) {
      releaseValue(logits)
      throw error
    }
    return logits
  }

  const pass = new HeadPass(tensorValue(targets), classes, options.sampling ?? null)
  let kept: Value | null = null
  try {
    for (const first of firsts) {
      partsOf([weightIn, biasIn], first, ([weightPart, biasPart]) => {
        const logits = logitsOf(weightPart as Value, biasPart as Value)
        try {
          pass.take(logits, first)
          if (firsts.length === 1) kept = retain(logits)
        } finally {
          releaseValue(logits)
        }
      })
    }
    pass.finish()
  } catch (error) {
    pass.release()
    releaseValue(weightIn)
    throw error
  }

  const saved = [retain(input), weightIn, retain(biasIn)]
  if (kept !== null) saved.push(kept)
  return pass.output(op, nodes(features, master, shift), saved, (node, toLoss) => {
    const toWeight = node.open(1, weightIn)
    const toBias = node.open(2, biasIn)
    const toFeatures = newValue(device, 'float32', input.shape)
    for (const first of firsts) {
      partsOf([weightIn, biasIn, toWeight, toBias], first, (parts) => {
        const [weightPart, biasPart, toWeightPart, toBiasPart] = parts as [Value, Value, Value, Value]
        const columns = weightPart.shape[0] as number
        const logits = kept === null ? logitsOf(weightPart, biasPart) : retain(kept)
        const toLogits = pass.gradient(toLoss, logits, first, input.dtype as 'float32' | 'bfloat16')
        releaseValue(logits)
        run('bias_gradient', [toLogits.handle, toBiasPart.handle])
        product(toLogits, input, toWeightPart, [columns, width, rows, 1, 0, 1, 1])
        product(toLogits, weightPart, toFeatures, [rows, width, columns, 0, 0, 1, first === 0 ? 0 : 1])
        releaseValue(toLogits)
      })
    }
    node.give(0, toFeatures)
    node.close(1, toWeight)
    node.close(2, toBias)
  })
}

/** Mean cross-entropy of `logits` [rows, classes] against int32 `targets` [rows]; -100 is ignored. A scalar. */
export function crossEntropy(logits: Tensor, targets: Tensor): Tensor {
  const { loss, predictions, counts } = vocabularyCrossEntropy(logits, targets)
  predictions.dispose()
  counts.dispose()
  return loss
}
