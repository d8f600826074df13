/** The embedding block: word, position and token-type tables, LayerNorm and dropout. */
import type { ElectraConfig } from '../formats/electra-config.js'
import { Embedding, type Initializer, LayerNorm, Module } from '../nn/index.js'
import type { Device } from '../runtime/index.js'
import { type Dropout, embeddingBlock, type Tensor } from '../tensor/index.js'
import type { DeviceBatch } from './batch.js'
import type { FirstValues } from './initialization.js'

/** Which dtype activations have. */
export type ActivationDtype = 'float32' | 'bfloat16'

export interface EmbeddingsOptions {
  readonly device: Device
  readonly initializers: FirstValues
}

/**
 * dropout(LayerNorm(word + position + type)). The dropout is the caller's: generator and discriminator share this block, not the
 * elements they drop.
 */
export class ElectraEmbeddings extends Module {
  readonly wordEmbeddings: Embedding
  readonly positionEmbeddings: Embedding
  readonly tokenTypeEmbeddings: Embedding
  readonly layerNorm: LayerNorm

  protected override get checkpointNames(): Readonly<Record<string, string>> {
    return { layerNorm: 'LayerNorm' }
  }

  constructor(config: ElectraConfig, { device, initializers }: EmbeddingsOptions) {
    super()
    const width = config.embeddingSize
    const table = (rows: number, initializer: Initializer): Embedding =>
      new Embedding({ rows, width, device, initializer })
    this.wordEmbeddings = table(config.vocabSize, initializers.wordTable)
    this.positionEmbeddings = table(config.maxPositionEmbeddings, initializers.positionTable)
    this.tokenTypeEmbeddings = table(config.typeVocabSize, initializers.typeTable)
    this.layerNorm = new LayerNorm({ width, epsilon: config.layerNormEps, device })
  }

  /** [tokens, embeddingSize] */
  forward(
    batch: Pick<DeviceBatch, 'ids' | 'types' | 'positions'>,
    options: { readonly dtype: ActivationDtype; readonly dropout: Dropout | null },
  ): Tensor {
    const { ids, types, positions } = batch
    return embeddingBlock(
      { ids, types, positions },
      {
        word: this.wordEmbeddings.weight,
        position: this.positionEmbeddings.weight,
        type: this.tokenTypeEmbeddings.weight,
        normWeight: this.layerNorm.weight,
        normBias: this.layerNorm.bias,
      },
      { epsilon: this.layerNorm.epsilon, ...options },
    )
  }
}
