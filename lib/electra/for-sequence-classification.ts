/** One answer a sequence: classes, several labels at once, or numbers (Hugging Face's head: dense + GELU over the first token). */
import type { ElectraConfig, ProblemType } from '../formats/electra-config.js'
import { Linear, Module } from '../nn/index.js'
import { VoltaicError } from '../runtime/index.js'
import {
  binaryCrossEntropyWithLogits,
  crossEntropy,
  type Dropout,
  meanSquaredError,
  type Tensor,
  tensor,
} from '../tensor/index.js'
import { type BatchInput, type DeviceBatch, toDeviceBatch, upload } from './batch.js'
import type { BuildOptions } from './encoder.js'
import { dropped, sequenceNumbers } from './heads.js'
import { ElectraModel, type ForwardOptions } from './model.js'
import { ElectraPreTrainedModel, type ModelOptions } from './pretrained.js'

export interface SequenceLabels {
  /**
   * One a sequence. single_label_classification: the class (-100: ignored). regression: a number, or one a label.
   * multi_label_classification: for each label 0 or 1. The problem is the configuration's `problemType`; where that is null it follows
   * from the labels: one label in the configuration is regression, whole numbers are classes, rows are several labels at once.
   */
  readonly labels:
    | readonly number[]
    | Int32Array
    | Float32Array
    | readonly (readonly number[] | Float32Array)[]
}

export interface SequenceClassificationOutput {
  /** float32 [sequences, labels] */
  readonly logits: Tensor
  readonly hiddenStates?: readonly Tensor[]
  readonly offsets: Tensor
}

/** first token → dropout → dense + GELU → dropout → one logit a label. */
class ClassificationHead extends Module {
  readonly dense: Linear
  readonly outProj: Linear
  readonly denseDropout: Dropout
  readonly outDropout: Dropout

  constructor(config: ElectraConfig, { device, initializers, randomness }: BuildOptions) {
    super()
    const { hiddenSize: inputs, numLabels: outputs } = config
    const initializer = initializers.output
    const probability = config.classifierDropout ?? config.hiddenDropoutProb
    this.dense = new Linear({ inputs, outputs: inputs, activation: 'gelu', device, initializer })
    this.outProj = new Linear({ inputs, outputs, device, initializer })
    this.denseDropout = randomness.next(probability)
    this.outDropout = randomness.next(probability)
  }

  /** Frees `tokens`, the first ones, [sequences, hiddenSize]. */
  forward(tokens: Tensor): Tensor {
    const first = dropped(tokens, this.denseDropout, this.training)
    const features = dropped(this.dense.forward(first), this.outDropout, this.training)
    first.dispose()
    const logits = this.outProj.forward(features, { outputDtype: 'float32' })
    features.dispose()
    return logits
  }
}

function isRows(labels: SequenceLabels['labels']): labels is readonly (readonly number[] | Float32Array)[] {
  return Array.isArray(labels) && (Array.isArray(labels[0]) || ArrayBuffer.isView(labels[0]))
}

function problemOf({ problemType, numLabels }: ElectraConfig, labels: SequenceLabels['labels']): ProblemType {
  if (problemType !== null) return problemType
  if (numLabels === 1) return 'regression'
  return isRows(labels) || labels instanceof Float32Array
    ? 'multi_label_classification'
    : 'single_label_classification'
}

/** A float32 [sequences, labels] tensor of numbers. */
function numberLabels(
  labels: SequenceLabels['labels'],
  { sequences, ids }: DeviceBatch,
  width: number,
  fits: (value: number) => boolean,
  expected: string,
): Tensor {
  const rows = isRows(labels) ? labels : Array.from(labels as ArrayLike<number>, (value) => [value])
  if (rows.length !== sequences) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `labels: ${rows.length} for ${sequences} sequences; expected one a sequence`,
    )
  }
  const flat = new Float32Array(sequences * width)
  rows.forEach((row, sequence) => {
    if (row.length !== width) {
      throw new VoltaicError(
        'ERR_SHAPE',
        `labels: ${row.length} numbers for sequence ${sequence}; expected ${width}, the configuration's labels`,
      )
    }
    row.forEach((value: number, label: number) => {
      if (!fits(value)) {
        throw new VoltaicError(
          'ERR_ARGUMENT',
          `labels: ${value} for sequence ${sequence}; expected ${expected}`,
        )
      }
      flat[sequence * width + label] = value
    })
  })
  return tensor(flat, { device: ids.device, shape: [sequences, width] })
}

/** A loss against targets, for one use: they are freed with it. */
function thenFreed(targets: Tensor, lossOf: (logits: Tensor, targets: Tensor) => Tensor) {
  return (logits: Tensor): Tensor => {
    try {
      return lossOf(logits, targets)
    } finally {
      targets.dispose()
    }
  }
}

export class ElectraForSequenceClassification extends ElectraPreTrainedModel {
  readonly architecture: string = 'ElectraForSequenceClassification'
  readonly electra: ElectraModel
  readonly classifier: ClassificationHead

  constructor(config: ElectraConfig, options: ModelOptions = {}) {
    super(config, options)
    const { part, ...build } = this.building()
    this.electra = new ElectraModel(config, part)
    this.classifier = new ClassificationHead(config, build)
    this.seeded(options)
  }

  /**
   * `loss`, with labels, a scalar: mean squared error for regression, mean cross-entropy for classes, mean sigmoid cross-entropy for
   * several labels at once.
   */
  forward(
    input: BatchInput & ForwardOptions & SequenceLabels,
  ): SequenceClassificationOutput & { readonly loss: Tensor }
  forward(input: BatchInput & ForwardOptions): SequenceClassificationOutput
  forward(
    input: BatchInput & ForwardOptions & Partial<SequenceLabels>,
  ): SequenceClassificationOutput & { readonly loss?: Tensor } {
    const batch = toDeviceBatch(input, this.config, this.device)
    const loss = input.labels === undefined ? null : this.#lossFor(input.labels, batch)
    return this.pass(batch, input, loss !== null, () => {
      const { first, ...states } = this.electra.encodeFirst(batch, input)
      const logits = this.classifier.forward(first)
      const common = { ...states, logits, offsets: batch.offsets }
      return loss === null ? common : { ...common, loss: loss(logits) }
    })
  }

  /** Checks the labels; gives the loss as a function of the logits. */
  #lossFor(labels: SequenceLabels['labels'], batch: DeviceBatch): (logits: Tensor) => Tensor {
    const { numLabels } = this.config
    const problem = problemOf(this.config, labels)
    if (problem === 'single_label_classification') {
      if (isRows(labels)) {
        throw new VoltaicError('ERR_SHAPE', 'labels: rows given; expected one class a sequence')
      }
      const classes = sequenceNumbers(
        'labels',
        Array.from(labels as ArrayLike<number>),
        batch.sequences,
        () => numLabels,
      )
      const targets = upload(classes, this.device)
      return thenFreed(targets, crossEntropy)
    }
    if (problem === 'regression') {
      const targets = numberLabels(labels, batch, numLabels, Number.isFinite, 'a finite number')
      return thenFreed(targets, meanSquaredError)
    }
    const isProbability = (value: number): boolean => value >= 0 && value <= 1
    const targets = numberLabels(labels, batch, numLabels, isProbability, '0 or 1 for each label')
    return thenFreed(targets, binaryCrossEntropyWithLogits)
  }
}
