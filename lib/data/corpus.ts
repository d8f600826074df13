/**
 * A corpus: files named or matched by globs, plain or gzip, as one stream of documents in a fixed order and in constant memory.
 * The order is that of the patterns; the matches of one glob are sorted by path (code units, the same everywhere); a file named
 * twice counts once.
 */
import { createReadStream } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { createGunzip } from 'node:zlib'
import { glob, isDynamicPattern } from 'tinyglobby'
import { VoltaicError } from '../runtime/errors.js'
import { ioError } from '../runtime/mapped-file.js'
import { jsonDocuments, maximumDocumentBytes, type ReadingReport, textDocuments } from './documents.js'

export interface CorpusOptions {
  /** `text`: blank-line blocks; `jsonl`: one JSON object a line; `auto` (default): by the name (.jsonl, .ndjson, also with .gz). */
  readonly format?: 'auto' | 'text' | 'jsonl'
  /** JSON lines: the field that holds the text. Default 'text'. */
  readonly textField?: string
  /** Ends the reading with ERR_ABORTED. */
  readonly signal?: AbortSignal
}

export interface CorpusFile {
  /** The absolute path. */
  readonly path: string
  readonly bytes: number
  /** Modification time in nanoseconds since 1970, as a decimal number. */
  readonly modified: string
}

export interface CorpusDocument {
  /** Well-formed UTF-8, lines parted by LF. Never blank. */
  readonly bytes: Uint8Array
  /** The path of its file. */
  readonly file: string
  /** Its first line in the file, from 1; of JSON lines, the line of its object. */
  readonly line: number
  /** Whether it comes from JSON lines, so that all of it stands on `line`. */
  readonly isJsonLine: boolean
  /** Its number in the corpus, from 0. */
  readonly index: number
}

/** What was repaired in one file. */
export interface CorpusWarning extends Readonly<ReadingReport> {
  readonly file: string
}

export interface Corpus {
  readonly files: readonly CorpusFile[]
  readonly format: 'auto' | 'text' | 'jsonl'
  readonly textField: string
  /** The bytes of all files as they are stored. */
  readonly bytes: number
  /** Stored bytes read by the latest `documents()`. */
  readonly bytesRead: number
  /** Files in which something was repaired, by the latest `documents()` so far. */
  readonly warnings: readonly CorpusWarning[]
  /** The files as they are now, to find out whether one was changed while it was read. */
  describeFilesAgain(): Promise<CorpusFile[]>
  /**
   * All documents, in order; each call starts anew. Throws ERR_IO for a file that cannot be read, ERR_FORMAT for a broken gzip file
   * or JSON line (with file and line) and for a corpus without any text, ERR_UNSUPPORTED for other compressions and for UTF-16.
   */
  documents(): AsyncGenerator<CorpusDocument>
}

const chunkBytes = 256 * 1024
const jsonLinesName = /\.(jsonl|ndjson)(\.gz)?$/i

function byCodeUnits(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

async function matches(pattern: string): Promise<string[]> {
  try {
    // A name with brackets or braces that is there is that file, not a pattern.
    await stat(pattern)
    return [pattern]
  } catch (error) {
    if (!isDynamicPattern(pattern)) throw ioError('read corpus', pattern, error)
  }
  const found = await glob(pattern, { expandDirectories: false, onlyFiles: true, absolute: true })
  if (found.length === 0) {
    throw new VoltaicError('ERR_IO', `no file matches the corpus pattern ${pattern} (in ${process.cwd()})`)
  }
  return found.sort(byCodeUnits)
}

async function describeFile(path: string): Promise<CorpusFile> {
  const information = await stat(path, { bigint: true }).catch((error) => {
    throw ioError('read corpus', path, error)
  })
  if (information.isDirectory()) {
    throw new VoltaicError(
      'ERR_IO',
      `corpus ${path} is a folder; name files or a pattern, such as '${path}/*.txt'`,
    )
  }
  if (!information.isFile()) {
    throw new VoltaicError(
      'ERR_IO',
      `corpus ${path} is not a regular file (it is read more than once); save it first`,
    )
  }
  // Found out now, not an hour into the work.
  const handle = await open(path, 'r').catch((error) => {
    throw ioError('read corpus', path, error)
  })
  await handle.close()
  return { path, bytes: Number(information.size), modified: information.mtimeNs.toString() }
}

/** What other kinds of file begin with; -1 is any byte. */
const foreignBeginnings: readonly (readonly [bytes: readonly number[], advice: string])[] = [
  [[0x28, 0xb5, 0x2f, 0xfd], 'is compressed with zstd; unpack it or use gzip'],
  [[0xfd, 0x37, 0x7a, 0x58, 0x5a], 'is compressed with xz; unpack it or use gzip'],
  [[0x42, 0x5a, 0x68, -1, 0x31, 0x41, 0x59, 0x26], 'is compressed with bzip2; unpack it or use gzip'],
  [[0x50, 0x4b, 0x03, 0x04], 'is a zip archive; unpack it or use gzip'],
  [[0xff, 0xfe], 'is UTF-16; convert it to UTF-8'],
  [[0xfe, 0xff], 'is UTF-16; convert it to UTF-8'],
]

async function isGzip(path: string): Promise<boolean> {
  const handle = await open(path, 'r').catch((error) => {
    throw ioError('read corpus', path, error)
  })
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(8), 0, 8, 0)
    const startsWith = (bytes: readonly number[]): boolean =>
      bytesRead >= bytes.length && bytes.every((byte, at) => byte === -1 || buffer[at] === byte)
    for (const [bytes, advice] of foreignBeginnings) {
      if (startsWith(bytes)) throw new VoltaicError('ERR_UNSUPPORTED', `corpus ${path} ${advice}`)
    }
    return startsWith([0x1f, 0x8b])
  } catch (error) {
    throw ioError('read corpus', path, error)
  } finally {
    await handle.close()
  }
}

/** An error of zlib, such as Z_DATA_ERROR. */
function isGzipFault(error: unknown): boolean {
  return error instanceof Error && String((error as NodeJS.ErrnoException).code).startsWith('Z_')
}

/** The unpacked content in chunks. `progress.lines` and `.bytes` tell how far it came. */
async function* unpackedChunks(
  path: string,
  progress: { lines: number; bytes: number },
): AsyncGenerator<Buffer> {
  const gzip = await isGzip(path)
  const before = progress.bytes
  const file = createReadStream(path, { highWaterMark: chunkBytes })
  const source = gzip ? file.pipe(createGunzip({ chunkSize: chunkBytes })) : file
  // A pipe does not pass errors on.
  if (source !== file) file.on('error', (error) => source.destroy(error))
  try {
    for await (const chunk of source as AsyncIterable<Buffer>) {
      for (let at = chunk.indexOf(0x0a); at >= 0; at = chunk.indexOf(0x0a, at + 1)) progress.lines += 1
      progress.bytes = before + file.bytesRead
      yield chunk
    }
  } catch (error) {
    if (!isGzipFault(error)) throw ioError('read corpus', path, error)
    const reason = error instanceof Error ? error.message : String(error)
    throw new VoltaicError(
      'ERR_FORMAT',
      `corpus ${path}: the gzip data is damaged or cut short behind line ${progress.lines} (${reason}); ` +
        "test it with 'gzip -t' and fetch it again",
      { cause: error },
    )
  } finally {
    file.destroy()
    source.destroy()
  }
}

/**
 * Opens a corpus: resolves names and globs and makes sure that every file is there and readable; nothing is read yet.
 * @throws ERR_ARGUMENT without a pattern, ERR_IO for a pattern without a match, a folder, or a file that cannot be opened.
 */
export async function openCorpus(patterns: readonly string[], options: CorpusOptions = {}): Promise<Corpus> {
  const { format = 'auto', textField = 'text', signal } = options
  if (patterns.length === 0) throw new VoltaicError('ERR_ARGUMENT', 'the corpus names no file')
  const paths = new Set<string>()
  for (const pattern of patterns) for (const path of await matches(pattern)) paths.add(resolve(path))
  const describeFiles = async (): Promise<CorpusFile[]> => {
    const files: CorpusFile[] = []
    for (const path of paths) files.push(await describeFile(path))
    return files
  }
  const files = await describeFiles()

  let warnings: CorpusWarning[] = []
  let progress = { lines: 0, bytes: 0 }

  async function* documents(): AsyncGenerator<CorpusDocument> {
    const noted: CorpusWarning[] = []
    const position = { lines: 0, bytes: 0 }
    warnings = noted
    progress = position
    let index = 0
    for (const { path } of files) {
      position.lines = 0
      const report: ReadingReport = { malformed: 0, firstMalformedLine: 0, cuts: 0 }
      const json = format === 'jsonl' || (format === 'auto' && jsonLinesName.test(path))
      const read = json ? jsonDocuments : textDocuments
      const reading = { file: path, report, textField, maximumDocumentBytes }
      for await (const { bytes, line } of read(unpackedChunks(path, position), reading)) {
        if (signal?.aborted) throw new VoltaicError('ERR_ABORTED', 'reading the corpus was aborted')
        yield { bytes, file: path, line, isJsonLine: json, index }
        index += 1
      }
      if (report.malformed > 0 || report.cuts > 0) noted.push({ file: path, ...report })
    }
    if (index === 0) {
      const names = files.length === 1 ? files[0]?.path : `${files.length} files, ${files[0]?.path} first`
      throw new VoltaicError('ERR_FORMAT', `the corpus has no text: nothing but blank lines in ${names}`)
    }
  }

  return {
    files,
    format,
    textField,
    bytes: files.reduce((sum, file) => sum + file.bytes, 0),
    get bytesRead() {
      return progress.bytes
    },
    get warnings() {
      return warnings
    },
    describeFilesAgain: describeFiles,
    documents,
  }
}
