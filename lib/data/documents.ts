/**
 * From the bytes of a file to its documents, in constant memory: blank-line blocks of plain text, or JSON lines.
 *
 * What comes out depends on the bytes alone, not on how they arrive in chunks. A document is UTF-8 with LF line ends; malformed
 * bytes have become U+FFFD and are counted. A block longer than `maximumDocumentBytes` is cut behind a line (a longer line behind a
 * space), each part a document of its own, so a file without a blank line is served in constant memory too.
 */
import { isUtf8 } from 'node:buffer'
import { requireOrdinaryJson } from '../formats/json-file.js'
import { VoltaicError } from '../runtime/errors.js'

/** Longer documents are cut. About 250,000 tokens: no sequence is long enough to notice. */
export const maximumDocumentBytes: number = 1024 * 1024

/** A JSON line must fit in memory whole. */
const maximumLineBytes = 64 * 1024 * 1024

/** What was found on the way; the numbers grow while documents are read. */
export interface ReadingReport {
  /** Malformed UTF-8 sequences (and lone surrogates in JSON) that became U+FFFD. */
  malformed: number
  /** The line, from 1, near which the first of them stands (text: the line its document ends at); 0 while there is none. */
  firstMalformedLine: number
  /** How many times a document longer than the limit was cut. */
  cuts: number
}

/** A document and where it begins. */
export interface DocumentBytes {
  readonly bytes: Buffer
  /** Its first line in the file, from 1; of JSON lines, the line of its object. */
  readonly line: number
}

export interface DocumentReading {
  readonly file: string
  readonly report: ReadingReport
  /** JSON lines: the field that holds the text. */
  readonly textField: string
  readonly maximumDocumentBytes: number
}

const lineFeed = 0x0a
const carriageReturn = 0x0d
const replacement = Buffer.from('\ufffd')
const decoder = new TextDecoder('utf-8', { ignoreBOM: true })

/** Space, tab, line feed, vertical tab, form feed, carriage return. */
function isWhitespace(byte: number): boolean {
  return byte === 0x20 || (byte >= 0x09 && byte <= 0x0d)
}

function isBlank(buffer: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at++) if (!isWhitespace(buffer[at] as number)) return false
  return true
}

function countReplacements(bytes: Buffer): number {
  let count = 0
  for (let at = bytes.indexOf(replacement); at >= 0; at = bytes.indexOf(replacement, at + 3)) count += 1
  return count
}

/** Well-formed UTF-8: the same bytes where they are, else with U+FFFD for each maximal malformed part (the WHATWG rule). */
function wellFormed(bytes: Buffer, line: number, report: ReadingReport): Buffer {
  if (isUtf8(bytes)) return bytes
  const repaired = Buffer.from(decoder.decode(bytes))
  report.malformed += countReplacements(repaired) - countReplacements(bytes)
  if (report.firstMalformedLine === 0) report.firstMalformedLine = line
  return repaired
}

/** CRLF becomes LF, a carriage return at the very end goes. */
function withoutCarriageReturns(bytes: Buffer): Buffer {
  if (!bytes.includes(carriageReturn)) return bytes
  const kept = Buffer.allocUnsafe(bytes.length)
  let length = 0
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] as number
    const atLineEnd = at + 1 === bytes.length || bytes[at + 1] === lineFeed
    if (byte !== carriageReturn || !atLineEnd) kept[length++] = byte
  }
  return kept.subarray(0, length)
}

/** Where to cut a line that is longer than the limit: behind the last space before it, else before the last whole character. */
function cutInLine(buffer: Buffer, start: number, limit: number): number {
  for (let at = start + limit; at > start + limit / 2; at--)
    if (isWhitespace(buffer[at - 1] as number)) return at
  let at = start + limit
  while (at > start + limit - 4 && ((buffer[at] as number) & 0xc0) === 0x80) at--
  return at
}

/** Removes a byte order mark from the start of a stream of chunks. */
async function* withoutByteOrderMark(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let head: Buffer | undefined = Buffer.alloc(0)
  for await (const chunk of chunks) {
    if (head === undefined) {
      yield chunk
      continue
    }
    head = Buffer.concat([head, chunk])
    if (head.length < 3) continue
    yield head[0] === 0xef && head[1] === 0xbb && head[2] === 0xbf ? head.subarray(3) : head
    head = undefined
  }
  if (head !== undefined && head.length > 0) yield head
}

/** Documents of plain text: blocks of lines, parted by lines that hold nothing but whitespace. */
export async function* textDocuments(
  chunks: AsyncIterable<Buffer>,
  reading: DocumentReading,
): AsyncGenerator<DocumentBytes> {
  const { report, maximumDocumentBytes: limit } = reading
  let buffer: Buffer = Buffer.alloc(0)
  /** Where the open document starts in the buffer; -1 between documents. */
  let start = -1
  let lineStart = 0
  let line = 1
  /** The line on which the open document starts. */
  let startLine = 1
  /** Whether the open document goes on from a part that was cut off. */
  let continued = false
  const begin = (at: number): void => {
    start = at
    startLine = line
  }
  const finish = (end: number): DocumentBytes => {
    if (continued) report.cuts += 1
    continued = false
    const bytes = withoutCarriageReturns(wellFormed(buffer.subarray(start, end), line, report))
    return { bytes, line: startLine }
  }

  /** The parts that a line reaching at least to `end` pushes out of a document that has grown too long. */
  function* overlong(end: number): Generator<DocumentBytes> {
    if (start >= 0 && start < lineStart && end - start > limit) {
      yield finish(lineStart - 1)
      continued = true
      begin(lineStart)
    }
    while (end - lineStart > limit) {
      const cut = cutInLine(buffer, lineStart, limit)
      begin(lineStart)
      if (!isBlank(buffer, start, cut)) {
        yield finish(cut)
        continued = true
      }
      start = cut
      lineStart = cut
    }
  }

  const isOverlong = (end: number): boolean => end - (start >= 0 ? start : lineStart) > limit

  for await (const chunk of withoutByteOrderMark(chunks)) {
    const kept = start >= 0 ? start : lineStart
    const scanned = buffer.length - kept
    buffer = scanned === 0 ? chunk : Buffer.concat([buffer.subarray(kept), chunk])
    lineStart -= kept
    if (start >= 0) start = 0
    let end = buffer.indexOf(lineFeed, scanned)
    for (; end >= 0; end = buffer.indexOf(lineFeed, lineStart)) {
      if (isOverlong(end)) yield* overlong(end)
      if (isBlank(buffer, lineStart, end)) {
        // The line before is the last of its document; a blank rest of a cut line has none before.
        if (start >= 0 && start < lineStart) yield finish(lineStart - 1)
        start = -1
        continued = false
      } else if (start < 0) begin(lineStart)
      lineStart = end + 1
      line += 1
    }
    if (isOverlong(buffer.length)) yield* overlong(buffer.length)
  }
  if (!isBlank(buffer, lineStart, buffer.length)) {
    if (start < 0) begin(lineStart)
    yield finish(buffer.length)
  } else if (start >= 0 && start < lineStart) yield finish(lineStart - 1)
}

/** Lines of a stream, without their ends, each with its number from 1. */
async function* lines(
  chunks: AsyncIterable<Buffer>,
  file: string,
): AsyncGenerator<{ bytes: Buffer; line: number }> {
  let rest: Buffer[] = []
  let restBytes = 0
  let line = 1
  for await (const chunk of withoutByteOrderMark(chunks)) {
    let start = 0
    for (let end = chunk.indexOf(lineFeed); end >= 0; end = chunk.indexOf(lineFeed, start)) {
      const piece = chunk.subarray(start, end)
      yield { bytes: restBytes > 0 ? Buffer.concat([...rest, piece]) : piece, line }
      rest = []
      restBytes = 0
      start = end + 1
      line += 1
    }
    if (start < chunk.length) rest.push(chunk.subarray(start))
    restBytes += chunk.length - start
    if (restBytes > maximumLineBytes) {
      throw new VoltaicError(
        'ERR_FORMAT',
        `${file}:${line}: a JSON line of more than ${maximumLineBytes / 2 ** 20} MiB; expected one document a line`,
      )
    }
  }
  if (restBytes > 0) yield { bytes: Buffer.concat(rest), line }
}

function textOfJsonLine(json: string, line: number, { file, textField }: DocumentReading): string {
  const where = `${file}:${line}`
  requireOrdinaryJson(json, where)
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new VoltaicError('ERR_FORMAT', `${where}: not a JSON line: ${reason}`, { cause })
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new VoltaicError('ERR_FORMAT', `${where}: expected a JSON object with the field '${textField}'`)
  }
  const text = (value as Record<string, unknown>)[textField]
  if (typeof text === 'string') return text
  const found = Object.keys(value).slice(0, 8).join(', ')
  const problem =
    text === undefined
      ? `no field '${textField}'; the object has: ${found || 'nothing'}. Name the field with textField`
      : `the field '${textField}' is ${text === null ? 'null' : typeof text}, expected a string`
  throw new VoltaicError('ERR_FORMAT', `${where}: ${problem}`)
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes
}

/** Documents of JSON lines: the text field of each line's object. A text with nothing but whitespace gives no document. */
export async function* jsonDocuments(
  chunks: AsyncIterable<Buffer>,
  reading: DocumentReading,
): AsyncGenerator<DocumentBytes> {
  const { report, maximumDocumentBytes: limit } = reading
  for await (const { bytes, line } of lines(chunks, reading.file)) {
    if (isBlank(bytes, 0, bytes.length)) continue
    const json = wellFormed(bytes, line, report).toString()
    const text = textOfJsonLine(json, line, reading)
    const loneSurrogates = json.includes('\\') ? (text.match(/\p{Surrogate}/gu)?.length ?? 0) : 0
    report.malformed += loneSurrogates
    if (loneSurrogates > 0 && report.firstMalformedLine === 0) report.firstMalformedLine = line
    const document = withoutCarriageReturns(Buffer.from(text))
    if (isBlank(document, 0, document.length)) continue
    if (document.length <= limit) yield { bytes: document, line }
    else {
      // Blank lines inside a text part nothing: take them out, and the rule for long blocks of text does the cutting.
      const block = Buffer.from(document.toString().replace(/\n[ \t\v\f\r]*(?=\n)/g, ''))
      for await (const { bytes } of textDocuments(once(block), reading)) yield { bytes, line }
    }
  }
}
