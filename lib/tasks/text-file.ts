/**
 * Task files as bytes: plain or gzip, UTF-8 without a byte order mark, small enough for memory, with lines that are. What is wrong is
 * noticed as the bytes come, so that a file which unpacks to gigabytes, or has one endless line, costs little. Lines become strings
 * one by one: text beyond ASCII takes twice its bytes.
 */
import { isUtf8 } from 'node:buffer'
import { type FileHandle, open } from 'node:fs/promises'
import { createGunzip } from 'node:zlib'
import { VoltaicError } from '../runtime/errors.js'
import { ioError } from '../runtime/mapped-file.js'

const mebibyte = 2 ** 20
/** MNLI's training set, the largest of GLUE, has 75 MiB. */
const largestText = 96 * mebibyte
const firstRoom = mebibyte / 4
const secondRoom = 16 * mebibyte
/** Every line may become an object of a few hundred bytes. MNLI has 392,703. */
const mostLines = 4_000_000
/** A novel, and more than any model sees of a row. */
export const longestLine: number = mebibyte
const lineFeed = 0x0a
const carriageReturn = 0x0d

/** Kinds of files that are no text and often come instead of it, by their first bytes. */
const otherKinds: readonly (readonly [start: readonly number[], problem: string])[] = [
  [[0x50, 0x4b, 3, 4], 'a zip archive, expected text; unpack it'],
  [[0x42, 0x5a, 0x68], 'compressed with bzip2, expected text or gzip; unpack it'],
  [[0xfd, 0x37, 0x7a, 0x58, 0x5a], 'compressed with xz, expected text or gzip; unpack it'],
  [[0x28, 0xb5, 0x2f, 0xfd], 'compressed with zstd, expected text or gzip; unpack it'],
  [[0x1f, 0x8b], 'gzip inside gzip, expected text; unpack it once'],
  [[0xff, 0xfe], 'UTF-16, expected UTF-8; save it as UTF-8, for instance with iconv'],
  [[0xfe, 0xff], 'UTF-16, expected UTF-8; save it as UTF-8, for instance with iconv'],
]

const startsWith = (bytes: Buffer, start: readonly number[]): boolean =>
  start.every((byte, at) => bytes[at] === byte)

/** Gathers the bytes of a text and refuses them at the first that cannot be right. */
class TextBytes {
  #bytes = Buffer.allocUnsafeSlow(firstRoom)
  #length = 0
  /** Of the last line so far: its number from 1, and where it starts. */
  #line = 1
  #lineStart = 0

  constructor(
    readonly file: string,
    readonly mostInLine: number,
  ) {}

  #refuse(problem: string, line?: number): never {
    throw new VoltaicError('ERR_FORMAT', `${this.file}${line === undefined ? '' : `:${line}`}: ${problem}`)
  }

  #requireLength(end: number): void {
    if (end - this.#lineStart > this.mostInLine) {
      this.#refuse(`a line of more than ${this.mostInLine / mebibyte} MiB; break it up`, this.#line)
    }
  }

  /**
   * Room for `#length` bytes. The last step is address space: memory is taken as bytes come, so no copy of a large text is made; as
   * the first step it would make every small file wait for the garbage collector.
   */
  #makeRoom(filled: number): void {
    if (this.#length <= this.#bytes.length) return
    const room = this.#length > secondRoom ? largestText : secondRoom
    const bytes = Buffer.allocUnsafeSlow(room)
    this.#bytes.copy(bytes, 0, 0, filled)
    this.#bytes = bytes
  }

  add(chunk: Buffer): void {
    if (this.#length + chunk.length > largestText) {
      this.#refuse(`more than ${largestText / mebibyte} MiB of text; split the file`)
    }
    const from = this.#length
    this.#length += chunk.length
    this.#makeRoom(from)
    chunk.copy(this.#bytes, from)
    const nul = chunk.indexOf(0)
    for (let at = chunk.indexOf(lineFeed); at >= 0; at = chunk.indexOf(lineFeed, at + 1)) {
      if (nul >= 0 && at > nul) break
      this.#requireLength(from + at)
      this.#line += 1
      this.#lineStart = from + at + 1
    }
    if (nul >= 0) this.#refuse('a NUL character, expected text; is this a file of another kind?', this.#line)
    this.#requireLength(this.#length)
    if (this.#line > mostLines + 1) this.#refuse(`more than ${mostLines} lines; split the file`)
  }

  /** The line, from 1, that holds the first malformed byte. */
  #firstMalformedLine(bytes: Buffer): number {
    let line = 1
    for (let start = 0; start < bytes.length; line++) {
      const end = bytes.indexOf(lineFeed, start)
      if (end < 0 || !isUtf8(bytes.subarray(start, end))) break
      start = end + 1
    }
    return line
  }

  /** All of them, without a byte order mark. */
  finish(): Buffer {
    const bytes = this.#bytes.subarray(0, this.#length)
    if (!isUtf8(bytes)) {
      const line = this.#firstMalformedLine(bytes)
      this.#refuse('not UTF-8; save the file as UTF-8, for instance with iconv', line)
    }
    return bytes.subarray(startsWith(bytes, [0xef, 0xbb, 0xbf]) ? 3 : 0)
  }
}

/** Gives the content chunk by chunk, unpacked where it is gzip. */
async function unpackedChunks(
  handle: FileHandle,
  file: string,
  take: (chunk: Buffer) => void,
): Promise<void> {
  const { buffer, bytesRead } = await handle.read(Buffer.allocUnsafeSlow(firstRoom), 0, firstRoom)
  const first = buffer.subarray(0, bytesRead)
  const rest = handle.createReadStream({ highWaterMark: mebibyte, autoClose: false })
  if (!startsWith(first, [0x1f, 0x8b])) {
    take(first)
    for await (const chunk of rest) take(chunk as Buffer)
    return
  }
  const gunzip = createGunzip({ chunkSize: firstRoom })
  gunzip.write(first)
  rest.once('error', (error) => gunzip.destroy(error)).pipe(gunzip)
  try {
    for await (const chunk of gunzip) take(chunk as Buffer)
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (!code?.startsWith('Z_')) throw cause
    throw new VoltaicError('ERR_FORMAT', `${file}: the gzip data is broken (${message}); copy it again`, {
      cause,
    })
  }
}

/**
 * Reads the bytes of a text file, unpacked where it is gzip.
 * @param mostInLine bytes of a line at most: 1 MiB by default, Infinity where lines mean nothing
 * @throws ERR_IO; ERR_FORMAT for broken gzip data, a file of another kind, a NUL or text that is not UTF-8 (with the line), a line
 * that is too long, more than 96 MiB or 4,000,000 lines
 */
export async function readTextBytes(file: string, mostInLine: number = longestLine): Promise<Buffer> {
  try {
    const handle = await open(file)
    try {
      let text: TextBytes | undefined
      await unpackedChunks(handle, file, (chunk) => {
        if (text === undefined) {
          const [, problem] = otherKinds.find(([start]) => startsWith(chunk, start)) ?? []
          if (problem !== undefined) throw new VoltaicError('ERR_FORMAT', `${file}: ${problem}`)
          text = new TextBytes(file, mostInLine)
        }
        text.add(chunk)
      })
      return text?.finish() ?? Buffer.alloc(0)
    } finally {
      await handle.close()
    }
  } catch (cause) {
    throw ioError('read', file, cause)
  }
}

export interface TextLine {
  /** From 1. */
  readonly line: number
  readonly text: string
}

/** Where each line stands, from its first byte to behind its line feed. */
function* lineRanges(bytes: Buffer): Generator<readonly [line: number, start: number, end: number]> {
  let start = 0
  for (let line = 1; start < bytes.length; line++) {
    const feed = bytes.indexOf(lineFeed, start)
    const end = feed < 0 ? bytes.length : feed + 1
    yield [line, start, end]
    start = end
  }
}

/** Lines with the ends they have: LF, CRLF or, the last one, none. */
export function* wholeLines(bytes: Buffer): Generator<TextLine> {
  for (const [line, start, end] of lineRanges(bytes)) yield { line, text: bytes.toString('utf8', start, end) }
}

/** Lines without their ends. */
export function* textLines(bytes: Buffer): Generator<TextLine> {
  for (const [line, start, behind] of lineRanges(bytes)) {
    let end = behind
    if (bytes[end - 1] === lineFeed) end -= 1
    if (end > start && bytes[end - 1] === carriageReturn) end -= 1
    yield { line, text: bytes.toString('utf8', start, end) }
  }
}
