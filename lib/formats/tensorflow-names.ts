/**
 * The variables of the original ELECTRA code under the names of today's model folders. One checkpoint holds both models: the
 * discriminator is `electra/…` with `discriminator_predictions/…`; the generator is `generator/…` with `generator_predictions/…`, and
 * its embedding tables are the discriminator's unless it has its own. Where there is no `generator/encoder` (training on the masked
 * language objective alone, or all weights tied) its body is `electra/…`.
 *
 * Kernels are [in, out] there and [out, in] here, so they are transposed when asked for; gamma and beta are weight and bias.
 */
import { VoltaicError } from '../runtime/errors.js'
import { defineElectraConfig, type ElectraConfig } from './electra-config.js'
import { aligned, dtypeBits } from './tensor-data.js'
import { type SourceTensor, showName, type TensorSource, tensorOf, tensorSource } from './tensor-source.js'
import { answerHeadNames, originalAnswerClass } from './tensorflow-heads.js'
import { type LeftOut, leftOutVariables } from './tensorflow-leftovers.js'
import { findLinearHead } from './tensorflow-linear-heads.js'

/** Which of the two models of a pre-training checkpoint. */
export type ElectraPart = 'discriminator' | 'generator'

export const electraParts: readonly ElectraPart[] = ['discriminator', 'generator']

/** Rows and columns exchanged, square by square, so that both sides stay in cache. */
function transposed<A extends Uint8Array | Uint16Array | Uint32Array | BigUint64Array>(
  source: A,
  result: A,
  rows: number,
  columns: number,
): void {
  const side = 32
  for (let top = 0; top < rows; top += side) {
    for (let left = 0; left < columns; left += side) {
      for (let row = top; row < Math.min(rows, top + side); row++) {
        for (let column = left; column < Math.min(columns, left + side); column++) {
          result[column * rows + row] = source[row * columns + column] as A[number]
        }
      }
    }
  }
}

const elementArrays = { 8: Uint8Array, 16: Uint16Array, 32: Uint32Array, 64: BigUint64Array } as const

function transpose({ dtype, shape, byteLength, bytes }: SourceTensor): SourceTensor {
  const [rows = 0, columns = 0] = shape
  const bits = dtypeBits[dtype] as keyof typeof elementArrays
  const Elements = elementArrays[bits]
  return {
    dtype,
    shape: [columns, rows],
    byteLength,
    bytes() {
      const { buffer, byteOffset } = aligned(bytes(), bits / 8)
      const result = new Elements(rows * columns)
      transposed(new Elements(buffer as ArrayBuffer, byteOffset, rows * columns), result, rows, columns)
      return new Uint8Array(result.buffer)
    },
  }
}

const heads: Readonly<Record<ElectraPart, readonly [from: string, to: string][]>> = {
  discriminator: [
    ['discriminator_predictions/dense/', 'discriminator_predictions.dense.'],
    ['discriminator_predictions/dense_1/', 'discriminator_predictions.dense_prediction.'],
  ],
  generator: [
    ['generator_predictions/dense/', 'generator_predictions.dense.'],
    ['generator_predictions/LayerNorm/', 'generator_predictions.LayerNorm.'],
    ['generator_predictions/output_bias', 'generator_lm_head.bias'],
  ],
}

/** The scope of each piece of the body. */
function bodyScopes(source: TensorSource, part: ElectraPart): Readonly<Record<string, string>> {
  const first = (scope: string, name: string): boolean => source.has(`${scope}/${name}`)
  const hasOwn = (name: string): boolean => part === 'generator' && first('generator', name)
  const own = hasOwn('encoder/layer_0/attention/self/query/kernel') ? 'generator' : 'electra'
  return {
    embeddings: hasOwn('embeddings/word_embeddings') ? 'generator' : 'electra',
    embeddings_project: own,
    encoder: own,
  }
}

function parameterName(path: string): string {
  const dotted = path
    .replace(/\bencoder\/layer_(\d+)\//, 'encoder/layer/$1/')
    .replaceAll('/', '.')
    .replace(/\.(kernel|gamma)$/, '.weight')
    .replace(/\.beta$/, '.bias')
  return /_embeddings$/.test(dotted) ? `${dotted}.weight` : dotted
}

/** Today's name of a variable in this part, or undefined when it is none of its weights. */
function targetName(
  variable: string,
  part: ElectraPart,
  scopes: Readonly<Record<string, string>>,
): string | undefined {
  if (/\/adam_[mv]$/.test(variable)) return undefined
  for (const [from, to] of heads[part]) {
    if (!variable.startsWith(from)) continue
    const rest = variable.slice(from.length)
    return rest === '' ? to : /^(kernel|bias|gamma|beta)$/.test(rest) ? parameterName(to + rest) : undefined
  }
  const [scope = '', piece = '', ...rest] = variable.split('/')
  if (rest.length === 0 || !Object.hasOwn(scopes, piece) || scopes[piece] !== scope) return undefined
  return `electra.${parameterName([piece, ...rest].join('/'))}`
}

/** One model of a checkpoint of the original code. */
export interface OriginalModel extends TensorSource {
  /** What the configuration says of a head that was fine-tuned. */
  readonly headConfig: Partial<ElectraConfig>
  /** The variables that are not in it. */
  readonly leftOut: readonly LeftOut[]
}

/**
 * One model of a checkpoint, under today's names. `close` closes the checkpoint.
 * @throws ERR_FORMAT when the checkpoint does not hold it
 */
export function electraFromTensorflow(source: TensorSource, part: ElectraPart): OriginalModel {
  const scopes = bodyScopes(source, part)
  const fineTuned = part === 'discriminator' ? answerHeadNames(source.names) : undefined
  const linear = part === 'discriminator' ? findLinearHead(source) : undefined
  const taken = new Set<string>(linear?.variables)
  const tensors = new Map<string, SourceTensor>()
  for (const variable of source.names) {
    const name = fineTuned?.get(variable) ?? targetName(variable, part, scopes)
    if (name === undefined) continue
    taken.add(variable)
    const tensor = tensorOf(source, variable)
    const isKernel = variable.endsWith('/kernel')
    if (isKernel && tensor.shape.length !== 2) {
      throw new VoltaicError(
        'ERR_FORMAT',
        `${source.path}: variable ${showName(variable)} has shape [${tensor.shape.join(', ')}]; expected two axes`,
      )
    }
    tensors.set(name, isKernel ? transpose(tensor) : tensor)
  }
  const needed = part === 'generator' ? 'generator_lm_head.bias' : 'electra.embeddings.word_embeddings.weight'
  if (!tensors.has(needed) || !tensors.has('electra.embeddings.word_embeddings.weight')) {
    const shown = source.names.slice(0, 3).map(showName).join(', ')
    throw new VoltaicError(
      'ERR_FORMAT',
      `${source.path}: holds no ${part} of the original ELECTRA code (its ${source.names.length} variables begin with ${shown}). ` +
        'Fine-tuned checkpoints hold a discriminator only',
    )
  }
  for (const [name, tensor] of linear?.tensors ?? []) tensors.set(name, tensor)
  return {
    ...tensorSource(source.path, tensors, source.close),
    headConfig: linear?.config ?? {},
    leftOut: leftOutVariables(source.names, taken, part),
  }
}

/**
 * The configuration that such weights were trained with, read from their shapes. The original code's rule gives the heads: one for
 * each 64 of the width. Dropout and the activation are not in a checkpoint; they are the same for every published model.
 * @throws ERR_FORMAT when a tensor that decides a size is missing
 */
export function configFromShapes(source: OriginalModel, part: ElectraPart): ElectraConfig {
  const size = (name: string, axis: number): number => {
    const { shape } = source.has(name) ? source.info(name) : { shape: [] }
    const found = shape[axis]
    if (found !== undefined) return found
    throw new VoltaicError('ERR_FORMAT', `${source.path}: no tensor ${name}, which decides the model's sizes`)
  }
  const layer = 'electra.encoder.layer.'
  const hiddenSize = size(`${layer}0.attention.self.query.weight`, 0)
  const layers = new Set(
    source.names
      .filter((name) => name.startsWith(layer))
      .map((name) => name.slice(layer.length).split('.')[0]),
  )
  const body = source.has('discriminator_predictions.dense.weight') ? 'ElectraForPreTraining' : 'ElectraModel'
  const discriminator = source.has('start_predictions.weight') ? originalAnswerClass : body
  return defineElectraConfig({
    architectures: [part === 'generator' ? 'ElectraForMaskedLM' : discriminator],
    vocabSize: size('electra.embeddings.word_embeddings.weight', 0),
    embeddingSize: size('electra.embeddings.word_embeddings.weight', 1),
    maxPositionEmbeddings: size('electra.embeddings.position_embeddings.weight', 0),
    typeVocabSize: size('electra.embeddings.token_type_embeddings.weight', 0),
    hiddenSize,
    numHiddenLayers: layers.size,
    numAttentionHeads: Math.max(1, Math.floor(hiddenSize / 64)),
    intermediateSize: size(`${layer}0.intermediate.dense.weight`, 0),
    ...source.headConfig,
  })
}
