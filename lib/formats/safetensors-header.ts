/**
 * The header of a safetensors file: 8 bytes with its length, JSON that names each tensor's type, shape and place, then the data.
 *
 * Files come from strangers, so the reader takes exactly this grammar and no more, straight from the bytes: no general JSON tree is
 * built, nothing nests, a duplicate key is seen, and time and memory stay proportional to the header, which must fit in the file.
 */
import { VoltaicError } from '../runtime/errors.js'
import { dtypeBits, isFileDtype, tensorByteLength } from './tensor-data.js'
import { showName, type TensorInfo } from './tensor-source.js'

export interface PlacedTensor extends TensorInfo {
  /** Where the tensor's bytes start, counted from the start of the data. */
  readonly begin: number
}

export interface SafetensorsHeader {
  /** By name, in the order of the file's header. */
  readonly tensors: ReadonlyMap<string, PlacedTensor>
  readonly metadata: Readonly<Record<string, string>>
  /** Where the data start in the file. */
  readonly dataOffset: number
}

/** The format's own limit. */
export const maxHeaderLength = 100_000_000
/** More dimensions than any library has; keeps a hostile shape from growing an array as long as the file. */
const maxDimensions = 64
/** Of tensors, and of metadata: hundreds are usual, and each costs memory many times its bytes in the file. */
const maxMembers = 100_000

const quoteMark = 0x22
const backslash = 0x5c
const comma = 0x2c

class HeaderReader {
  private at = 0
  private readonly utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

  constructor(
    private readonly bytes: Uint8Array,
    private readonly path: string,
  ) {}

  refuse(problem: string): never {
    throw new VoltaicError(
      'ERR_FORMAT',
      `${this.path}: ${problem} (header byte ${this.at}). The file is damaged or no safetensors file; ` +
        'copy or save it again',
    )
  }

  private skipSpace(): void {
    for (;;) {
      const byte = this.bytes[this.at]
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return
      this.at += 1
    }
  }

  private found(): string {
    const byte = this.bytes[this.at]
    if (byte === undefined) return 'the end of the header'
    return byte > 0x20 && byte < 0x7f ? `'${String.fromCharCode(byte)}'` : `byte 0x${byte.toString(16)}`
  }

  /** Whether the next character is `character`; takes it if so. */
  take(character: string): boolean {
    this.skipSpace()
    if (this.bytes[this.at] !== character.charCodeAt(0)) return false
    this.at += 1
    return true
  }

  expect(character: string, where: string): void {
    if (!this.take(character)) this.refuse(`${where}: found ${this.found()}, expected '${character}'`)
  }

  expectEnd(): void {
    this.skipSpace()
    if (this.at !== this.bytes.length) {
      this.refuse(`after the header's JSON: found ${this.found()}, expected spaces only`)
    }
  }

  string(where: string): string {
    this.expect('"', where)
    const start = this.at
    let escaped = false
    for (;;) {
      const byte = this.bytes[this.at]
      if (byte === undefined) this.refuse(`${where}: a string does not end`)
      if (byte === quoteMark) break
      if (byte < 0x20) this.refuse(`${where}: a string holds a control character`)
      if (byte === backslash) {
        escaped = true
        this.at += 1
      }
      this.at += 1
    }
    const raw = this.bytes.subarray(start, this.at)
    this.at += 1
    const text = this.decode(raw, where)
    return escaped ? this.unescape(text, where) : text
  }

  private decode(raw: Uint8Array, where: string): string {
    try {
      return this.utf8.decode(raw)
    } catch {
      this.refuse(`${where}: a string is not UTF-8`)
    }
  }

  private unescape(text: string, where: string): string {
    let result: string
    try {
      result = JSON.parse(`"${text}"`)
    } catch {
      this.refuse(`${where}: a string has a wrong escape`)
    }
    // \ud800 alone is JSON, but no text: it could not be written back as UTF-8.
    if (/\p{Surrogate}/u.test(result)) this.refuse(`${where}: a string has half a surrogate pair`)
    return result
  }

  /** A whole number from 0 to 2^53 - 1, without sign, point, exponent or leading zeros. */
  wholeNumber(where: string): number {
    this.skipSpace()
    const start = this.at
    let value = 0
    for (;;) {
      const digit = (this.bytes[this.at] ?? 0) - 0x30
      if (digit < 0 || digit > 9) break
      value = value * 10 + digit
      if (value > Number.MAX_SAFE_INTEGER) this.refuse(`${where}: a number is too large for any file`)
      this.at += 1
    }
    const digits = this.at - start
    const next = this.bytes[this.at]
    if (digits === 0 || next === 0x2e || next === 0x65 || next === 0x45) {
      this.refuse(`${where}: found ${this.found()}, expected a whole number, 0 or more`)
    }
    if (digits > 1 && this.bytes[start] === 0x30) this.refuse(`${where}: a number starts with 0`)
    return value
  }

  numbers(where: string, most: number): number[] {
    const result: number[] = []
    this.expect('[', where)
    if (this.take(']')) return result
    for (;;) {
      if (result.length === most) this.refuse(`${where}: more than ${most} numbers`)
      result.push(this.wholeNumber(where))
      if (this.take(']')) return result
      this.expect(String.fromCharCode(comma), where)
    }
  }

  /** Walks over an object's members; `member` must take the value. */
  object(where: string, member: (key: string) => void): void {
    this.expect('{', where)
    if (this.take('}')) return
    let count = 0
    do {
      count += 1
      if (count > maxMembers) this.refuse(`${where}: more than ${maxMembers} members`)
      const key = this.string(where)
      this.expect(':', where)
      member(key)
    } while (this.take(','))
    this.expect('}', where)
  }
}

function readMetadata(reader: HeaderReader): Readonly<Record<string, string>> {
  const where = '__metadata__'
  const metadata = new Map<string, string>()
  reader.object(where, (key) => {
    if (metadata.has(key)) reader.refuse(`${where}: key ${showName(key)} stands twice`)
    metadata.set(key, reader.string(where))
  })
  return Object.fromEntries(metadata)
}

function readTensor(reader: HeaderReader, name: string): PlacedTensor {
  const where = `tensor ${showName(name)}`
  let dtype: string | undefined
  let shape: number[] | undefined
  let offsets: number[] | undefined
  const once = (value: unknown, key: string): void => {
    if (value !== undefined) reader.refuse(`${where}: ${key} stands twice`)
  }
  reader.object(where, (key) => {
    if (key === 'dtype') {
      once(dtype, key)
      dtype = reader.string(where)
    } else if (key === 'shape') {
      once(shape, key)
      shape = reader.numbers(`${where}: shape`, maxDimensions)
    } else if (key === 'data_offsets') {
      once(offsets, key)
      offsets = reader.numbers(`${where}: data_offsets`, 2)
    } else {
      reader.refuse(`${where}: unknown key ${showName(key)}; expected dtype, shape and data_offsets`)
    }
  })
  if (dtype === undefined) reader.refuse(`${where}: dtype is missing`)
  if (shape === undefined) reader.refuse(`${where}: shape is missing`)
  const [begin, end] = offsets ?? []
  if (begin === undefined || end === undefined) {
    reader.refuse(`${where}: data_offsets is missing or short; expected [begin, end]`)
  }
  if (!isFileDtype(dtype)) {
    reader.refuse(
      `${where}: unknown dtype ${showName(dtype)}; expected one of ${Object.keys(dtypeBits).join(', ')}`,
    )
  }
  if (end < begin) reader.refuse(`${where}: data_offsets [${begin}, ${end}] end before they begin`)
  const byteLength = tensorByteLength(dtype, shape)
  if (byteLength === undefined) {
    reader.refuse(`${where}: shape [${shape.join(', ')}] of ${dtype} overflows or does not fill whole bytes`)
  }
  if (byteLength !== end - begin) {
    reader.refuse(
      `${where}: data_offsets [${begin}, ${end}] hold ${end - begin} bytes, but shape [${shape.join(', ')}] ` +
        `of ${dtype} takes ${byteLength}`,
    )
  }
  return { dtype, shape, begin, byteLength }
}

/** The tensors must cover the data from 0 to the end of the file, without a hole, an overlap or a rest. */
function checkTiling(
  reader: HeaderReader,
  tensors: ReadonlyMap<string, PlacedTensor>,
  dataLength: number,
): void {
  const order = [...tensors].sort(([, a], [, b]) => a.begin - b.begin || a.byteLength - b.byteLength)
  let end = 0
  for (const [name, { begin, byteLength }] of order) {
    if (begin !== end) {
      const what = begin > end ? 'leaves a hole' : 'overlaps another tensor'
      reader.refuse(`tensor ${showName(name)} ${what}: it begins at ${begin}, expected ${end}`)
    }
    end = begin + byteLength
    if (end > dataLength) {
      reader.refuse(`tensor ${showName(name)} ends at ${end}, but the file holds ${dataLength} bytes of data`)
    }
  }
  if (end !== dataLength) {
    reader.refuse(`the tensors end at ${end}, but the file holds ${dataLength} bytes of data`)
  }
}

/**
 * Reads and checks the header of a whole safetensors file.
 * @param path names the file in messages
 * @throws ERR_FORMAT that names the file, the tensor, what came and what was expected
 */
export function readSafetensorsHeader(bytes: Uint8Array, path: string): SafetensorsHeader {
  const refuse = (problem: string): never => {
    throw new VoltaicError('ERR_FORMAT', `${path}: ${problem}. The file is cut short or no safetensors file`)
  }
  if (bytes.byteLength < 8)
    refuse(`${bytes.byteLength} bytes; expected at least the 8 bytes of the header's length`)
  const view = new DataView(bytes.buffer, bytes.byteOffset, 8)
  const length = view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32
  if (length > maxHeaderLength) refuse(`header of ${length} bytes; expected at most ${maxHeaderLength}`)
  const dataOffset = 8 + length
  if (dataOffset > bytes.byteLength) {
    refuse(
      `header of ${length} bytes in a file of ${bytes.byteLength}; expected a file of ${dataOffset} or more`,
    )
  }
  if (bytes[8] !== 0x7b || length === 0) refuse(`the header does not start with '{'`)

  const reader = new HeaderReader(bytes.subarray(8, dataOffset), path)
  const tensors = new Map<string, PlacedTensor>()
  let metadata: Readonly<Record<string, string>> | undefined
  reader.object('header', (name) => {
    if (name === '__metadata__') {
      if (metadata !== undefined) reader.refuse('__metadata__ stands twice')
      metadata = readMetadata(reader)
    } else {
      if (tensors.has(name)) reader.refuse(`tensor ${showName(name)} stands twice`)
      tensors.set(name, readTensor(reader, name))
    }
  })
  reader.expectEnd()
  checkTiling(reader, tensors, bytes.byteLength - dataOffset)
  return { tensors, metadata: metadata ?? {}, dataOffset }
}
