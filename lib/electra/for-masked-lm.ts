/** The generator: a distribution over the vocabulary at chosen positions (Clark et al., 2020, section 2). */
import type { ElectraConfig } from '../formats/electra-config.js'
import { VoltaicError } from '../runtime/index.js'
import {
  indexSelect,
  type Tensor,
  type VocabularyCrossEntropyOutput,
  type VocabularyHeadOptions,
  vocabularyCrossEntropy,
} from '../tensor/index.js'
import { type BatchInput, type DeviceBatch, type Rows, toDeviceBatch, upload } from './batch.js'
import { GeneratorPredictions, ignoredLabel, LanguageModelHead, tokenLabels } from './heads.js'
import { ElectraModel, type ForwardOptions } from './model.js'
import { ElectraPreTrainedModel, type ModelOptions } from './pretrained.js'

export interface MaskedLmLabels {
  /** For each token the original id, or -100 (ignored). */
  readonly labels: Rows
}

export interface MaskedLmOptions extends ForwardOptions {
  /**
   * For each sequence the tokens, counted from its first, whose logits are wanted. Default: the labelled ones; without labels, all.
   */
  readonly maskedPositions?: Rows | undefined
}

export interface MaskedLmOutput {
  /** float32 [positions, vocabSize] */
  readonly logits: Tensor
  /** int32 [positions]: the tokens of the flat run that the logits belong to, ascending within a sequence as asked for. */
  readonly positions: Tensor
  readonly hiddenStates?: readonly Tensor[]
  readonly offsets: Tensor
}

function chosenPositions(rows: Rows, { bounds, sequences }: DeviceBatch): Int32Array {
  if (rows.length !== sequences) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `maskedPositions has ${rows.length} rows and inputIds has ${sequences}; expected one a sequence`,
    )
  }
  const flat: number[] = []
  rows.forEach((row, sequence) => {
    const start = bounds[sequence] as number
    const length = (bounds[sequence + 1] as number) - start
    for (const position of row) {
      if (!Number.isInteger(position) || position < 0 || position >= length) {
        throw new VoltaicError(
          'ERR_ARGUMENT',
          `maskedPositions: ${position} for sequence ${sequence}; expected 0 to ${length - 1}`,
        )
      }
      flat.push(start + position)
    }
  })
  return Int32Array.from(flat)
}

/** The positions whose logits are wanted; `labels` is flat. */
function wantedPositions(batch: DeviceBatch, labels: Int32Array | null, asked: Rows | undefined): Int32Array {
  if (asked !== undefined) return chosenPositions(asked, batch)
  const all = Int32Array.from({ length: batch.tokens }, (_, at) => at)
  return labels === null ? all : all.filter((at) => labels[at] !== ignoredLabel)
}

export class ElectraForMaskedLM extends ElectraPreTrainedModel {
  readonly architecture: string = 'ElectraForMaskedLM'
  readonly electra: ElectraModel
  readonly generatorPredictions: GeneratorPredictions
  readonly generatorLmHead: LanguageModelHead

  constructor(config: ElectraConfig, options: ModelOptions = {}) {
    super(config, options)
    const { part, ...build } = this.building()
    this.electra = new ElectraModel(config, part)
    this.generatorPredictions = new GeneratorPredictions(config, build)
    this.generatorLmHead = new LanguageModelHead(config, build)
    this.seeded(options)
  }

  /** Logits of the tokens at `positions` (int32) of the flat run: float32 [positions, vocabSize]. */
  logitsAt(hidden: Tensor, positions: Tensor): Tensor {
    const features = this.#featuresAt(hidden, positions)
    const logits = this.generatorLmHead.forward(features, this.electra.embeddings.wordEmbeddings.weight)
    features.dispose()
    return logits
  }

  /** The cross-entropy of those logits against `targets` (int32, -100 is ignored), with counts and samples, without all logits. */
  lossAt(
    hidden: Tensor,
    positions: Tensor,
    targets: Tensor,
    options: VocabularyHeadOptions,
  ): VocabularyCrossEntropyOutput {
    const features = this.#featuresAt(hidden, positions)
    const table = this.electra.embeddings.wordEmbeddings.weight
    const output = this.generatorLmHead.loss(features, table, targets, options)
    features.dispose()
    return output
  }

  #featuresAt(hidden: Tensor, positions: Tensor): Tensor {
    const rows = indexSelect(hidden, positions)
    const features = this.generatorPredictions.forward(rows)
    rows.dispose()
    return features
  }

  /** `loss`, with labels: mean cross-entropy over the labelled positions, a scalar. */
  forward(input: BatchInput & MaskedLmOptions & MaskedLmLabels): MaskedLmOutput & { readonly loss: Tensor }
  forward(input: BatchInput & MaskedLmOptions): MaskedLmOutput
  forward(
    input: BatchInput & MaskedLmOptions & Partial<MaskedLmLabels>,
  ): MaskedLmOutput & { readonly loss?: Tensor } {
    const batch = toDeviceBatch(input, this.config, this.device)
    const labels = input.labels === undefined ? null : tokenLabels(input.labels, batch, this.config.vocabSize)
    const wanted = wantedPositions(batch, labels, input.maskedPositions)
    const positions = upload(wanted, this.device)
    return this.pass(batch, input, labels !== null, () => {
      const { lastHiddenState, ...states } = this.electra.encode(batch, input)
      const logits = this.logitsAt(lastHiddenState, positions)
      if (states.hiddenStates === undefined) lastHiddenState.dispose()
      const common = { ...states, logits, positions, offsets: batch.offsets }
      if (labels === null) return common
      const targets = upload(
        wanted.map((at) => labels[at] as number),
        this.device,
      )
      const { loss, predictions, counts } = vocabularyCrossEntropy(logits, targets, {
        gradientDtype: this.activationDtype,
      })
      for (const tensor of [targets, predictions, counts]) tensor.dispose()
      return { ...common, loss }
    })
  }
}
