/** A worker thread that tokenizes pieces of a corpus: one piece in, its tokens and boundaries out, moved and not copied. */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads'
import { VoltaicError } from '../runtime/errors.js'
import { createTokenizer } from '../text/index.js'
import type { Piece, TokenizeWorkerAnswer, TokenizeWorkerData } from './tokenize.js'

const port = parentPort as MessagePort
const tokenizer = createTokenizer((workerData as TokenizeWorkerData).specification)

function send(answer: TokenizeWorkerAnswer, moved: readonly ArrayBufferView[] = []): void {
  port.postMessage(
    answer,
    moved.map((view) => view.buffer as ArrayBuffer),
  )
}

port.on('message', (piece: Piece) => {
  try {
    const result = tokenizer.encodeDocuments(piece.bytes, piece.ends)
    send({ result }, [result.tokens, result.documents, result.sentences])
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    send({ error: { message, code: error instanceof VoltaicError ? error.code : undefined } })
  }
})
