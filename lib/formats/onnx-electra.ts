/**
 * ELECTRA as an ONNX graph: the body and every task's head. Inputs are Hugging Face's, padded: input_ids, attention_mask (0 at
 * padding) and token_type_ids, int64 [batch, sequence] of any size ([batch, choices, sequence] for multiple choice); outputs have the
 * names that its exporter gives them. Dropout is left out.
 */
import { VoltaicError } from '../runtime/errors.js'
import type { ElectraConfig } from './electra-config.js'
import type { OnnxGraph, OnnxValue } from './onnx.js'
import { OnnxBuilder, type OnnxBuilderOptions, type OnnxWeights } from './onnx-builder.js'

/** What a score of a padded position gets added: the lowest float32, as Hugging Face adds. */
const lowest = -(2 - 2 ** -23) * 2 ** 127

/** Names of the graph's values: of the tokens, their types, and what is added to scores. */
interface Inputs {
  readonly ids: string
  readonly types: string
  /** [batch, 1, 1, sequence]: 0, or `lowest` at padding. */
  readonly maskBias: string
}

function maskBias(b: OnnxBuilder, mask: string): string {
  const padding = b.op('Sub', [b.scalar(1), b.cast(b.op('Unsqueeze', [mask, b.integers(1, 2)]), 'float32')])
  return b.op('Mul', [padding, b.scalar(lowest)])
}

/** LayerNorm(word + position + type), and the projection where the encoder is wider or narrower. */
function embeddings(b: OnnxBuilder, config: ElectraConfig, { ids, types }: Inputs): string {
  const table = (name: string): string => b.weight(`electra.embeddings.${name}_embeddings.weight`)
  const words = b.op('Gather', [table('word'), ids], { axis: 0 })
  const kinds = b.op('Gather', [table('token_type'), types], { axis: 0 })
  const positions = b.op('Slice', [table('position'), b.integers(0), b.sizes(ids, 1, 2), b.integers(0)])
  const sum = b.op('Add', [b.op('Add', [words, kinds]), positions])
  const normed = b.layerNorm(sum, 'electra.embeddings.LayerNorm', config.layerNormEps)
  return config.embeddingSize === config.hiddenSize ? normed : b.linear(normed, 'electra.embeddings_project')
}

/** softmax(q kᵀ / √size + bias) v for every head, [batch, sequence, hidden]. */
function selfAttention(b: OnnxBuilder, config: ElectraConfig, x: string, name: string, bias: string): string {
  const { hiddenSize, numAttentionHeads: heads } = config
  const size = hiddenSize / heads
  // 0 keeps the size of that axis.
  const byHead = (part: string, perm: number[]): string => {
    const split = b.op('Reshape', [b.linear(x, `${name}.${part}`), b.integers(0, 0, heads, size)])
    return b.op('Transpose', [split], { perm })
  }
  const queries = byHead('query', [0, 2, 1, 3])
  const keys = byHead('key', [0, 2, 3, 1])
  const values = byHead('value', [0, 2, 1, 3])
  const scores = b.op('Div', [b.op('MatMul', [queries, keys]), b.scalar(Math.sqrt(size))])
  const probabilities = b.op('Softmax', [b.op('Add', [scores, bias])], { axis: -1 })
  const context = b.op('Transpose', [b.op('MatMul', [probabilities, values])], { perm: [0, 2, 1, 3] })
  return b.op('Reshape', [context, b.integers(0, 0, hiddenSize)])
}

function encoderLayer(b: OnnxBuilder, config: ElectraConfig, x: string, name: string, bias: string): string {
  const close = (transformed: string, residual: string, part: string): string =>
    b.layerNorm(b.op('Add', [transformed, residual]), `${name}.${part}.LayerNorm`, config.layerNormEps)
  const context = selfAttention(b, config, x, `${name}.attention.self`, bias)
  const middle = close(b.linear(context, `${name}.attention.output.dense`), x, 'attention.output')
  const wide = b.activation(b.linear(middle, `${name}.intermediate.dense`), config.hiddenAct)
  return close(b.linear(wide, `${name}.output.dense`), middle, 'output')
}

function body(b: OnnxBuilder, config: ElectraConfig, inputs: Inputs): string {
  let x = embeddings(b, config, inputs)
  for (let layer = 0; layer < config.numHiddenLayers; layer++) {
    x = encoderLayer(b, config, x, `electra.encoder.layer.${layer}`, inputs.maskBias)
  }
  return x
}

const [batch, sequence, choices] = ['batch', 'sequence', 'choices']
const float = (name: string, ...shape: (number | string)[]): OnnxValue => ({ name, type: 'float32', shape })

/** The first token of each sequence, [batch, hidden]. */
const firstTokens = (b: OnnxBuilder, hidden: string): string =>
  b.op('Squeeze', [b.op('Slice', [hidden, b.integers(0), b.integers(1), b.integers(1)]), b.integers(1)])

/** A task's head: appends its nodes and gives the outputs. */
type Head = (b: OnnxBuilder, config: ElectraConfig, hidden: string) => OnnxValue[]

const heads: Readonly<Record<string, Head>> = {
  ElectraModel(b, config, hidden) {
    b.op('Identity', [hidden], {}, 'last_hidden_state')
    return [float('last_hidden_state', batch, sequence, config.hiddenSize)]
  },

  ElectraForPreTraining(b, config, hidden) {
    const name = 'discriminator_predictions'
    const features = b.activation(b.linear(hidden, `${name}.dense`), config.hiddenAct)
    const column = b.linear(features, `${name}.dense_prediction`)
    b.op('Squeeze', [column, b.integers(-1)], {}, 'logits')
    return [float('logits', batch, sequence)]
  },

  ElectraForMaskedLM(b, config, hidden) {
    const features = b.activation(b.linear(hidden, 'generator_predictions.dense'), 'gelu')
    const normed = b.layerNorm(features, 'generator_predictions.LayerNorm', config.layerNormEps)
    const table = config.tieWordEmbeddings
      ? 'electra.embeddings.word_embeddings.weight'
      : 'generator_lm_head.weight'
    b.op('Add', [b.product(normed, table), b.weight('generator_lm_head.bias')], {}, 'logits')
    return [float('logits', batch, sequence, config.vocabSize)]
  },

  ElectraForSequenceClassification(b, config, hidden) {
    const features = b.activation(b.linear(firstTokens(b, hidden), 'classifier.dense'), 'gelu')
    b.linear(features, 'classifier.out_proj', 'logits')
    return [float('logits', batch, config.numLabels)]
  },

  ElectraForTokenClassification(b, config, hidden) {
    b.linear(hidden, 'classifier', 'logits')
    return [float('logits', batch, sequence, config.numLabels)]
  },

  ElectraForQuestionAnswering(b, _, hidden) {
    const columns = b.split(b.linear(hidden, 'qa_outputs'), 2, -1)
    return ['start_logits', 'end_logits'].map((name, i) => {
      b.op('Squeeze', [columns[i] as string, b.integers(-1)], {}, name)
      return float(name, batch, sequence)
    })
  },

  ElectraForMultipleChoice(b, config, hidden) {
    const first = firstTokens(b, hidden)
    const summary = config.summaryUseProj ? b.linear(first, 'sequence_summary.summary') : first
    const scores = b.linear(b.activation(summary, config.summaryActivation), 'classifier')
    b.op('Reshape', [scores, b.sizes('input_ids', 0, 2)], {}, 'logits')
    return [float('logits', batch, choices)]
  },
}

/**
 * The graph of a model.
 * @param architecture the class name that model files carry, such as ElectraForPreTraining
 * @throws ERR_UNSUPPORTED for another class, and for a summary that Voltaic does not have
 */
export function electraGraph(
  architecture: string,
  config: ElectraConfig,
  weights: OnnxWeights,
  options: OnnxBuilderOptions,
): OnnxGraph {
  const head = Object.hasOwn(heads, architecture) ? heads[architecture] : undefined
  if (head === undefined) {
    throw new VoltaicError(
      'ERR_UNSUPPORTED',
      `ONNX: no graph for ${architecture}; there is one for ${Object.keys(heads).join(', ')}`,
    )
  }
  const b = new OnnxBuilder(weights, options)
  const hasChoices = architecture === 'ElectraForMultipleChoice'
  const shape = hasChoices ? [batch, choices, sequence] : [batch, sequence]
  const inputs = ['input_ids', 'attention_mask', 'token_type_ids'].map(
    (name): OnnxValue => ({ name, type: 'int64', shape }),
  )
  // The choices of all questions are sequences, one after the other.
  const flat = (name: string): string => {
    if (!hasChoices) return name
    const shape = b.op('Concat', [b.integers(-1), b.sizes(name, 2, 3)], { axis: 0 })
    return b.op('Reshape', [name, shape])
  }
  const hidden = body(b, config, {
    ids: flat('input_ids'),
    types: flat('token_type_ids'),
    maskBias: maskBias(b, flat('attention_mask')),
  })
  return b.graph(architecture, inputs, head(b, config, hidden))
}
