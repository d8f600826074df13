/**
 * Longer inputs: the position table of a trained model, extended by repetition. Row 0 is only ever seen with [CLS], so the new rows
 * run through the trained rows 1, 2, ... in order, again and again:
 *
 *   row i of the new table = row i of the old one where i < trained, else row 1 + (i - trained) mod (trained - 1)
 *
 * The trained rows keep every bit, so inputs that fitted before give the same numbers, and within each repetition neighbours are as far
 * apart as they were, which is what most attention heads look at (Clark et al., 2019). Longformer starts its 4,096 positions from
 * RoBERTa's 512 in this way and loses little before any training (Beltagy et al., 2020, section 5). Linear interpolation would move
 * every row, and no input would give what it gave.
 */
import { VoltaicError } from '../runtime/errors.js'
import type { ModelSource } from './model-source.js'
import { type SourceTensor, tensorOf, tensorSource } from './tensor-source.js'

const positionTableName = 'electra.embeddings.position_embeddings.weight'

export interface PositionOptions {
  /** Rows of the table that training has reached, from the first: the longest input it saw. Default: all. */
  readonly trained?: number | undefined
}

/** How many rows are trained. @throws ERR_ARGUMENT */
function checkedRows(rows: number, positions: number, trained = rows): number {
  if (!Number.isSafeInteger(positions) || positions < rows) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `positions is ${positions}; expected a whole number from ${rows}, which the model has already`,
    )
  }
  if (!Number.isSafeInteger(trained) || trained < 2 || trained > rows) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `trained positions are ${trained}; expected a whole number from 2 to the table's ${rows}`,
    )
  }
  return trained
}

/**
 * A position table of more rows: see above.
 * @param table rows one behind the other, float32 or bytes; it stays as it is
 * @param width elements of a row
 * @param positions rows of the result, as many as the table has or more
 * @throws ERR_ARGUMENT for fewer rows, or trained rows that are not 2 to all
 */
export function extendPositions<T extends Float32Array | Uint8Array>(
  table: T,
  width: number,
  positions: number,
  { trained }: PositionOptions = {},
): T {
  const rows = table.length / width
  const known = checkedRows(rows, positions, trained)
  const extended = (
    table instanceof Uint8Array ? new Uint8Array(positions * width) : new Float32Array(positions * width)
  ) as T
  for (let row = 0; row < positions; row++) {
    const from = row < known ? row : 1 + ((row - known) % (known - 1))
    extended.set(table.subarray(from * width, (from + 1) * width), row * width)
  }
  return extended
}

/** The tokenizer's files, whose longest input grows with the table where it was the table's. */
function filesWith(
  files: ModelSource['files'],
  before: number,
  positions: number,
): Readonly<Record<string, Uint8Array>> {
  const name = 'tokenizer_config.json'
  const bytes = files[name]
  if (bytes === undefined) return files
  const text = Buffer.from(bytes).toString()
  const changed = text.replace(/("model_max_length"\s*:\s*)(\d+)/, (whole, key: string, length: string) =>
    Number(length) === before ? `${key}${positions}` : whole,
  )
  return { ...files, [name]: Buffer.from(changed) }
}

/**
 * The model with a longer position table, in the element type that it has; `dispose` closes the one given.
 * @throws ERR_ARGUMENT as `extendPositions`
 */
export function withPositions(
  model: ModelSource,
  positions: number,
  options: PositionOptions = {},
): ModelSource {
  const { config, tensors, files } = model
  const { dtype, shape, byteLength } = tensors.info(positionTableName)
  const [rows, width] = shape as readonly [number, number]
  checkedRows(rows, positions, options.trained)
  const rowBytes = byteLength / rows
  const table: SourceTensor = {
    dtype,
    shape: [positions, width],
    byteLength: positions * rowBytes,
    bytes: () => extendPositions(tensors.bytes(positionTableName), rowBytes, positions, options),
  }
  const changed = new Map(
    tensors.names.map((name) => [name, name === positionTableName ? table : tensorOf(tensors, name)]),
  )
  return {
    config: { ...config, maxPositionEmbeddings: positions },
    tensors: tensorSource(tensors.path, changed, tensors.close),
    files: filesWith(files, config.maxPositionEmbeddings, positions),
    leftOut: model.leftOut,
    [Symbol.dispose]: () => model[Symbol.dispose](),
  }
}
