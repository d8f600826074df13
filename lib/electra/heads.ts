/** The heads' layers, with the names they have in files, and labels as device tensors. */
import type { ElectraConfig } from '../formats/electra-config.js'
import { LayerNorm, Linear, Module, Parameter } from '../nn/index.js'
import { VoltaicError } from '../runtime/index.js'
import {
  type DiscriminatorLossOptions,
  type DiscriminatorLossOutput,
  type Dropout,
  discriminatorLoss,
  dropout,
  linear,
  reshape,
  type Tensor,
  type VocabularyCrossEntropyOutput,
  type VocabularyHeadOptions,
  vocabularyHead,
} from '../tensor/index.js'
import { type DeviceBatch, flattenRows, type Rows } from './batch.js'
import { activationOf, type BuildOptions } from './encoder.js'

/** The number of labels that losses leave out. */
export const ignoredLabel = -100

/** hidden → dense + activation → one logit a token. */
export class DiscriminatorPredictions extends Module {
  readonly dense: Linear
  readonly densePrediction: Linear

  constructor(config: ElectraConfig, { device, initializers }: BuildOptions) {
    super()
    const inputs = config.hiddenSize
    const activation = activationOf(config.hiddenAct)
    this.dense = new Linear({ inputs, outputs: inputs, activation, device, initializer: initializers.hidden })
    this.densePrediction = new Linear({ inputs, outputs: 1, device, initializer: initializers.output })
  }

  /** Logits, float32 [tokens]; above 0 means replaced. */
  logits(hidden: Tensor): Tensor {
    const features = this.dense.forward(hidden)
    const column = this.densePrediction.forward(features, { outputDtype: 'float32' })
    features.dispose()
    const logits = reshape(column, [column.shape[0] as number])
    column.dispose()
    return logits
  }

  /** Last layer, loss and counts in one pass. @param labels int32 [tokens]: 1, 0, or -100 for ignored. */
  loss(hidden: Tensor, labels: Tensor, options: DiscriminatorLossOptions = {}): DiscriminatorLossOutput {
    const features = this.dense.forward(hidden)
    const { weight, bias } = this.densePrediction
    const output = discriminatorLoss(features, weight, bias as Parameter, labels, options)
    features.dispose()
    return output
  }
}

/** hidden → dense + GELU → LayerNorm, of the embeddings' width: what the word table is multiplied with. */
export class GeneratorPredictions extends Module {
  readonly layerNorm: LayerNorm
  readonly dense: Linear

  protected override get checkpointNames(): Readonly<Record<string, string>> {
    return { layerNorm: 'LayerNorm' }
  }

  constructor(config: ElectraConfig, { device, initializers }: BuildOptions) {
    super()
    const { hiddenSize, embeddingSize: width, layerNormEps: epsilon } = config
    this.layerNorm = new LayerNorm({ width, epsilon, device })
    this.dense = new Linear({
      inputs: hiddenSize,
      outputs: width,
      activation: 'gelu',
      device,
      initializer: initializers.hidden,
    })
  }

  forward(hidden: Tensor): Tensor {
    const features = this.dense.forward(hidden)
    const normalized = this.layerNorm.forward(features)
    features.dispose()
    return normalized
  }
}

/** The projection to the vocabulary: the word table itself, unless the configuration unties it. */
export class LanguageModelHead extends Module {
  readonly bias: Parameter
  readonly weight: Parameter | null

  constructor(config: ElectraConfig, { device, initializers }: BuildOptions) {
    super()
    this.bias = new Parameter([config.vocabSize], { device })
    this.weight = config.tieWordEmbeddings
      ? null
      : new Parameter([config.vocabSize, config.embeddingSize], {
          device,
          initializer: initializers.wordTable,
        })
  }

  /** features [rows, embeddingSize] to float32 [rows, vocabSize]. */
  forward(features: Tensor, wordTable: Parameter): Tensor {
    return linear(features, this.weight ?? wordTable, this.bias, { outputDtype: 'float32' })
  }

  /** Loss, counts and samples of the logits, which are never all in memory. @param targets int32 [rows]; -100 is ignored. */
  loss(
    features: Tensor,
    wordTable: Parameter,
    targets: Tensor,
    options: VocabularyHeadOptions,
  ): VocabularyCrossEntropyOutput {
    return vocabularyHead(features, this.weight ?? wordTable, this.bias, targets, options)
  }
}

/**
 * x with dropout in training mode, x itself elsewhere.
 * @param keep whether x is needed afterwards; else it is freed
 */
export function dropped(x: Tensor, dropoutSite: Dropout, training: boolean, keep = false): Tensor {
  if (!training || dropoutSite.probability === 0) return x
  const output = dropout(x, dropoutSite)
  if (!keep) x.dispose()
  return output
}

/** Ragged labels, one a token, as flat numbers: from 0 to below `classes`, or -100. */
export function tokenLabels(labels: Rows, batch: DeviceBatch, classes: number): Int32Array {
  const fits = (value: number): boolean =>
    value === ignoredLabel || (Number.isInteger(value) && value >= 0 && value < classes)
  return flattenRows('labels', labels, batch.bounds, fits, `0 to ${classes - 1}, or -100 for ignored`)
}

/**
 * One whole number a sequence.
 * @param limit the number must be below it (it may differ by sequence), or -100
 */
export function sequenceNumbers(
  name: string,
  values: readonly number[] | Int32Array,
  sequences: number,
  limit: (sequence: number) => number,
): Int32Array {
  if (!(Array.isArray(values) || values instanceof Int32Array) || values.length !== sequences) {
    const found =
      Array.isArray(values) || ArrayBuffer.isView(values) ? `${values.length} numbers` : typeof values
    throw new VoltaicError(
      'ERR_SHAPE',
      `${name}: ${found} for ${sequences} sequences; expected one number a sequence`,
    )
  }
  const checked = Int32Array.from(values)
  values.forEach((value, sequence) => {
    const below = limit(sequence)
    if (value === ignoredLabel || (Number.isInteger(value) && value >= 0 && value < below)) return
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `${name}: ${value} for sequence ${sequence}; expected 0 to ${below - 1}, or -100 for ignored`,
    )
  })
  return checked
}
