/**
 * The names that ELECTRA's tensors have in files, with the spellings of older files brought to one form, and the comparison of what a
 * model wants with what a file holds.
 */
import { VoltaicError } from '../runtime/errors.js'
import type { TensorSource } from './tensor-source.js'

/** Buffers that old versions saved; they hold no weights. */
const bufferName = /(^|\.)embeddings\.(position_ids|token_type_ids)$/
/** The body without its prefix, as a bare `ElectraModel` saves it. */
const bareBodyName = /^(embeddings|embeddings_project|encoder)\./

/**
 * A tensor's name in today's form: with the `electra.` prefix that a bare `ElectraModel` leaves out, and LayerNorm's `gamma` and
 * `beta` as `weight` and `bias`. Undefined for buffers, which are not weights.
 */
export function canonicalTensorName(name: string): string | undefined {
  if (bufferName.test(name)) return undefined
  const renamed = name.replace(/\.gamma$/, '.weight').replace(/\.beta$/, '.bias')
  return bareBodyName.test(renamed) ? `electra.${renamed}` : renamed
}

/** The keys of config.json that decide a tensor's sizes, by axis. A linear layer's bias has its weight's first axis. */
const sizeKeys: readonly [name: RegExp, keys: readonly string[]][] = [
  [/embeddings\.word_embeddings\.weight$/, ['vocab_size', 'embedding_size']],
  [/embeddings\.position_embeddings\.weight$/, ['max_position_embeddings', 'embedding_size']],
  [/embeddings\.token_type_embeddings\.weight$/, ['type_vocab_size', 'embedding_size']],
  [/embeddings\.LayerNorm\./, ['embedding_size']],
  [/embeddings_project\./, ['hidden_size', 'embedding_size']],
  [/\.intermediate\.dense\./, ['intermediate_size', 'hidden_size']],
  [/layer\.\d+\.output\.dense\./, ['hidden_size', 'intermediate_size']],
  [/^generator_predictions\./, ['embedding_size', 'hidden_size']],
  [/^generator_lm_head\./, ['vocab_size', 'embedding_size']],
  [/^classifier\.dense\./, ['hidden_size', 'hidden_size']],
  [/^classifier\./, ['id2label (one row a label)', 'hidden_size']],
  [/^qa_outputs\./, ['no key: always 2', 'hidden_size']],
  [/^discriminator_predictions\.dense_prediction\./, ['no key: always 1', 'hidden_size']],
  [/./, ['hidden_size', 'hidden_size']],
]

function decidingKeys(name: string, expected: readonly number[], found: readonly number[]): string {
  const keys = sizeKeys.find(([pattern]) => pattern.test(name))?.[1] ?? []
  const sameRank = expected.length === found.length
  const deciding = expected.map((size, axis) => (sameRank && size === found[axis] ? undefined : keys[axis]))
  return [...new Set(deciding.filter((key) => key !== undefined))].join(', ')
}

export interface ShapeMismatch {
  readonly name: string
  readonly expected: readonly number[]
  readonly found: readonly number[]
  /** The keys of config.json that decide the sizes which differ. */
  readonly configKeys: string
}

export interface TensorMatch {
  /** From each name the model wants to the source's name for it; shapes agree. In the model's order. */
  readonly matched: ReadonlyMap<string, string>
  /** Wanted, but not in the source: to be initialised anew. */
  readonly missing: readonly string[]
  /** In the source, but not wanted: to be left alone. */
  readonly unexpected: readonly string[]
  /** In both, with different shapes. */
  readonly mismatched: readonly ShapeMismatch[]
}

/**
 * Compares the tensors a model wants (name to shape) with those a source holds. Names may have the `electra.` prefix or not, on
 * either side.
 */
export function matchTensors(
  expected: ReadonlyMap<string, readonly number[]>,
  available: Pick<TensorSource, 'names' | 'info'>,
): TensorMatch {
  const sourceNames = new Map<string, string>()
  for (const name of available.names) {
    const canonical = canonicalTensorName(name)
    if (canonical !== undefined) sourceNames.set(canonical, name)
  }
  const matched = new Map<string, string>()
  const missing: string[] = []
  const mismatched: ShapeMismatch[] = []
  for (const [name, shape] of expected) {
    const canonical = canonicalTensorName(name) ?? name
    const source = sourceNames.get(canonical)
    sourceNames.delete(canonical)
    if (source === undefined) {
      missing.push(name)
      continue
    }
    const found = available.info(source).shape
    const agrees = found.length === shape.length && found.every((size, axis) => size === shape[axis])
    if (agrees) matched.set(name, source)
    else mismatched.push({ name, expected: shape, found, configKeys: decidingKeys(canonical, shape, found) })
  }
  return { matched, missing, unexpected: [...sourceNames.values()], mismatched }
}

/**
 * Refuses weights that do not fit their configuration.
 * @param where names the folder or file in the message
 * @throws ERR_FORMAT naming the first tensor that differs, both shapes and the key of config.json that decides them
 */
export function requireMatchingShapes({ mismatched }: Pick<TensorMatch, 'mismatched'>, where: string): void {
  const [first] = mismatched
  if (first === undefined) return
  const { name, expected, found, configKeys } = first
  const others = mismatched.length === 1 ? '' : ` (and ${mismatched.length - 1} more tensors differ)`
  throw new VoltaicError(
    'ERR_FORMAT',
    `${where}: tensor ${name} has shape [${found.join(', ')}] in the weights, but the configuration asks for ` +
      `[${expected.join(', ')}], decided by ${configKeys}${others}. Use the config.json that was saved with these weights ` +
      '(a generator has its own, smaller one)',
  )
}
