/**
 * A corpus tokenized once: shard files in a folder of their own, `FOLDER/KEY/`, and a `manifest.json` that says what they are made of.
 *
 * KEY is a hash of everything the tokens depend on: path, size and modification time of each file, the tokenizer's specification, the
 * format options and the shard version. Same key, same tokens: the folder is used as it is. What segments, batches and the
 * validation split make of the tokens is computed, so it is not in the key.
 *
 * The corpus is cut into pieces of whole documents, tokenized on worker threads and assembled in order; a shard closes behind the
 * piece that fills it. So the files depend on the corpus alone. Each shard is written aside and renamed, the manifest last; what a
 * killed run left whole is taken over by the next, which tokenizes only the rest.
 */
import { existsSync } from 'node:fs'
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { readJsonFile } from '../formats/json-file.js'
import { removeLeftovers, writeFileAtomically } from '../runtime/atomic-file.js'
import { VoltaicError } from '../runtime/errors.js'
import { makeFolder } from '../runtime/make-folder.js'
import type { Corpus, CorpusFile, CorpusWarning } from './corpus.js'
import { hashPlainData } from './hash.js'
import {
  openShard,
  type Shard,
  type ShardCounts,
  shardVersion,
  type TokenizedDocuments,
  writeShard,
} from './shard-file.js'
import {
  createLocalTokenizer,
  createTokenizerPool,
  type DocumentTokenizer,
  type Piece,
  type PieceTokenizer,
} from './tokenize.js'

/** Stored bytes below which starting threads costs more than it saves. */
const localBytes = 256 * 1024

export interface ShardProgress {
  /** Stored bytes of the corpus read so far, and in all. */
  readonly bytes: number
  readonly totalBytes: number
  readonly documents: number
  readonly tokens: number
}

export interface ShardOptions {
  readonly corpus: Corpus
  readonly tokenizer: DocumentTokenizer
  /** Where the key's folder goes. Made when it is not there. */
  readonly folder: string
  /** Worker threads, at least 1. */
  readonly threads: number
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: ShardProgress) => void) | undefined
  /** Text bytes a piece holds before it closes. Default 1 MiB. */
  readonly pieceBytes?: number
  /** Tokens a shard holds before it closes. Default 16 Mi: 32 MiB of ids for common vocabularies. */
  readonly shardTokens?: number
}

/** What the files of a key's folder are and what they were made of. */
export interface ShardManifest {
  readonly format: 'voltaic-shards'
  readonly version: number
  readonly key: string
  readonly files: readonly CorpusFile[]
  readonly tokenizer: string
  readonly shards: readonly (ShardCounts & { readonly name: string })[]
  readonly documents: number
  readonly sentences: number
  readonly tokens: number
  readonly warnings: readonly CorpusWarning[]
  /** A hash of the tokens and their boundaries: the same for the same text, wherever it lies. */
  readonly fingerprint: string
}

/** All tokens of a corpus, by document. */
export interface TokenStore {
  readonly folder: string
  readonly manifest: ShardManifest
  readonly shards: readonly Shard[]
  /** Whether the shards were there already. */
  readonly reused: boolean
  close(): void
}

/** A hash of a tokenizer's specification: equal when it gives the same ids. */
export function tokenizerFingerprint(tokenizer: Pick<DocumentTokenizer, 'specification'>): string {
  return hashPlainData(tokenizer.specification)
}

function shardName(number: number): string {
  return `shard-${String(number).padStart(5, '0')}.bin`
}

function damaged(folder: string, error: unknown): unknown {
  if (!(error instanceof VoltaicError) || error.code !== 'ERR_FORMAT') return error
  const advice = `Delete the folder ${folder} and run again: it is made anew from the corpus`
  return new VoltaicError('ERR_FORMAT', `${error.message}. ${advice}`, { cause: error })
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) {
    throw new VoltaicError('ERR_ABORTED', 'tokenizing the corpus was aborted; what is done is kept', {
      cause: signal.reason,
    })
  }
}

/** Cuts the corpus into pieces of whole documents. */
async function* pieces(corpus: Corpus, pieceBytes: number): AsyncGenerator<Piece> {
  let documents: Uint8Array[] = []
  let bytes = 0
  const close = (): Piece => {
    const piece = { bytes: new Uint8Array(bytes), ends: new Uint32Array(documents.length) }
    let end = 0
    documents.forEach((document, at) => {
      piece.bytes.set(document, end)
      end += document.length
      piece.ends[at] = end
    })
    documents = []
    bytes = 0
    return piece
  }
  for await (const document of corpus.documents()) {
    documents.push(document.bytes)
    bytes += document.bytes.length
    if (bytes >= pieceBytes) yield close()
  }
  if (documents.length > 0) yield close()
}

/** The whole shards that a run which was killed has left, from the first on. */
function takeOver(folder: string): ShardCounts[] {
  const taken: ShardCounts[] = []
  for (;;) {
    const path = join(folder, shardName(taken.length))
    if (!existsSync(path)) return taken
    try {
      const shard = openShard(path)
      taken.push(shard.counts)
      shard.close()
    } catch {
      // Damaged by the crash: it and what follows are written again.
      return taken
    }
  }
}

interface Build {
  readonly options: ShardOptions
  readonly folder: string
  readonly workers: PieceTokenizer
}

async function tokenizeCorpus({ options, folder, workers }: Build): Promise<ShardCounts[]> {
  const { corpus, signal, onProgress, pieceBytes = 2 ** 20, shardTokens = 2 ** 24 } = options
  const written = takeOver(folder)
  let tokens = written.reduce((sum, shard) => sum + shard.tokens, 0)
  let documents = written.reduce((sum, shard) => sum + shard.documents, 0)
  /** Documents that are in the taken-over shards still have to be passed over: those close behind a piece, so whole pieces do. */
  let passOver = documents
  let open: TokenizedDocuments[] = []
  let openTokens = 0
  const closeShard = async (): Promise<void> => {
    written.push(await writeShard(join(folder, shardName(written.length)), open))
    open = []
    openTokens = 0
  }
  const underWay: Promise<TokenizedDocuments>[] = []
  const takeOldest = async (): Promise<void> => {
    const result = (await underWay.shift()) as TokenizedDocuments
    throwIfAborted(signal)
    open.push(result)
    openTokens += result.tokens.length
    tokens += result.tokens.length
    documents += result.documents.length - 1
    onProgress?.({ bytes: corpus.bytesRead, totalBytes: corpus.bytes, documents, tokens })
    if (openTokens >= shardTokens) await closeShard()
  }
  for await (const piece of pieces(corpus, pieceBytes)) {
    throwIfAborted(signal)
    if (passOver > 0) {
      passOver -= piece.ends.length
      continue
    }
    if (underWay.length >= workers.capacity) await takeOldest()
    const result = workers.tokenize(piece)
    // Its failure is met when its turn comes; until then it must not count as unhandled.
    result.catch(() => {})
    underWay.push(result)
  }
  while (underWay.length > 0) await takeOldest()
  if (open.length > 0) await closeShard()
  return written
}

async function assertUnchanged(
  files: readonly CorpusFile[],
  read: () => Promise<readonly CorpusFile[]>,
): Promise<void> {
  const now = await read()
  const changed = files.find(
    (file, at) => file.modified !== now[at]?.modified || file.bytes !== now[at]?.bytes,
  )
  if (changed !== undefined) {
    throw new VoltaicError('ERR_IO', `corpus ${changed.path} was changed while it was being read; run again`)
  }
}

async function build(options: ShardOptions, folder: string, key: string): Promise<void> {
  const { corpus, tokenizer, threads } = options
  makeFolder(folder)
  await removeLeftovers(folder)
  const workers =
    corpus.bytes < localBytes
      ? createLocalTokenizer(tokenizer)
      : createTokenizerPool(tokenizer.specification, Math.min(threads, Math.ceil(corpus.bytes / localBytes)))
  let shards: ShardCounts[]
  try {
    shards = await tokenizeCorpus({ options, folder, workers })
  } finally {
    await workers.close()
  }
  await assertUnchanged(corpus.files, corpus.describeFilesAgain)
  const sum = (count: (shard: ShardCounts) => number): number =>
    shards.reduce((all, shard) => all + count(shard), 0)
  const manifest: ShardManifest = {
    format: 'voltaic-shards',
    version: shardVersion,
    key,
    files: corpus.files,
    tokenizer: tokenizerFingerprint(tokenizer),
    shards: shards.map((shard, number) => ({ name: shardName(number), ...shard })),
    documents: sum((shard) => shard.documents),
    sentences: sum((shard) => shard.sentences),
    tokens: sum((shard) => shard.tokens),
    warnings: corpus.warnings,
    fingerprint: hashPlainData(shards),
  }
  const names = new Set(manifest.shards.map((shard) => shard.name))
  for (const name of await readdir(folder)) {
    if (/^shard-\d+\.bin$/.test(name) && !names.has(name)) await rm(join(folder, name))
  }
  await writeFileAtomically(join(folder, 'manifest.json'), `${JSON.stringify(manifest, undefined, 2)}\n`)
}

function readManifest(folder: string): ShardManifest {
  const path = join(folder, 'manifest.json')
  try {
    const manifest = readJsonFile(path) as ShardManifest
    if (
      manifest.format === 'voltaic-shards' &&
      manifest.version === shardVersion &&
      Array.isArray(manifest.shards)
    ) {
      return manifest
    }
  } catch (error) {
    if (!(error instanceof VoltaicError && error.code === 'ERR_FORMAT')) throw error
  }
  throw new VoltaicError('ERR_FORMAT', `${path} is no manifest of shards`)
}

async function openStore(folder: string, reused: boolean): Promise<TokenStore> {
  const shards: Shard[] = []
  const close = (): void => {
    for (const shard of shards) shard.close()
  }
  try {
    const manifest = readManifest(folder)
    for (const { name, ...expected } of manifest.shards) {
      const path = join(folder, name)
      const shard = openShard(path)
      shards.push(shard)
      if (hashPlainData(shard.counts) !== hashPlainData(expected)) {
        throw new VoltaicError('ERR_FORMAT', `shard ${path} is not the one that the manifest beside it names`)
      }
      // Verifying takes milliseconds a shard; timers may fire in between.
      await new Promise(setImmediate)
    }
    return { folder, manifest, shards, reused, close }
  } catch (error) {
    close()
    throw damaged(folder, error)
  }
}

/**
 * Tokenizes a corpus into shards, or finds them done, and opens them.
 * @throws ERR_FORMAT for a damaged shard or manifest (with the folder to delete) and for broken input, ERR_IO for what cannot be read
 * or written, ERR_ABORTED after `signal` (whole shards are kept for the next run).
 */
export async function prepareShards(options: ShardOptions): Promise<TokenStore> {
  const { corpus, tokenizer, folder: parent, pieceBytes, shardTokens } = options
  const { files, format, textField } = corpus
  const key = hashPlainData({
    version: shardVersion,
    files,
    tokenizer: tokenizerFingerprint(tokenizer),
    format,
    textField,
    pieceBytes,
    shardTokens,
  }).slice(0, 32)
  const folder = join(parent, key)
  const reused = existsSync(join(folder, 'manifest.json'))
  if (!reused) await build(options, folder, key)
  return openStore(folder, reused)
}
