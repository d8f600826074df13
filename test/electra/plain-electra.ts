/**
 * ELECTRA in the most straightforward way, one general op after the other, a sequence at a time, every result rounded to the dtype of
 * the activations: what a 16-bit computation without care errs. The measure for the fused 16-bit models, not a model to use.
 */
import type { ElectraConfig } from '../../dist/formats/electra-config.js'
import {
  binaryCrossEntropyWithLogits,
  concat,
  crossEntropy,
  type DType,
  indexSelect,
  layerNorm,
  meanSquaredError,
  raggedCrossEntropy,
  type Tensor,
  tensor,
} from '../../dist/index.js'

export interface PlainInputs {
  readonly ids: readonly Int32Array[]
  readonly types: readonly Int32Array[]
}

export class PlainElectra {
  readonly #config: ElectraConfig
  readonly #parameters: ReadonlyMap<string, Tensor>

  /** @param values the weights by their names in files */
  constructor(
    config: ElectraConfig,
    values: Iterable<[name: string, shape: readonly number[], data: Float32Array]>,
    dtype: DType,
  ) {
    this.#config = config
    this.#parameters = new Map(
      Array.from(values, ([name, shape, data]) => {
        // LayerNorm takes its parameters in float32.
        const stored = name.includes('LayerNorm') ? 'float32' : dtype
        return [name, tensor(data, { shape, dtype: stored, requiresGrad: true })] as const
      }),
    )
  }

  parameter(name: string): Tensor {
    const found = this.#parameters.get(name)
    if (found === undefined) throw new Error(`no parameter ${name}`)
    return found
  }

  linear(x: Tensor, name: string): Tensor {
    return x.matmul(this.parameter(`${name}.weight`).transpose()).add(this.parameter(`${name}.bias`))
  }

  norm(x: Tensor, name: string): Tensor {
    const epsilon = this.#config.layerNormEps
    return layerNorm(
      x,
      this.parameter(`${name}.LayerNorm.weight`),
      this.parameter(`${name}.LayerNorm.bias`),
      {
        epsilon,
      },
    )
  }

  #embed(ids: Int32Array, types: Int32Array): Tensor {
    const from = 'electra.embeddings'
    const rows = (table: string, index: Int32Array): Tensor =>
      indexSelect(this.parameter(`${from}.${table}_embeddings.weight`), tensor(index))
    const positions = Int32Array.from(ids, (_, at) => at)
    const sum = rows('word', ids).add(rows('position', positions)).add(rows('token_type', types))
    const normed = this.norm(sum, from)
    return this.#config.embeddingSize === this.#config.hiddenSize
      ? normed
      : this.linear(normed, 'electra.embeddings_project')
  }

  #attend(x: Tensor, name: string): Tensor {
    const { hiddenSize, numAttentionHeads: heads } = this.#config
    const size = hiddenSize / heads
    const [q, k, v] = ['query', 'key', 'value'].map((part) => this.linear(x, `${name}.${part}`)) as [
      Tensor,
      Tensor,
      Tensor,
    ]
    const contexts = Array.from({ length: heads }, (_, head) => {
      const of = (all: Tensor): Tensor => all.narrow(1, head * size, size)
      const scores = of(q)
        .matmul(of(k).transpose())
        .mul(1 / Math.sqrt(size))
      return scores.softmax(1).matmul(of(v))
    })
    return concat(contexts, 1)
  }

  #layer(x: Tensor, name: string): Tensor {
    const attended = this.linear(this.#attend(x, `${name}.attention.self`), `${name}.attention.output.dense`)
    const middle = this.norm(attended.add(x), `${name}.attention.output`)
    const wide = this.linear(middle, `${name}.intermediate.dense`).gelu()
    return this.norm(this.linear(wide, `${name}.output.dense`).add(middle), `${name}.output`)
  }

  /** The first and the last hidden states of all tokens, and the last by sequence. */
  encode({ ids, types }: PlainInputs): { first: Tensor; last: Tensor; sequences: readonly Tensor[] } {
    const embedded = ids.map((row, i) => this.#embed(row, types[i] as Int32Array))
    const sequences = embedded.map((x) => {
      let hidden = x
      for (let i = 0; i < this.#config.numHiddenLayers; i++)
        hidden = this.#layer(hidden, `electra.encoder.layer.${i}`)
      return hidden
    })
    return { first: concat(embedded, 0), last: concat(sequences, 0), sequences }
  }

  pretraining(hidden: Tensor, labels: Int32Array): { loss: Tensor; logits: Tensor } {
    const features = this.linear(hidden, 'discriminator_predictions.dense').gelu()
    const logits = this.linear(features, 'discriminator_predictions.dense_prediction').reshape([
      labels.length,
    ])
    const wide = logits.to('float32')
    return { loss: binaryCrossEntropyWithLogits(wide, tensor(Float32Array.from(labels))), logits: wide }
  }

  /** Logits at the labelled positions. */
  maskedLm(hidden: Tensor, positions: Int32Array, labels: Int32Array): { loss: Tensor; logits: Tensor } {
    const rows = indexSelect(hidden, tensor(positions))
    const features = this.norm(
      this.linear(rows, 'generator_predictions.dense').gelu(),
      'generator_predictions',
    )
    const words = this.parameter('electra.embeddings.word_embeddings.weight')
    const logits = features
      .matmul(words.transpose())
      .add(this.parameter('generator_lm_head.bias'))
      .to('float32')
    return { loss: crossEntropy(logits, tensor(labels)), logits }
  }

  sequenceClassification(
    sequences: readonly Tensor[],
    labels: Int32Array | Float32Array,
  ): { loss: Tensor; logits: Tensor } {
    const first = concat(
      sequences.map((hidden) => hidden.narrow(0, 0, 1)),
      0,
    )
    const features = this.linear(first, 'classifier.dense').gelu()
    const logits = this.linear(features, 'classifier.out_proj').to('float32')
    const loss =
      labels instanceof Float32Array
        ? meanSquaredError(logits.reshape([labels.length]), tensor(labels))
        : crossEntropy(logits, tensor(labels))
    return { loss, logits }
  }

  tokenClassification(hidden: Tensor, labels: Int32Array): { loss: Tensor; logits: Tensor } {
    const logits = this.linear(hidden, 'classifier').to('float32')
    return { loss: crossEntropy(logits, tensor(labels)), logits }
  }

  questionAnswering(
    hidden: Tensor,
    offsets: Int32Array,
    starts: Int32Array,
    ends: Int32Array,
  ): { loss: Tensor; startLogits: Tensor; endLogits: Tensor } {
    const both = this.linear(hidden, 'qa_outputs').to('float32')
    const tokens = both.shape[0] as number
    const [startLogits, endLogits] = [0, 1].map((i) => both.narrow(1, i, 1).reshape([tokens])) as [
      Tensor,
      Tensor,
    ]
    const loss = (logits: Tensor, targets: Int32Array): Tensor =>
      raggedCrossEntropy(logits, tensor(offsets), tensor(targets))
    return { loss: loss(startLogits, starts).add(loss(endLogits, ends)).mul(0.5), startLogits, endLogits }
  }
}
