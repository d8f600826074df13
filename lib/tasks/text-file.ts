/** Task files as text: read whole, gzip or plain, UTF-8 without its byte order mark, and small enough for memory. */
import { isUtf8 } from 'node:buffer'
import { readFile, stat } from 'node:fs/promises'
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import { VoltaicError } from '../runtime/errors.js'
import { ioError } from '../runtime/mapped-file.js'

const unpack = promisify(gunzip)
const mebibyte = 2 ** 20
/** MNLI's training set, the largest of GLUE, has 75 MiB. A gzip file is stopped when it grows past this. */
const largestText = 128 * mebibyte
/** Every line may become an object of a few hundred bytes. MNLI has 392,703. */
const mostLines = 4_000_000
const lineFeed = 0x0a

function tooLarge(file: string): VoltaicError {
  return new VoltaicError(
    'ERR_FORMAT',
    `${file}: more than ${largestText / mebibyte} MiB of text; split the file`,
  )
}

function hasTooManyLines(bytes: Buffer): boolean {
  let lines = 0
  for (let at = bytes.indexOf(lineFeed); at >= 0; at = bytes.indexOf(lineFeed, at + 1)) {
    lines += 1
    if (lines > mostLines) return true
  }
  return false
}

async function unpacked(file: string, bytes: Buffer): Promise<Buffer> {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes
  try {
    return await unpack(bytes, { maxOutputLength: largestText, chunkSize: mebibyte / 4 })
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (code === 'ERR_BUFFER_TOO_LARGE') throw tooLarge(file)
    throw new VoltaicError('ERR_FORMAT', `${file}: the gzip data is broken (${message}); copy it again`, {
      cause,
    })
  }
}

/** The line, from 1, that holds the first malformed byte. */
function firstMalformedLine(bytes: Buffer): number {
  let line = 1
  for (let start = 0; start < bytes.length; line++) {
    const end = bytes.indexOf(lineFeed, start)
    if (end < 0 || !isUtf8(bytes.subarray(start, end))) break
    start = end + 1
  }
  return line
}

/**
 * Reads a text file, unpacked where it is gzip.
 * @throws ERR_IO; ERR_FORMAT for broken gzip data, text that is not UTF-8 (with the line), more than 128 MiB or 4,000,000 lines
 */
export async function readTextFile(file: string): Promise<string> {
  let stored: Buffer
  try {
    if ((await stat(file)).size > largestText) throw tooLarge(file)
    stored = await readFile(file)
  } catch (cause) {
    throw ioError('read', file, cause)
  }
  const bytes = await unpacked(file, stored)
  if (hasTooManyLines(bytes)) {
    throw new VoltaicError('ERR_FORMAT', `${file}: more than ${mostLines} lines; split the file`)
  }
  if (!isUtf8(bytes)) {
    throw new VoltaicError(
      'ERR_FORMAT',
      `${file}:${firstMalformedLine(bytes)}: not UTF-8; save the file as UTF-8, for instance with iconv`,
    )
  }
  return bytes.toString().replace(/^\ufeff/, '')
}

/** Lines with their numbers from 1, without their ends (LF or CRLF). */
export function* textLines(text: string): Generator<{ readonly line: number; readonly text: string }> {
  let start = 0
  for (let line = 1; start < text.length; line++) {
    const feed = text.indexOf('\n', start)
    const end = feed < 0 ? text.length : feed
    yield { line, text: text.slice(start, end > start && text[end - 1] === '\r' ? end - 1 : end) }
    start = end + 1
  }
}
