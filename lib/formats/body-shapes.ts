/** The tensors of an ELECTRA body, as a configuration decides them: embeddings, their projection, and the encoder's layers. */
import { VoltaicError } from '../runtime/errors.js'
import type { ElectraConfig } from './electra-config.js'
import { matchTensors, requireMatchingShapes } from './tensor-names.js'
import type { TensorSource } from './tensor-source.js'

/** Names to shapes, in the order of the forward pass. Linear layers are [out, in]. */
export function bodyShapes(config: ElectraConfig): Map<string, readonly number[]> {
  const { vocabSize, embeddingSize, hiddenSize, intermediateSize } = config
  const shapes = new Map<string, readonly number[]>()
  const linear = (name: string, output: number, input: number): void => {
    shapes.set(`${name}.weight`, [output, input]).set(`${name}.bias`, [output])
  }
  const layerNorm = (name: string, size: number): void => {
    shapes.set(`${name}.weight`, [size]).set(`${name}.bias`, [size])
  }
  const table = (name: string, rows: number): void => {
    shapes.set(`electra.embeddings.${name}.weight`, [rows, embeddingSize])
  }
  table('word_embeddings', vocabSize)
  table('position_embeddings', config.maxPositionEmbeddings)
  table('token_type_embeddings', config.typeVocabSize)
  layerNorm('electra.embeddings.LayerNorm', embeddingSize)
  if (embeddingSize !== hiddenSize) linear('electra.embeddings_project', hiddenSize, embeddingSize)
  for (let layer = 0; layer < config.numHiddenLayers; layer++) {
    const prefix = `electra.encoder.layer.${layer}`
    for (const part of ['query', 'key', 'value'])
      linear(`${prefix}.attention.self.${part}`, hiddenSize, hiddenSize)
    linear(`${prefix}.attention.output.dense`, hiddenSize, hiddenSize)
    layerNorm(`${prefix}.attention.output.LayerNorm`, hiddenSize)
    linear(`${prefix}.intermediate.dense`, intermediateSize, hiddenSize)
    linear(`${prefix}.output.dense`, hiddenSize, intermediateSize)
    layerNorm(`${prefix}.output.LayerNorm`, hiddenSize)
  }
  return shapes
}

/**
 * Refuses weights whose body is not the configuration's: another model's config.json beside them, usually the discriminator's
 * beside a generator.
 * @throws ERR_FORMAT naming the first tensor that differs or is missing
 */
export function requireBody(config: ElectraConfig, source: TensorSource): void {
  const match = matchTensors(bodyShapes(config), source)
  requireMatchingShapes(match, source.path)
  const layer = match.unexpected.find((name) => /encoder\.layer\./.test(name))
  const problem =
    match.missing[0] !== undefined
      ? `lacks ${match.missing[0]}, which the configuration asks for`
      : layer !== undefined
        ? `holds ${layer}, but num_hidden_layers is ${config.numHiddenLayers}`
        : undefined
  if (problem === undefined) return
  throw new VoltaicError(
    'ERR_FORMAT',
    `${source.path}: ${problem}; use the config.json that was saved with these weights`,
  )
}
