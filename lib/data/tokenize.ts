/**
 * Tokenizing in pieces: a piece is a run of whole documents, the unit that worker threads take. What a piece gives depends on its
 * bytes alone, and results come back in the order of the pieces, so the number of threads changes nothing but the time.
 */
import { Worker } from 'node:worker_threads'
import { VoltaicError } from '../runtime/errors.js'
import type { TokenizerSpecification } from '../text/index.js'
import { type TokenArray, type TokenizedDocuments, tokenArray } from './shard-file.js'

/** What the data pipeline needs of a tokenizer; `createTokenizer` of lib/text gives it. */
export interface DocumentTokenizer {
  /** Plain data that a worker thread can make the same tokenizer of. */
  readonly specification: TokenizerSpecification
  readonly vocabularySize: number
  readonly clsTokenId: number
  readonly sepTokenId: number
  /** Ids of UTF-8 text, without special tokens. */
  encodeBytes(utf8: Uint8Array): Int32Array
}

/** Documents one behind the other. */
export interface Piece {
  readonly bytes: Uint8Array<ArrayBuffer>
  /** Where each document ends. */
  readonly ends: Uint32Array<ArrayBuffer>
}

/** What a worker is started with. */
export interface TokenizeWorkerData {
  readonly specification: TokenizerSpecification
}

/** What a worker answers: one message a piece, in the order it got them. */
export type TokenizeWorkerAnswer =
  | { readonly result: TokenizedDocuments }
  | { readonly error: { readonly message: string; readonly code: VoltaicError['code'] | undefined } }

class Growing<T extends Uint32Array | TokenArray> {
  private length = 0
  constructor(
    private array: T,
    private readonly create: (length: number) => T,
  ) {}

  append(values: ArrayLike<number>): void {
    const needed = this.length + values.length
    if (needed > this.array.length) {
      const larger = this.create(Math.max(needed, 2 * this.array.length))
      larger.set(this.array.subarray(0, this.length))
      this.array = larger
    }
    this.array.set(values, this.length)
    this.length = needed
  }

  /** The values in a buffer of just their size. */
  finish(): T {
    return this.array.slice(0, this.length) as T
  }
}

/** Tokenizes the lines of each document. A line without a token gives no sentence. */
export function tokenizePiece(
  tokenizer: Pick<DocumentTokenizer, 'encodeBytes' | 'vocabularySize'>,
  { bytes, ends }: Piece,
): TokenizedDocuments {
  const tokens = new Growing<TokenArray>(tokenArray(tokenizer.vocabularySize, bytes.length >> 1), (length) =>
    tokenArray(tokenizer.vocabularySize, length),
  )
  const sentences = new Growing(new Uint32Array(1024), (length) => new Uint32Array(length))
  const documents = new Uint32Array(ends.length + 1)
  let sentenceCount = 0
  let tokenCount = 0
  let documentStart = 0
  for (let document = 0; document < ends.length; document++) {
    const text = bytes.subarray(documentStart, ends[document])
    documentStart += text.length
    documents[document] = sentenceCount
    for (let start = 0; start < text.length; ) {
      const lineFeed = text.indexOf(0x0a, start)
      const end = lineFeed < 0 ? text.length : lineFeed
      const ids = tokenizer.encodeBytes(text.subarray(start, end))
      if (ids.length > 0) {
        sentences.append([tokenCount])
        tokens.append(ids)
        sentenceCount += 1
        tokenCount += ids.length
      }
      start = end + 1
    }
  }
  documents[ends.length] = sentenceCount
  sentences.append([tokenCount])
  return { tokens: tokens.finish(), documents, sentences: sentences.finish() }
}

/** Takes pieces and gives their results, each as a promise that is settled in any order. */
export interface PieceTokenizer {
  /** How many pieces are worth having under way at once. */
  readonly capacity: number
  tokenize(piece: Piece): Promise<TokenizedDocuments>
  close(): Promise<void>
}

/** Tokenizes on this thread, letting the event loop turn between pieces. */
export function createLocalTokenizer(tokenizer: DocumentTokenizer): PieceTokenizer {
  return {
    capacity: 1,
    async tokenize(piece) {
      await new Promise(setImmediate)
      return tokenizePiece(tokenizer, piece)
    },
    close: async () => {},
  }
}

interface Job {
  readonly resolve: (result: TokenizedDocuments) => void
  readonly reject: (error: Error) => void
}

interface Member {
  readonly worker: Worker
  /** Pieces it has, oldest first. */
  readonly jobs: Job[]
}

/**
 * Tokenizes on worker threads, each with a tokenizer of its own made from `specification`. A thread gets its next piece while it
 * still works on one, so it never waits for this thread.
 */
export function createTokenizerPool(
  specification: TokenizerSpecification,
  threads: number,
  workerFile: URL = new URL('./tokenize-worker.js', import.meta.url),
): PieceTokenizer {
  const workerData: TokenizeWorkerData = { specification }
  let failure: Error | undefined
  const fail = (member: Member, error: Error): void => {
    failure ??= error
    for (const job of member.jobs.splice(0)) job.reject(failure)
  }
  const members: Member[] = Array.from({ length: threads }, () => {
    // Flags of this process, such as --input-type, may not fit a file that is run as it is.
    const worker = new Worker(workerFile, { workerData, name: 'voltaic-tokenize', execArgv: [] })
    const member: Member = { worker, jobs: [] }
    worker.on('message', (answer: TokenizeWorkerAnswer) => {
      if ('result' in answer) return member.jobs.shift()?.resolve(answer.result)
      const { message, code } = answer.error
      const error = code === undefined ? new Error(message) : new VoltaicError(code, message)
      member.jobs.shift()?.reject(error)
    })
    worker.on('error', (error) => fail(member, error instanceof Error ? error : new Error(String(error))))
    worker.on('exit', (code) =>
      fail(
        member,
        new VoltaicError('ERR_BACKEND', `a tokenizer thread ended (exit code ${code}) before its work did`),
      ),
    )
    return member
  })
  return {
    capacity: 2 * threads,
    tokenize: ({ bytes, ends }) =>
      new Promise((resolve, reject) => {
        if (failure !== undefined) return reject(failure)
        const member = members.reduce((best, other) => (other.jobs.length < best.jobs.length ? other : best))
        member.jobs.push({ resolve, reject })
        member.worker.postMessage({ bytes, ends } satisfies Piece, [bytes.buffer, ends.buffer])
      }),
    close: async () => {
      for (const { worker } of members) worker.removeAllListeners('exit')
      await Promise.all(members.map(({ worker }) => worker.terminate()))
    },
  }
}
