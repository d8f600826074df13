/**
 * A trained model under a new vocabulary: what becomes of the rows that belong to tokens, in the word table and in the generator's
 * output bias. A row of the new table is
 *
 *   special   the old row of the same role: [PAD], [UNK], [CLS], [SEP], [MASK], whatever they are called
 *   shared    the old row of the same string, bit for bit
 *   averaged  the mean of the rows of the pieces that the old tokenizer cuts the string into (Gee et al., 2022)
 *   fresh     what the caller gives: where the old tokenizer knows nothing of the string but [UNK]
 *
 * The encoder stays as it is.
 */
import type { ElectraConfig } from '../formats/electra-config.js'
import type { ModelSource } from '../formats/model-source.js'
import { type SourceTensor, tensorOf, tensorSource } from '../formats/tensor-source.js'
import { Embedding } from '../nn/index.js'
import { VoltaicError } from '../runtime/index.js'
import { FirstValues, initializeByName } from './initialization.js'

/** What is needed of a tokenizer; any of lib/text will do. */
export interface TransferTokenizer {
  /** Tokens by id; '' where an id has none. */
  readonly vocabulary: readonly string[]
  readonly padTokenId: number
  readonly unkTokenId: number
  readonly clsTokenId: number
  readonly sepTokenId: number
  readonly maskTokenId: number
  readonly specification: { readonly continuationPrefix: string; readonly lowercase: boolean }
  tokenize(text: string): string[]
}

export interface TransferCounts {
  readonly special: number
  readonly shared: number
  readonly averaged: number
  readonly fresh: number
}

/** Where each row of the new table comes from. */
export interface VocabularyTransfer extends TransferCounts {
  /** Rows of the old and the new table. */
  readonly oldSize: number
  readonly newSize: number
  /** For each new id the old ids whose rows are averaged; one for a row that is kept, none for a fresh one. */
  readonly sources: readonly (readonly number[])[]
}

const roles = ['padTokenId', 'unkTokenId', 'clsTokenId', 'sepTokenId', 'maskTokenId'] as const

/** Cuts strings into the old vocabulary's pieces, those that go on within a word too. */
class OldPieces {
  readonly #tokenizer: TransferTokenizer
  readonly #ids: ReadonlyMap<string, number>
  readonly #unknown: string

  constructor(tokenizer: TransferTokenizer) {
    this.#tokenizer = tokenizer
    this.#ids = new Map(tokenizer.vocabulary.map((token, id) => [token, id]))
    this.#unknown = tokenizer.vocabulary[tokenizer.unkTokenId] ?? ''
  }

  id(token: string): number | undefined {
    return token === '' ? undefined : this.#ids.get(token)
  }

  /** Longest match first, as WordPiece; undefined when something does not match. */
  #continued(text: string): number[] | undefined {
    const { continuationPrefix } = this.#tokenizer.specification
    const characters = [...text]
    const ids: number[] = []
    for (let start = 0; start < characters.length; ) {
      let end = characters.length
      let id: number | undefined
      for (; end > start; end--) {
        id = this.#ids.get(continuationPrefix + characters.slice(start, end).join(''))
        if (id !== undefined) break
      }
      if (id === undefined) return undefined
      ids.push(id)
      start = end
    }
    return ids
  }

  /** The ids of a string at the beginning of a word, or within one; none when the old vocabulary does not know it. */
  cut(text: string, isContinuation: boolean): number[] {
    const pieces = this.#tokenizer.tokenize(text)
    if (pieces.length === 0 || pieces.includes(this.#unknown)) {
      if (!isContinuation) return []
      // What begins no word may go on within one; nothing but the case can be made the old tokenizer's here.
      return this.#continued(this.#tokenizer.specification.lowercase ? text.toLowerCase() : text) ?? []
    }
    if (!isContinuation) return pieces.map((piece) => this.#ids.get(piece) as number)
    // Normalized as the old tokenizer does it: in lower case, without accents.
    const { continuationPrefix } = this.#tokenizer.specification
    const normalized = pieces
      .map((piece) => (piece.startsWith(continuationPrefix) ? piece.slice(continuationPrefix.length) : piece))
      .join('')
    return this.#continued(normalized) ?? pieces.map((piece) => this.#ids.get(piece) as number)
  }
}

/**
 * Finds out where each row comes from.
 * @param oldRows rows of the old table, where it has more than the tokenizer has tokens
 * @throws ERR_ARGUMENT when the old tokenizer has more tokens than the table has rows
 */
export function planVocabularyTransfer(
  oldTokenizer: TransferTokenizer,
  newTokenizer: TransferTokenizer,
  oldRows: number = oldTokenizer.vocabulary.length,
): VocabularyTransfer {
  if (oldTokenizer.vocabulary.length > oldRows) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `the old tokenizer has ${oldTokenizer.vocabulary.length} tokens, the model's table ${oldRows} rows; is it the model's own?`,
    )
  }
  const old = new OldPieces(oldTokenizer)
  const roleOf = new Map(roles.map((role) => [newTokenizer[role], oldTokenizer[role]]))
  const oldSpecial = new Set(roles.map((role) => oldTokenizer[role]))
  const { continuationPrefix } = newTokenizer.specification
  const counts = { special: 0, shared: 0, averaged: 0, fresh: 0 }
  const sources = newTokenizer.vocabulary.map((token, id): readonly number[] => {
    const special = roleOf.get(id)
    if (special !== undefined) {
      counts.special += 1
      return [special]
    }
    const isContinuation = token.startsWith(continuationPrefix) && token.length > continuationPrefix.length
    const text = isContinuation ? token.slice(continuationPrefix.length) : token
    const same = old.id(isContinuation ? oldTokenizer.specification.continuationPrefix + text : token)
    if (same !== undefined && !oldSpecial.has(same)) {
      counts.shared += 1
      return [same]
    }
    const pieces = token === '' ? [] : old.cut(text, isContinuation)
    counts[pieces.length === 0 ? 'fresh' : 'averaged'] += 1
    return pieces
  })
  return { ...counts, oldSize: oldRows, newSize: sources.length, sources }
}

/**
 * The rows of a new table, or the numbers of a new bias (width 1).
 * @param old [oldSize, width]
 * @param fresh [newSize, width]: first values, of which the fresh rows are kept
 * @throws ERR_SHAPE when a length does not fit
 */
export function transferRows(
  { sources, oldSize, newSize }: VocabularyTransfer,
  old: Float32Array,
  fresh: Float32Array,
  width: number,
): Float32Array {
  if (old.length !== oldSize * width || fresh.length !== newSize * width) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `vocabulary transfer: ${old.length} old and ${fresh.length} new numbers; expected ${oldSize} and ${newSize} rows of ${width}`,
    )
  }
  const rows = Float32Array.from(fresh)
  sources.forEach((ids, row) => {
    if (ids.length === 0) return
    const target = rows.subarray(row * width, (row + 1) * width)
    if (ids.length === 1) {
      const from = (ids[0] as number) * width
      target.set(old.subarray(from, from + width))
      return
    }
    for (let at = 0; at < width; at++) {
      let sum = 0
      for (const id of ids) sum += old[id * width + at] as number
      target[at] = sum / ids.length
    }
  })
  return rows
}

const wordTable = 'electra.embeddings.word_embeddings.weight'
const outputBias = 'generator_lm_head.bias'

/** First values as a model that begins has them: truncated normal, from the seed. */
async function freshRows(config: ElectraConfig, rows: number, seed: number): Promise<Float32Array> {
  const { wordTable: initializer } = new FirstValues(config)
  const table = new Embedding({ rows, width: config.embeddingSize, device: 'cpu', initializer })
  try {
    initializeByName(table, { seed, prefix: 'vocabulary-transfer/' })
    return await table.weight.data()
  } finally {
    table.dispose()
  }
}

export interface TransferOptions {
  /** Decides the first values of fresh rows. Default 0. */
  readonly seed?: number | undefined
}

export interface TransferredModel extends TransferCounts {
  /** The model under the new vocabulary; disposing it closes the one given. */
  readonly model: ModelSource
}

/**
 * Moves a model to another vocabulary: its word table and, of a generator, the output bias (0 for a fresh token).
 * @param model as `openModelSource` gives it
 * @throws ERR_ARGUMENT when the old tokenizer is not the model's own; ERR_FORMAT when the model has no word table
 */
export async function transferVocabulary(
  model: ModelSource,
  oldTokenizer: TransferTokenizer,
  newTokenizer: TransferTokenizer,
  { seed = 0 }: TransferOptions = {},
): Promise<TransferredModel> {
  const { tensors } = model
  const config = {
    ...model.config,
    vocabSize: newTokenizer.vocabulary.length,
    padTokenId: newTokenizer.padTokenId,
  }
  if (!tensors.has(wordTable)) {
    throw new VoltaicError('ERR_FORMAT', `${tensors.path}: holds no ${wordTable}; expected an ELECTRA model`)
  }
  const [rows, width] = tensors.info(wordTable).shape as readonly [number, number]
  const plan = planVocabularyTransfer(oldTokenizer, newTokenizer, rows)
  const moved = (table: Float32Array, fresh: Float32Array, shape: readonly number[]): SourceTensor => {
    const numbers = transferRows(plan, table, fresh, shape[1] ?? 1)
    const bytes = new Uint8Array(numbers.buffer)
    return { dtype: 'F32', shape, byteLength: bytes.length, bytes: () => bytes }
  }
  const all = new Map(tensors.names.map((name) => [name, tensorOf(tensors, name)]))
  const fresh = await freshRows(config, plan.newSize, seed)
  all.set(wordTable, moved(tensors.float32(wordTable), fresh, [plan.newSize, width]))
  if (all.has(outputBias)) {
    const zeros = new Float32Array(plan.newSize)
    all.set(outputBias, moved(tensors.float32(outputBias), zeros, [plan.newSize]))
  }
  const { special, shared, averaged } = plan
  return {
    ...{ special, shared, averaged, fresh: plan.fresh },
    model: {
      config,
      tensors: tensorSource(tensors.path, all, tensors.close),
      files: {},
      leftOut: model.leftOut,
      [Symbol.dispose]: () => model[Symbol.dispose](),
    },
  }
}
