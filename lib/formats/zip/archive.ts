/**
 * Zip archives, read in place: the list of entries at the end of the file (zip64 included), and the bytes of an entry, which are a
 * view of the file where they are stored and a copy where they are deflated.
 *
 * Archives come from strangers. Every offset and size is checked against the file, entries must not overlap (a small file could
 * else hold the same data a million times), and what deflated entries unpack to is bounded together.
 */
import { inflateRawSync } from 'node:zlib'
import { VoltaicError } from '../../runtime/errors.js'
import { showName } from '../tensor-source.js'

export interface ZipArchive {
  readonly names: readonly string[]
  has(name: string): boolean
  /** How long the entry is, unpacked. Throws ERR_FORMAT for a name that is not there. */
  byteLength(name: string): number
  /** The entry's bytes. Throws ERR_FORMAT for a name that is not there, and for data that do not unpack. */
  bytes(name: string): Uint8Array
}

interface Entry {
  readonly name: string
  readonly deflated: boolean
  readonly packed: number
  readonly unpacked: number
  /** Of the entry's own header in the file. */
  readonly header: number
}

const endSignature = 0x06054b50
const end64Signature = 0x06064b50
const locator64Signature = 0x07064b50
const entrySignature = 0x02014b50
const localSignature = 0x04034b50

const endLength = 22
const longestComment = 0xffff
const mostEntries = 100_000
/** Deflated entries of one archive together: weights do not shrink, so honest archives stay far below. */
const largestUnpacked = 64 * 1024 * 1024

class Reader {
  readonly view: DataView

  constructor(
    readonly bytes: Uint8Array,
    readonly path: string,
  ) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  refuse(problem: string): never {
    throw new VoltaicError(
      'ERR_FORMAT',
      `${this.path}: ${problem}. The zip archive is damaged; copy or save it again`,
    )
  }

  /** Checks that `length` bytes from `offset` are in the file. */
  require(offset: number, length: number, what: string): void {
    if (offset < 0 || length < 0 || offset + length > this.bytes.byteLength) {
      this.refuse(`${what}: bytes ${offset} to ${offset + length} of a file of ${this.bytes.byteLength}`)
    }
  }

  signature(offset: number, expected: number, what: string): void {
    if (this.view.getUint32(offset, true) !== expected) this.refuse(`${what}: not at byte ${offset}`)
  }

  /** A 64-bit number; one that passes 2^53 is beyond any file and stays so. */
  uint64(offset: number): number {
    return this.view.getUint32(offset, true) + this.view.getUint32(offset + 4, true) * 2 ** 32
  }
}

interface Directory {
  readonly entries: number
  readonly offset: number
  readonly byteLength: number
}

function findEnd(reader: Reader): number {
  const last = reader.bytes.byteLength - endLength
  for (let at = last; at >= Math.max(0, last - longestComment); at--) {
    if (
      reader.view.getUint32(at, true) === endSignature &&
      reader.view.getUint16(at + 20, true) === last - at
    )
      return at
  }
  return reader.refuse('no list of entries at its end; it is cut short, or no zip archive')
}

function findDirectory(reader: Reader): Directory {
  const { view } = reader
  const end = findEnd(reader)
  const plain = {
    entries: view.getUint16(end + 10, true),
    byteLength: view.getUint32(end + 12, true),
    offset: view.getUint32(end + 16, true),
  }
  const locator = end - 20
  if (locator < 0 || view.getUint32(locator, true) !== locator64Signature) return plain
  const end64 = reader.uint64(locator + 8)
  reader.require(end64, 56, 'zip64 end of the list of entries')
  reader.signature(end64, end64Signature, 'zip64 end of the list of entries')
  return {
    entries: reader.uint64(end64 + 32),
    byteLength: reader.uint64(end64 + 40),
    offset: reader.uint64(end64 + 48),
  }
}

/** Sizes and offset of an entry, from its zip64 field where the plain ones are all ones. */
function longSizes(
  reader: Reader,
  at: number,
  nameLength: number,
  extraLength: number,
  plain: number[],
): number[] {
  const full = 0xffffffff
  if (!plain.includes(full)) return plain
  let field = at + 46 + nameLength
  const end = field + extraLength
  while (field + 4 <= end) {
    const length = reader.view.getUint16(field + 2, true)
    if (reader.view.getUint16(field, true) === 1) {
      let next = field + 4
      const stop = Math.min(end, next + length)
      return plain.map((value) => {
        if (value !== full) return value
        if (next + 8 > stop) reader.refuse('an entry has a zip64 field that is too short')
        next += 8
        return reader.uint64(next - 8)
      })
    }
    field += 4 + length
  }
  return plain
}

function readEntry(reader: Reader, at: number, directoryEnd: number): { entry: Entry; next: number } {
  const { view } = reader
  if (at + 46 > directoryEnd) reader.refuse('the list of entries ends early')
  reader.signature(at, entrySignature, 'an entry of the list')
  const flags = view.getUint16(at + 8, true)
  const method = view.getUint16(at + 10, true)
  const nameLength = view.getUint16(at + 28, true)
  const extraLength = view.getUint16(at + 30, true)
  const next = at + 46 + nameLength + extraLength + view.getUint16(at + 32, true)
  if (next > directoryEnd) reader.refuse('the list of entries ends early')
  const name = new TextDecoder().decode(reader.bytes.subarray(at + 46, at + 46 + nameLength))
  if ((flags & 1) !== 0) reader.refuse(`entry ${showName(name)} is encrypted`)
  if (method !== 0 && method !== 8)
    reader.refuse(
      `entry ${showName(name)} is packed by method ${method}; expected 0 (stored) or 8 (deflated)`,
    )
  const plain = [24, 20, 42].map((offset) => view.getUint32(at + offset, true))
  const [unpacked = 0, packed = 0, header = 0] = longSizes(reader, at, nameLength, extraLength, plain)
  if (method === 0 && packed !== unpacked)
    reader.refuse(`entry ${showName(name)} is stored, but its two sizes are ${packed} and ${unpacked}`)
  return { entry: { name, deflated: method === 8, packed, unpacked, header }, next }
}

function readEntries(reader: Reader): Map<string, Entry> {
  const { entries: count, offset, byteLength } = findDirectory(reader)
  reader.require(offset, byteLength, 'the list of entries')
  if (count > mostEntries) reader.refuse(`${count} entries; expected at most ${mostEntries}`)
  const entries = new Map<string, Entry>()
  let at = offset
  for (let i = 0; i < count; i++) {
    const { entry, next } = readEntry(reader, at, offset + byteLength)
    if (entries.has(entry.name)) reader.refuse(`entry ${showName(entry.name)} stands twice`)
    entries.set(entry.name, entry)
    at = next
  }
  let end = 0
  for (const { name, header, packed } of [...entries.values()].sort((a, b) => a.header - b.header)) {
    if (header < end) reader.refuse(`entry ${showName(name)} overlaps another`)
    end = header + 30 + packed
    if (end > offset) reader.refuse(`entry ${showName(name)} reaches past the data`)
  }
  let unpacked = 0
  for (const entry of entries.values()) if (entry.deflated) unpacked += entry.unpacked
  if (unpacked > largestUnpacked) {
    reader.refuse(
      `its packed entries unpack to ${unpacked} bytes; expected at most ${largestUnpacked} (large ones are stored, as PyTorch writes them)`,
    )
  }
  return entries
}

function inflate(reader: Reader, { name, unpacked }: Entry, packed: Uint8Array): Uint8Array {
  let content: Uint8Array
  try {
    // One byte more than promised shows an entry that is too long without unpacking all of it.
    content = inflateRawSync(packed, { maxOutputLength: unpacked + 1 })
  } catch {
    reader.refuse(`entry ${showName(name)} does not unpack to its ${unpacked} bytes`)
  }
  if (content.byteLength !== unpacked)
    reader.refuse(`entry ${showName(name)} unpacks to ${content.byteLength} bytes; expected ${unpacked}`)
  return content
}

/**
 * Reads the list of entries of a whole archive.
 * @param path names the file in messages
 * @throws ERR_FORMAT when any rule of the format is broken
 */
export function readZip(bytes: Uint8Array, path: string): ZipArchive {
  const reader = new Reader(bytes, path)
  if (bytes.byteLength < endLength) reader.refuse(`${bytes.byteLength} bytes are too few`)
  const entries = readEntries(reader)
  const at = (name: string): Entry =>
    entries.get(name) ?? reader.refuse(`entry ${showName(name)} is missing; it has ${entries.size} others`)
  return {
    names: [...entries.keys()],
    has: (name) => entries.has(name),
    byteLength: (name) => at(name).unpacked,
    bytes(name) {
      const entry = at(name)
      const what = `entry ${showName(name)}`
      reader.require(entry.header, 30, what)
      reader.signature(entry.header, localSignature, what)
      const start =
        entry.header +
        30 +
        reader.view.getUint16(entry.header + 26, true) +
        reader.view.getUint16(entry.header + 28, true)
      reader.require(start, entry.packed, what)
      const packed = bytes.subarray(start, start + entry.packed)
      return entry.deflated ? inflate(reader, entry, packed) : packed
    },
  }
}
