/**
 * The front door of the data: from file names to segments for training and validation. Tokenizes once into `OUTPUT/data/`, and finds
 * that again on the next run.
 */
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { VoltaicError } from '../runtime/errors.js'
import { createTokenizer } from '../text/index.js'
import { type CorpusOptions, type CorpusWarning, openCorpus } from './corpus.js'
import { hashPlainData } from './hash.js'
import {
  checkLanguages,
  concatenateSegments,
  interleaveSegments,
  type LanguageFiles,
  type LanguageSegments,
  languageShares,
} from './languages.js'
import { createSegments, type DocumentSelection, type SegmentKind, type Segments } from './segments.js'
import { prepareShards, type ShardProgress, type TokenStore } from './shards.js'
import type { DocumentTokenizer } from './tokenize.js'

export interface PrepareDataOptions {
  /** Files and globs; text with a blank line between documents, or JSON lines; plain or gzip. */
  readonly corpus?: readonly string[] | undefined
  /** Instead of `corpus`: languages, or other parts, each with files and globs; drawn by their shares (languages.ts). */
  readonly languages?: LanguageFiles | undefined
  /** With `languages`, 0 to 1. Default 0.7. */
  readonly languageExponent?: number | undefined
  /** Files and globs of validation documents. Default: some of the corpus, see `validationFraction`. */
  readonly validation?: readonly string[] | undefined
  /**
   * Without `validation`: the part of the documents kept for it and never trained on, 0 (none) to 0.5. Default 0.02: documents 0, 50,
   * 100, ...; the distance is 1 / validationFraction, rounded. A language of fewer documents than that gives none.
   */
  readonly validationFraction?: number | undefined
  /** Special tokens that occur in the corpus are split like any text, whatever its `splitSpecialTokens` says. */
  readonly tokenizer: DocumentTokenizer
  /** Tokens of a sequence at most, specials counted; at least 5. */
  readonly sequenceLength: number
  /** Default 'packed'. */
  readonly segments?: SegmentKind | undefined
  /** The run's folder; shards go to `data/` in it. */
  readonly output: string
  /** Worker threads for tokenizing. Default: all processors. The result does not depend on it. */
  readonly threads?: number | undefined
  /** Decides the draws of 'pairs'. Default 0. */
  readonly seed?: number | undefined
  readonly format?: CorpusOptions['format']
  readonly textField?: string | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: PrepareProgress) => void) | undefined
}

export interface PrepareProgress extends ShardProgress {
  readonly part: 'corpus' | 'validation'
}

/** Numbers of one part of the data. */
export interface PartStatistics {
  /** Documents with at least one token. */
  readonly documents: number
  readonly segments: number
  /** Tokens in the segments, special tokens counted: what an epoch takes. */
  readonly tokens: number
  /** Tokens in no segment; 0 for 'packed'. */
  readonly discardedTokens: number
}

/** Numbers of one language of the training text. */
export interface LanguageStatistics extends PartStatistics {
  readonly name: string
  /** The part of the tokens that are trained on which is to be this language's. */
  readonly share: number
}

export interface DataStatistics {
  readonly train: PartStatistics
  /** In the order that they were named in; empty without `languages`. */
  readonly languages: readonly LanguageStatistics[]
  readonly validation: PartStatistics | undefined
  /** Files in which malformed UTF-8 was replaced or an overlong document was cut. */
  readonly warnings: readonly CorpusWarning[]
  /** Whether all shards were there already. */
  readonly reused: boolean
  /** The folders that hold the shards. */
  readonly folders: readonly string[]
  /** A hash of all tokens, their documents, and which of them are for validation: the same wherever the files lie. */
  readonly fingerprint: string
}

export interface PreparedData {
  /** All of the training text; of languages, one behind the other. */
  readonly train: Segments
  /** Empty without `languages`. */
  readonly languages: readonly LanguageSegments[]
  /** Undefined where no document is kept for validation. */
  readonly validation: Segments | undefined
  readonly statistics: DataStatistics
  /** Gives the mapped shards back; segments cannot be read after it. */
  close(): void
}

function periodOf(fraction: number): number {
  if (!(fraction >= 0 && fraction <= 0.5)) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `validation fraction is ${fraction}; expected a number from 0 to 0.5`,
    )
  }
  return fraction === 0 ? 0 : Math.round(1 / fraction)
}

function statisticsOf(segments: Segments): PartStatistics {
  return {
    documents: segments.documentCount,
    segments: segments.count,
    tokens: segments.totalTokens,
    discardedTokens: segments.discardedTokens,
  }
}

/** One corpus, or one language of several: its tokens, and what they give. */
interface Part {
  readonly name: string | undefined
  readonly store: TokenStore
  readonly train: Segments
  readonly validation: Segments | undefined
}

function assertText({ name, store, train, validation }: Part, period: number): void {
  const of = name === undefined ? '' : ` of ${name}`
  if (train.count === 0 && validation !== undefined && validation.count > 0 && period > 0) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `all ${store.manifest.documents} documents of the corpus${of} go to validation (every ${period}th, from the first), none is left ` +
        'to train on: put a blank line between documents, name files for validation, or set the validation fraction to 0',
    )
  }
  const empty = train.count === 0 ? `corpus${of}` : validation?.count === 0 ? 'validation set' : undefined
  if (empty !== undefined) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `the ${empty} has documents, but the tokenizer finds no token in them`,
    )
  }
}

const joined = (parts: readonly Segments[], join: (parts: readonly Segments[]) => Segments): Segments =>
  parts.length === 1 ? (parts[0] as Segments) : join(parts)

/**
 * Reads, tokenizes and cuts a corpus. Work done by an earlier run in the same folder is used.
 * @throws ERR_ARGUMENT for bad options and for a corpus that leaves nothing to train on; ERR_IO, ERR_FORMAT, ERR_UNSUPPORTED for files
 * that cannot be used (named, with the line) and for damaged shards (with what to delete); ERR_ABORTED after `signal`.
 */
export async function prepareData(options: PrepareDataOptions): Promise<PreparedData> {
  const { tokenizer, sequenceLength, segments: kind = 'packed', seed = 0, signal, onProgress } = options
  const { threads = availableParallelism(), format = 'auto', textField = 'text' } = options
  if (kind !== 'packed' && kind !== 'pairs') {
    throw new VoltaicError('ERR_ARGUMENT', `segments is '${kind}'; expected 'packed' or 'pairs'`)
  }
  if (!Number.isInteger(threads) || threads < 1) {
    throw new VoltaicError('ERR_ARGUMENT', `threads is ${threads}; expected a whole number, 1 or more`)
  }
  const { languages: named, languageExponent } = options
  if (named !== undefined && (options.corpus ?? []).length > 0) {
    throw new VoltaicError('ERR_ARGUMENT', 'corpus and languages are both given; expected one of the two')
  }
  const sources: [name: string | undefined, patterns: readonly string[]][] =
    named === undefined ? [[undefined, options.corpus ?? []]] : checkLanguages(named)
  if (named !== undefined) languageShares([1], languageExponent)
  const ownValidation = options.validation !== undefined && options.validation.length > 0
  const period = ownValidation ? 0 : periodOf(options.validationFraction ?? 0.02)

  // A "[SEP]" or "[MASK]" that stands in the text is text, as in the original; its id would make the model see what is not there.
  const corpusTokenizer = createTokenizer({ ...tokenizer.specification, splitSpecialTokens: true })
  const stores: TokenStore[] = []
  const close = (): void => {
    for (const store of stores) store.close()
  }
  const open = async (part: PrepareProgress['part'], patterns: readonly string[]): Promise<TokenStore> => {
    const corpus = await openCorpus(patterns, { format, textField, ...(signal && { signal }) })
    const store = await prepareShards({
      corpus,
      tokenizer: corpusTokenizer,
      folder: join(options.output, 'data'),
      threads,
      signal,
      onProgress: onProgress && ((progress) => onProgress({ part, ...progress })),
    })
    stores.push(store)
    return store
  }
  const cut = (store: TokenStore, documents?: DocumentSelection): Segments =>
    createSegments(store, {
      kind,
      sequenceLength,
      clsTokenId: tokenizer.clsTokenId,
      sepTokenId: tokenizer.sepTokenId,
      seed,
      documents,
    })

  try {
    const parts: Part[] = []
    for (const [name, patterns] of sources) {
      const store = await open('corpus', patterns)
      // A small language keeps all it has: of one document, validation would leave nothing.
      const isSplit = period > 0 && (name === undefined || store.manifest.documents >= period)
      const train = cut(store, isSplit ? { period, keep: 'others' } : undefined)
      const kept = isSplit ? cut(store, { period, keep: 'every' }) : undefined
      parts.push({ name, store, train, validation: kept })
    }
    const validationStore = ownValidation ? await open('validation', options.validation ?? []) : undefined
    const given = validationStore && cut(validationStore)
    for (const part of parts) assertText(given === undefined ? part : { ...part, validation: given }, period)
    const kept = parts.flatMap((part) => part.validation ?? [])
    const validation = given ?? (kept.length === 0 ? undefined : joined(kept, interleaveSegments))
    const train = joined(
      parts.map((part) => part.train),
      concatenateSegments,
    )
    const shares = languageShares(
      parts.map((part) => part.train.totalTokens),
      languageExponent,
    )
    const languages =
      named === undefined
        ? []
        : parts.map((part, at) => ({
            name: part.name ?? '',
            segments: part.train,
            share: shares[at] as number,
          }))
    const split = validationStore === undefined ? `every ${period}` : validationStore.manifest.fingerprint
    const fingerprints = parts.map(({ store }) => store.manifest.fingerprint)
    return {
      train,
      languages,
      validation,
      close,
      statistics: {
        train: statisticsOf(train),
        languages: languages.map(({ name, segments, share }) => ({ name, ...statisticsOf(segments), share })),
        validation: validation && statisticsOf(validation),
        warnings: stores.flatMap(({ manifest }) => manifest.warnings),
        reused: stores.every(({ reused }) => reused),
        folders: stores.map(({ folder }) => folder),
        fingerprint: hashPlainData([...fingerprints, split]),
      },
    }
  } catch (error) {
    close()
    throw error
  }
}
