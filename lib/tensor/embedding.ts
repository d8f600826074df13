/** The embedding block: three tables, LayerNorm and dropout in one pass. */
import { run, VoltaicError } from '../runtime/index.js'
import { checkDropout, type Dropout } from './dropout-site.js'
import { checkDType, masterOf, nodes, resultWith, type Weight, weightValue } from './operands.js'
import { consumeView } from './raw.js'
import { shapeText } from './shapes.js'
import { type Tensor, tensorValue } from './tensor.js'
import { newValue, produceAll, releaseValue, retain, viewValue } from './value.js'

export interface EmbeddingTables {
  /** [vocabulary, width] */
  readonly word: Weight
  /** [limit, width] */
  readonly position: Weight
  /** [kinds, width] */
  readonly type: Weight
  /** LayerNorm's weight and bias, [width], float32. */
  readonly normWeight: Weight
  readonly normBias: Weight
}

export interface EmbeddingBlockOptions {
  /** LayerNorm's epsilon. Default 1e-12. */
  readonly epsilon?: number | undefined
  /** Dropout of the result; none when left out. */
  readonly dropout?: Dropout | null | undefined
  /** dtype of the result. Default float32; bfloat16 uses the tables' working copies. */
  readonly dtype?: 'float32' | 'bfloat16' | undefined
}

/** The int32 tensors [tokens] that choose the rows. */
export interface EmbeddingIndices {
  readonly ids: Tensor
  readonly types: Tensor
  readonly positions: Tensor
}

/**
 * dropout(layerNorm(word[ids] + type[types] + position[positions])).
 * @returns [tokens, width]. An index out of range is reported when the result is read.
 */
export function embeddingBlock(
  indices: EmbeddingIndices,
  tables: EmbeddingTables,
  options: EmbeddingBlockOptions = {},
): Tensor {
  const op = 'embeddingBlock'
  for (const [name, index] of Object.entries(indices)) checkDType(op, name, index as Tensor, 'int32')
  const dtype = options.dtype ?? 'float32'
  const word = masterOf(tables.word)
  const type = masterOf(tables.type)
  const position = masterOf(tables.position)
  const scale = masterOf(tables.normWeight)
  const shift = masterOf(tables.normBias)
  const width = word.shape[1]
  if (
    word.shape.length !== 2 ||
    width === undefined ||
    type.shape[1] !== width ||
    position.shape[1] !== width
  ) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `${op}: tables of shapes ${[word, type, position].map((table) => shapeText(table.shape)).join(', ')}; ` +
        'expected word [vocabulary, width], type [kinds, width] and position [limit, width]',
    )
  }
  const { state, probability, site } = checkDropout(op, options.dropout)
  const ids = tensorValue(indices.ids)
  const types = tensorValue(indices.types)
  const positions = tensorValue(indices.positions)
  const scaleValue = tensorValue(scale)
  const { device, size: tokens } = ids
  const wordIn = weightValue(tables.word, dtype)
  const typeIn = weightValue(tables.type, dtype)
  const positionIn = weightValue(tables.position, dtype)
  const sum = newValue(device, dtype, [tokens, width])
  const y = newValue(device, dtype, [tokens, width])
  const mean = newValue(device, 'float32', [tokens])
  const inverseStd = newValue(device, 'float32', [tokens])
  produceAll(
    [wordIn, typeIn, positionIn, sum, y, mean, inverseStd],
    'embedding_forward',
    [
      ids.handle,
      types.handle,
      positions.handle,
      wordIn.handle,
      typeIn.handle,
      positionIn.handle,
      scaleValue.handle,
      tensorValue(shift).handle,
      state?.handle ?? null,
      sum.handle,
      y.handle,
      mean.handle,
      inverseStd.handle,
    ],
    [options.epsilon ?? 1e-12, probability, site],
  )
  for (const table of [wordIn, typeIn, positionIn]) releaseValue(table)
  const saved = [sum, mean, inverseStd, retain(ids), retain(types), retain(positions), retain(scaleValue)]
  if (state !== null) saved.push(retain(state))
  const inputs = nodes(word, type, position, scale, shift)
  const shapes = [word.shape, type.shape, position.shape, scale.shape, shift.shape]
  return resultWith(op, y, inputs, saved, (node, gradient) => {
    const buffers = shapes.map((shape, index) => node.openShape(index, device, shape))
    run(
      'embedding_backward',
      [
        gradient.handle,
        ids.handle,
        types.handle,
        positions.handle,
        sum.handle,
        mean.handle,
        inverseStd.handle,
        scaleValue.handle,
        state?.handle ?? null,
        ...buffers.map((buffer) => buffer.handle),
      ],
      [probability, site],
    )
    buffers.forEach((buffer, index) => {
      node.close(index, buffer)
    })
  })
}

/**
 * Rows of a table: the parts of `table` [rows, width] that `ids` (int32, any shape) name, as [...ids.shape, width]. bfloat16 (`dtype`)
 * uses the table's working copy. An index out of range is reported when the result is read.
 */
export function embedding(
  ids: Tensor,
  table: Weight,
  options: { readonly dtype?: 'float32' | 'bfloat16' | undefined } = {},
): Tensor {
  checkDType('embedding', 'ids', ids, 'int32')
  const master = masterOf(table)
  const [rows, width] = master.shape
  if (master.shape.length !== 2 || rows === undefined || width === undefined) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `embedding: the table has shape ${shapeText(master.shape)}, expected [rows, width]`,
    )
  }
  const from = weightValue(table, options.dtype ?? 'float32')
  const index = viewValue(tensorValue(ids), [ids.size])
  const output = newValue(from.device, from.dtype, [index.size, width])
  produceAll([from, index, output], 'gather_rows', [from.handle, index.handle, output.handle])
  releaseValue(from)
  const shaped = consumeView(output, [...ids.shape, width])
  return resultWith('embedding', shaped, nodes(master), [index], (node, gradient) => {
    const flat = viewValue(gradient, [index.size, width])
    const buffer = node.openShape(0, gradient.device, [rows, width])
    run('scatter_add_rows', [flat.handle, index.handle, buffer.handle])
    node.close(0, buffer)
    releaseValue(flat)
  })
}
