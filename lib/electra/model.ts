/** The body that all models share: embeddings, a projection where their width is not the encoder's, and the encoder. */
import type { ElectraConfig } from '../formats/electra-config.js'
import { Linear } from '../nn/index.js'
import { VoltaicError } from '../runtime/index.js'
import { type Dropout, firstTokens, type Tensor } from '../tensor/index.js'
import { type BatchInput, type DeviceBatch, toDeviceBatch } from './batch.js'
import { ElectraEmbeddings } from './embeddings.js'
import { ElectraEncoder } from './encoder.js'
import { ElectraPreTrainedModel, type ModelOptions } from './pretrained.js'

export interface ForwardOptions {
  /** Also give the embeddings' and every layer's output. Default false. */
  readonly outputHiddenStates?: boolean | undefined
}

export interface Encoded {
  /** The last layer's output, [tokens, hiddenSize]. */
  readonly lastHiddenState: Tensor
  /** On request: the embeddings (projected), then each layer's output; the last one is `lastHiddenState`. */
  readonly hiddenStates?: readonly Tensor[]
}

export interface ModelOutput extends Encoded {
  /** int32 [sequences + 1]: sequence s has the tokens offsets[s] to offsets[s + 1]. */
  readonly offsets: Tensor
}

export class ElectraModel extends ElectraPreTrainedModel {
  readonly architecture: string = 'ElectraModel'
  embeddings: ElectraEmbeddings
  readonly embeddingsProject: Linear | null
  readonly encoder: ElectraEncoder
  readonly embeddingDropout: Dropout

  constructor(config: ElectraConfig, options: ModelOptions = {}) {
    super(config, options)
    const { device, initializers, randomness } = this.building()
    const { embeddingSize, hiddenSize } = config
    this.embeddings = new ElectraEmbeddings(config, { device, initializers })
    this.embeddingDropout = randomness.next(config.hiddenDropoutProb)
    this.embeddingsProject =
      embeddingSize === hiddenSize
        ? null
        : new Linear({
            inputs: embeddingSize,
            outputs: hiddenSize,
            device,
            initializer: initializers.projection,
          })
    this.encoder = new ElectraEncoder(config, { device, initializers, randomness })
    this.seeded(options)
  }

  /**
   * Runs the body over a batch on its device; on the tape as the caller's is. For heads: it leaves the dropout state to them.
   */
  encode(batch: DeviceBatch, options: ForwardOptions = {}): Encoded {
    const hidden = this.#embed(batch)
    if (options.outputHiddenStates !== true) return { lastHiddenState: this.encoder.forward(hidden, batch) }
    const hiddenStates: Tensor[] = []
    return { lastHiddenState: this.encoder.forward(hidden, batch, hiddenStates), hiddenStates }
  }

  /**
   * `encode` for heads over each sequence's first token, [sequences, hiddenSize]. Nothing else of the last layer is computed, unless
   * all states are asked for.
   */
  encodeFirst(
    batch: DeviceBatch,
    options: ForwardOptions = {},
  ): Pick<Encoded, 'hiddenStates'> & { readonly first: Tensor } {
    if (options.outputHiddenStates !== true)
      return { first: this.encoder.forwardFirst(this.#embed(batch), batch) }
    const { lastHiddenState, ...states } = this.encode(batch, options)
    return { ...states, first: firstTokens(lastHiddenState, batch.offsets) }
  }

  /** The encoder's input. */
  #embed(batch: DeviceBatch): Tensor {
    const embedded = this.embeddings.forward(batch, {
      dtype: this.activationDtype,
      dropout: this.training ? this.embeddingDropout : null,
    })
    if (this.embeddingsProject === null) return embedded
    const hidden = this.embeddingsProject.forward(embedded)
    embedded.dispose()
    return hidden
  }

  /** Ragged rows in, hidden states of the flat run out. */
  forward(input: BatchInput & ForwardOptions): ModelOutput {
    const batch = toDeviceBatch(input, this.config, this.device)
    return this.pass(batch, input, false, () => ({ ...this.encode(batch, input), offsets: batch.offsets }))
  }

  /**
   * From now on uses another model's embedding block: tables and LayerNorm are one set of parameters. Its own are freed.
   * @throws ERR_CONFIG when the blocks differ in size
   */
  shareEmbeddings(from: ElectraModel): void {
    const keys = ['vocabSize', 'embeddingSize', 'maxPositionEmbeddings', 'typeVocabSize'] as const
    for (const key of keys) {
      if (this.config[key] !== from.config[key]) {
        throw new VoltaicError(
          'ERR_CONFIG',
          `models that share their embeddings must agree in ${key}; one has ${this.config[key]}, the other ${from.config[key]}`,
        )
      }
    }
    if (this.embeddings === from.embeddings) return
    this.embeddings.dispose()
    this.embeddings = from.embeddings
  }
}
