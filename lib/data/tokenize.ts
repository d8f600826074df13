/**
 * Tokenizing in pieces: a piece is a run of whole documents, the unit that worker threads take. What a piece gives depends on its
 * bytes alone, and results come back in the order of the pieces, so the number of threads changes nothing but the time.
 */
import { Worker } from 'node:worker_threads'
import { VoltaicError } from '../runtime/errors.js'
import type { TokenizerSpecification } from '../text/index.js'
import type { TokenizedDocuments } from './shard-file.js'

/** What the data pipeline needs of a tokenizer; `createTokenizer` of lib/text gives it. */
export interface DocumentTokenizer {
  /** Plain data that a worker thread can make the same tokenizer of. */
  readonly specification: TokenizerSpecification
  readonly vocabularySize: number
  readonly clsTokenId: number
  readonly sepTokenId: number
  /** Ids of documents one behind the other, without special tokens; each line with a token is a sentence. */
  encodeDocuments(utf8: Uint8Array, ends: Uint32Array): TokenizedDocuments
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
      return tokenizer.encodeDocuments(piece.bytes, piece.ends)
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
