/**
 * What `forward` takes, and what the kernels take: ragged rows of token ids become one flat run of tokens with offsets, without
 * padding. Everything is checked here, where the caller can see what was wrong; the device sees good indices only.
 */
import type { ElectraConfig } from '../formats/electra-config.js'
import { type Device, VoltaicError } from '../runtime/index.js'
import { Tensor, tensor } from '../tensor/index.js'
import { unscoped } from '../tensor/scope.js'

/** One row a sequence, each of its own length. */
export type Rows = readonly (readonly number[] | Int32Array)[]

/** Sequences as the tokenizer gives them. */
export interface RaggedInput {
  readonly inputIds: Rows
  /** 0 or 1 for each token. Default: all 0. */
  readonly tokenTypeIds?: Rows | undefined
}

/** A batch that is flat already, such as the ones `lib/data` makes. */
export interface FlatInput {
  /** [tokens] */
  readonly ids: Int32Array
  /** [tokens] */
  readonly types: Int32Array
  /** Positions, from 0 in each sequence, [tokens]. */
  readonly positions: Int32Array
  /** [sequences + 1] */
  readonly offsets: Int32Array
  /** The longest sequence's tokens. */
  readonly longest: number
}

/** A batch on its device. */
export interface DeviceBatch {
  /** int32 [tokens] */
  readonly ids: Tensor
  /** int32 [tokens] */
  readonly types: Tensor
  /** int32 [tokens]: from 0 in each sequence */
  readonly positions: Tensor
  /** int32 [sequences + 1]: sequence s has the tokens offsets[s] to offsets[s + 1] */
  readonly offsets: Tensor
  readonly tokens: number
  readonly sequences: number
  readonly longest: number
  /** `offsets` on this side, for what is checked or laid out here. */
  readonly bounds: Int32Array
}

export type BatchInput = RaggedInput | FlatInput | DeviceBatch

type Limits = Pick<ElectraConfig, 'vocabSize' | 'typeVocabSize' | 'maxPositionEmbeddings'>

function refuse(message: string): never {
  throw new VoltaicError('ERR_ARGUMENT', message)
}

function refuseShape(message: string): never {
  throw new VoltaicError('ERR_SHAPE', message)
}

function isRows(rows: unknown): rows is Rows {
  return Array.isArray(rows) && rows.every((row) => Array.isArray(row) || row instanceof Int32Array)
}

/**
 * Rows of whole numbers, one after the other.
 * @param bounds when given: the rows must be as long as these offsets say
 * @throws ERR_ARGUMENT when a number is out of range (`fits` says), ERR_SHAPE when rows do not match
 */
export function flattenRows(
  name: string,
  rows: Rows,
  bounds: Int32Array,
  fits: (value: number) => boolean,
  expected: string,
): Int32Array {
  if (!isRows(rows)) {
    refuse(
      `${name}: expected rows, one array of whole numbers a sequence (such as [[2, 9, 3], [2, 5, 6, 3]])`,
    )
  }
  if (rows.length !== bounds.length - 1) {
    refuseShape(
      `${name} has ${rows.length} rows and inputIds has ${bounds.length - 1}; expected one a sequence`,
    )
  }
  const flat = new Int32Array(bounds[bounds.length - 1] as number)
  rows.forEach((row, sequence) => {
    const start = bounds[sequence] as number
    const length = (bounds[sequence + 1] as number) - start
    if (row.length !== length) {
      refuseShape(
        `${name}: row ${sequence} has ${row.length} numbers and inputIds has ${length}; expected one a token`,
      )
    }
    for (let i = 0; i < length; i++) {
      const value = row[i] as number
      if (!fits(value)) refuse(`${name}: ${value} at row ${sequence}, token ${i}; expected ${expected}`)
      flat[start + i] = value
    }
  })
  return flat
}

const wholeBelow = (limit: number) => (value: number) =>
  Number.isInteger(value) && value >= 0 && value < limit

/** Where each row begins, and the number of tokens. */
function boundsOf(rows: Rows, limits: Limits): { bounds: Int32Array; longest: number } {
  if (!isRows(rows)) {
    refuse('inputIds: expected rows, one array of token ids a sequence (such as [[2, 9, 3], [2, 5, 6, 3]])')
  }
  if (rows.length === 0) refuse('inputIds has no rows; expected at least one sequence')
  const bounds = new Int32Array(rows.length + 1)
  let longest = 0
  rows.forEach((row, sequence) => {
    if (row.length === 0)
      refuse(`inputIds: row ${sequence} is empty; expected at least one token (such as [CLS])`)
    if (row.length > limits.maxPositionEmbeddings) refuseLength(sequence, row.length, limits)
    bounds[sequence + 1] = (bounds[sequence] as number) + row.length
    longest = Math.max(longest, row.length)
  })
  return { bounds, longest }
}

function refuseLength(sequence: number, length: number, limits: Limits): never {
  refuse(
    `inputIds: row ${sequence} has ${length} tokens, more than the model's ${limits.maxPositionEmbeddings} positions; ` +
      'truncate it (the tokenizer does with { truncation: true, maxLength })',
  )
}

/** Ragged rows as one flat run on this side. */
export function flattenInput(input: RaggedInput, limits: Limits): FlatInput {
  const { bounds, longest } = boundsOf(input.inputIds, limits)
  const { vocabSize, typeVocabSize } = limits
  const ids = flattenRows(
    'inputIds',
    input.inputIds,
    bounds,
    wholeBelow(vocabSize),
    `a token id from 0 to ${vocabSize - 1}`,
  )
  const types =
    input.tokenTypeIds === undefined
      ? new Int32Array(ids.length)
      : flattenRows(
          'tokenTypeIds',
          input.tokenTypeIds,
          bounds,
          wholeBelow(typeVocabSize),
          `a type from 0 to ${typeVocabSize - 1}`,
        )
  const positions = new Int32Array(ids.length)
  for (let sequence = 0; sequence + 1 < bounds.length; sequence++) {
    const start = bounds[sequence] as number
    for (let at = start; at < (bounds[sequence + 1] as number); at++) positions[at] = at - start
  }
  return { ids, types, positions, offsets: bounds, longest }
}

function checkFlat(input: FlatInput, limits: Limits): void {
  const { ids, types, positions, offsets, longest } = input
  const { vocabSize, typeVocabSize, maxPositionEmbeddings } = limits
  if (types.length !== ids.length || positions.length !== ids.length) {
    refuseShape(
      `a flat batch of ${ids.length} ids, ${types.length} types and ${positions.length} positions; expected as many of each`,
    )
  }
  let previous = 0
  for (let i = 0; i < offsets.length; i++) {
    const bound = offsets[i] as number
    if (i === 0 ? bound !== 0 : bound <= previous || bound - previous > longest) {
      refuse(
        `a flat batch: offsets[${i}] is ${bound}; expected 0 first, then more by 1 to ${longest} (longest) each time`,
      )
    }
    previous = bound
  }
  if (offsets.length < 2 || previous !== ids.length) {
    refuseShape(
      `a flat batch of ${ids.length} ids: the last of ${offsets.length} offsets is ${previous}; expected the number of ids`,
    )
  }
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i] as number
    const type = types[i] as number
    const position = positions[i] as number
    if (id < 0 || id >= vocabSize)
      refuse(`a flat batch: ids[${i}] is ${id}; expected 0 to ${vocabSize - 1} (another vocabulary's data?)`)
    if (type < 0 || type >= typeVocabSize)
      refuse(`a flat batch: types[${i}] is ${type}; expected 0 to ${typeVocabSize - 1}`)
    if (position < 0 || position >= maxPositionEmbeddings)
      refuse(`a flat batch: positions[${i}] is ${position}; expected 0 to ${maxPositionEmbeddings - 1}`)
  }
}

/** An int32 tensor of the numbers. */
export function upload(data: Int32Array, device: Device): Tensor {
  return tensor(data, { device })
}

function onDevice(flat: FlatInput, put: (name: IndexName, data: Int32Array) => Tensor): DeviceBatch {
  return {
    ids: put('ids', flat.ids),
    types: put('types', flat.types),
    positions: put('positions', flat.positions),
    offsets: put('offsets', flat.offsets),
    tokens: flat.ids.length,
    sequences: flat.offsets.length - 1,
    longest: flat.longest,
    bounds: flat.offsets,
  }
}

type IndexName = 'ids' | 'types' | 'positions' | 'offsets'

function isDeviceBatch(input: BatchInput): input is DeviceBatch {
  return 'ids' in input && input.ids instanceof Tensor
}

function checkedFlat(input: RaggedInput | FlatInput, limits: Limits): FlatInput {
  if ('inputIds' in input) return flattenInput(input, limits)
  if (!(input.ids instanceof Int32Array)) {
    refuse('forward: expected { inputIds: rows, tokenTypeIds?: rows }, as the tokenizer gives them')
  }
  checkFlat(input, limits)
  return input
}

/**
 * The batch on a device; one that is there already is taken as it is.
 * @throws ERR_ARGUMENT for ids, types or lengths that the model does not have, and for empty rows; ERR_SHAPE for rows that do not match
 */
export function toDeviceBatch(input: BatchInput, limits: Limits, device: Device): DeviceBatch {
  if (isDeviceBatch(input)) return input
  return onDevice(checkedFlat(input, limits), (_, data) => upload(data, device))
}

/** Frees the indices of a batch that was uploaded for one pass (the tape keeps what it needs); `offsets` belong to the output. */
export function releaseIndices(batch: DeviceBatch, input: unknown): void {
  if (batch === input) return
  for (const index of [batch.ids, batch.types, batch.positions]) index.dispose()
}

/** Sizes that stay from batch to batch, for captured graphs. */
export interface BatchPadding {
  /** Sequences in `offsets`, at least the batch's own; those beyond are empty, at the end. */
  readonly sequences: number
  /** What `longest` says, at least the batch's own. */
  readonly longest: number
}

function padded(flat: FlatInput, { sequences, longest }: BatchPadding): FlatInput {
  if (flat.offsets.length > sequences + 1 || flat.longest > longest)
    refuse(
      `a batch of ${flat.offsets.length - 1} sequences of ${flat.longest} tokens at most; expected ${sequences} and ${longest}`,
    )
  const offsets = new Int32Array(sequences + 1).fill(flat.ids.length)
  offsets.set(flat.offsets)
  return { ...flat, offsets, longest }
}

/**
 * Uploads batch after batch into the same device tensors where their sizes stay, as a captured graph wants them. A batch is good
 * until the next `put`; backward of what was computed from it must have been called by then.
 */
export class BatchBuffers {
  readonly device: Device
  readonly #limits: Limits
  readonly #tensors = new Map<IndexName, Tensor>()

  constructor(limits: Limits, device: Device) {
    this.#limits = limits
    this.device = device
  }

  /** @throws ERR_ARGUMENT for a batch that does not fit the model or the padding */
  put(input: RaggedInput | FlatInput, padding?: BatchPadding): DeviceBatch {
    const checked = checkedFlat(input, this.#limits)
    const flat = padding === undefined ? checked : padded(checked, padding)
    return onDevice(flat, (name, data) => {
      const present = this.#tensors.get(name)
      if (present !== undefined && !present.disposed && present.size === data.length)
        return present.assign(data)
      present?.dispose()
      const fresh = unscoped(() => upload(data, this.device))
      this.#tensors.set(name, fresh)
      return fresh
    })
  }

  dispose(): void {
    for (const buffer of this.#tensors.values()) buffer.dispose()
    this.#tensors.clear()
  }
}
