/** The discriminator: for each token, whether it was replaced (Clark et al., 2020, section 2). */
import type { ElectraConfig } from '../formats/electra-config.js'
import type { Tensor } from '../tensor/index.js'
import { type BatchInput, type Rows, toDeviceBatch, upload } from './batch.js'
import { DiscriminatorPredictions, tokenLabels } from './heads.js'
import { ElectraModel, type ForwardOptions } from './model.js'
import { ElectraPreTrainedModel, type ModelOptions } from './pretrained.js'

export interface PreTrainingLabels {
  /** For each token 1 (replaced), 0 (original) or -100 (ignored). */
  readonly labels: Rows
  /** int32 [4100]: counts for metrics are added to it (see `discriminatorLoss`). */
  readonly metrics?: Tensor | undefined
}

export interface PreTrainingOutput {
  /** float32 [tokens]; above 0 means replaced. With labels, gradients flow through `loss` alone. */
  readonly logits: Tensor
  readonly hiddenStates?: readonly Tensor[]
  readonly offsets: Tensor
}

export class ElectraForPreTraining extends ElectraPreTrainedModel {
  readonly architecture: string = 'ElectraForPreTraining'
  readonly electra: ElectraModel
  readonly discriminatorPredictions: DiscriminatorPredictions

  constructor(config: ElectraConfig, options: ModelOptions = {}) {
    super(config, options)
    const { part, ...build } = this.building()
    this.electra = new ElectraModel(config, part)
    this.discriminatorPredictions = new DiscriminatorPredictions(config, build)
    this.seeded(options)
  }

  /** `loss`, with labels: mean sigmoid cross-entropy over the tokens that are not ignored, a scalar. */
  forward(
    input: BatchInput & ForwardOptions & PreTrainingLabels,
  ): PreTrainingOutput & { readonly loss: Tensor }
  forward(input: BatchInput & ForwardOptions): PreTrainingOutput
  forward(
    input: BatchInput & ForwardOptions & Partial<PreTrainingLabels>,
  ): PreTrainingOutput & { readonly loss?: Tensor } {
    const batch = toDeviceBatch(input, this.config, this.device)
    const labels =
      input.labels === undefined ? null : upload(tokenLabels(input.labels, batch, 2), this.device)
    return this.pass(batch, input, labels !== null, () => {
      const { lastHiddenState, ...states } = this.electra.encode(batch, input)
      const common = { ...states, offsets: batch.offsets }
      const head = this.discriminatorPredictions
      const output =
        labels === null
          ? { logits: head.logits(lastHiddenState) }
          : head.loss(lastHiddenState, labels, { metrics: input.metrics })
      if (states.hiddenStates === undefined) lastHiddenState.dispose()
      if (!('loss' in output)) return { ...common, logits: output.logits }
      output.valid.dispose()
      labels?.dispose()
      return { ...common, loss: output.loss, logits: output.logits }
    })
  }
}
