/** One class a token: named entities, parts of speech. */
import type { ElectraConfig } from '../formats/electra-config.js'
import { Linear } from '../nn/index.js'
import { crossEntropy, type Dropout, type Tensor } from '../tensor/index.js'
import { type BatchInput, type Rows, toDeviceBatch, upload } from './batch.js'
import { dropped, tokenLabels } from './heads.js'
import { ElectraModel, type ForwardOptions } from './model.js'
import { ElectraPreTrainedModel, type ModelOptions } from './pretrained.js'

export interface TokenLabels {
  /** For each token its class, or -100 (ignored: special tokens, the later pieces of a word). */
  readonly labels: Rows
}

export interface TokenClassificationOutput {
  /** float32 [tokens, labels] */
  readonly logits: Tensor
  readonly hiddenStates?: readonly Tensor[]
  readonly offsets: Tensor
}

export class ElectraForTokenClassification extends ElectraPreTrainedModel {
  readonly architecture: string = 'ElectraForTokenClassification'
  readonly electra: ElectraModel
  readonly classifier: Linear
  readonly classifierDropout: Dropout

  constructor(config: ElectraConfig, options: ModelOptions = {}) {
    super(config, options)
    const { part, device, initializers, randomness } = this.building()
    this.electra = new ElectraModel(config, part)
    this.classifierDropout = randomness.next(config.classifierDropout ?? config.hiddenDropoutProb)
    this.classifier = new Linear({
      inputs: config.hiddenSize,
      outputs: config.numLabels,
      device,
      initializer: initializers.output,
    })
    this.seeded(options)
  }

  /** `loss`, with labels: mean cross-entropy over the tokens that are not ignored, a scalar. */
  forward(
    input: BatchInput & ForwardOptions & TokenLabels,
  ): TokenClassificationOutput & { readonly loss: Tensor }
  forward(input: BatchInput & ForwardOptions): TokenClassificationOutput
  forward(
    input: BatchInput & ForwardOptions & Partial<TokenLabels>,
  ): TokenClassificationOutput & { readonly loss?: Tensor } {
    const batch = toDeviceBatch(input, this.config, this.device)
    const labels =
      input.labels === undefined
        ? null
        : upload(tokenLabels(input.labels, batch, this.config.numLabels), this.device)
    return this.pass(batch, input, labels !== null, () => {
      const { lastHiddenState, ...states } = this.electra.encode(batch, input)
      const kept = states.hiddenStates !== undefined
      const features = dropped(lastHiddenState, this.classifierDropout, this.training, kept)
      const logits = this.classifier.forward(features, { outputDtype: 'float32' })
      if (!kept || features !== lastHiddenState) features.dispose()
      const common = { ...states, logits, offsets: batch.offsets }
      if (labels === null) return common
      const loss = crossEntropy(logits, labels)
      labels.dispose()
      return { ...common, loss }
    })
  }
}
