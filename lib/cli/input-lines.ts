/** The lines of a file, or of standard input. */
import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { ioError } from '../runtime/mapped-file.js'

/** Lines without their ends. @throws ERR_IO when the file cannot be read */
export async function* inputLines(file: string | undefined): AsyncGenerator<string> {
  const input = file === undefined ? process.stdin : createReadStream(file)
  try {
    yield* createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })
  } catch (cause) {
    throw ioError('read', file ?? 'standard input', cause)
  }
}
