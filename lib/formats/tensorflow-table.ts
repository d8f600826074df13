/**
 * The table that the `.index` file of a TensorFlow checkpoint is: LevelDB's format
 * (github.com/google/leveldb, doc/table_format.md), sorted keys with values.
 *
 * The last 48 bytes name the index block, whose values name the data blocks. A block is entries with the prefix that each key
 * shares with the one before left out, then restart points; behind it one byte says whether it is packed (1: snappy), and four
 * are its masked CRC-32C.
 */
import { VoltaicError } from '../runtime/errors.js'
import { maskedCrc32c } from './crc32c.js'
import { readVarint } from './protobuf-reader.js'
import { unpackSnappy } from './snappy.js'

const footerLength = 48
const magicLow = 0x8b80fb57
const magicHigh = 0xdb477524
/**
 * Bytes of all blocks together, unpacked, and of all keys. An index of ELECTRA large is a few hundred KB; a hostile one could name
 * the same block a million times, or have a million keys share a long beginning.
 */
const mostBytes = 16 * 1024 * 1024
/** More variables than any model has; each costs memory. */
const mostEntries = 200_000
/** A variable's name, and what is said of it. */
const longestEntry = 4096

interface BlockHandle {
  readonly offset: number
  readonly byteLength: number
}

class TableReader {
  #entries = 0
  #blockBytes = 0
  #keyBytes = 0

  constructor(
    readonly bytes: Uint8Array,
    readonly path: string,
  ) {}

  refuse(problem: string): never {
    throw new VoltaicError(
      'ERR_FORMAT',
      `${this.path}: ${problem}. The checkpoint's index is damaged; copy it again`,
    )
  }

  varint(bytes: Uint8Array, at: number): [number, number] {
    try {
      return readVarint(bytes, at)
    } catch {
      return this.refuse('a number does not end')
    }
  }

  handle(bytes: Uint8Array, at: number): [BlockHandle, number] {
    const [offset, middle] = this.varint(bytes, at)
    const [byteLength, end] = this.varint(bytes, middle)
    return [{ offset, byteLength }, end]
  }

  /** The content of a block, unpacked, its checksum compared. */
  block({ offset, byteLength }: BlockHandle): Uint8Array {
    const end = offset + byteLength
    if (byteLength > mostBytes || end + 5 > this.bytes.length)
      this.refuse(`a block is said to be at bytes ${offset} to ${end} of ${this.bytes.length}`)
    this.#count(byteLength)
    const type = this.bytes[end]
    const expected = new DataView(this.bytes.buffer, this.bytes.byteOffset + end + 1, 4).getUint32(0, true)
    if (maskedCrc32c(this.bytes.subarray(offset, end + 1)) !== expected)
      this.refuse(`the block at byte ${offset} has another checksum than it was written with`)
    const content = this.bytes.subarray(offset, end)
    if (type === 0) return content
    if (type !== 1) this.refuse(`a block is packed by method ${type}; expected 0 (plain) or 1 (snappy)`)
    const unpacked = unpackSnappy(content, mostBytes) ?? this.refuse('a packed block does not unpack')
    this.#count(unpacked.length)
    return unpacked
  }

  #count(bytes: number): void {
    this.#blockBytes += bytes
    if (this.#blockBytes > mostBytes) this.refuse(`more than ${mostBytes} bytes of entries`)
  }

  /** Entries in order. Restart points serve searches only, so they are left alone. */
  *entries(block: Uint8Array): Generator<[key: Uint8Array, value: Uint8Array]> {
    if (block.length < 4) this.refuse('a block is too short')
    const restarts = new DataView(block.buffer, block.byteOffset + block.length - 4, 4).getUint32(0, true)
    const end = block.length - 4 - 4 * restarts
    if (end < 0) this.refuse('a block has more restart points than room')
    let key = new Uint8Array(0)
    let at = 0
    while (at < end) {
      this.#entries += 1
      if (this.#entries > mostEntries) this.refuse(`more than ${mostEntries} entries`)
      const [shared, second] = this.varint(block, at)
      const [unshared, third] = this.varint(block, second)
      const [valueLength, start] = this.varint(block, third)
      const valueStart = start + unshared
      const next = valueStart + valueLength
      if (shared > key.length || shared + unshared > longestEntry || next > end)
        this.refuse('an entry reaches out of its block, or its name is too long')
      if (valueLength > longestEntry) this.refuse('an entry is too long')
      this.#keyBytes += shared + unshared
      if (this.#keyBytes > mostBytes) this.refuse(`more than ${mostBytes} bytes of names`)
      const whole = new Uint8Array(shared + unshared)
      whole.set(key.subarray(0, shared))
      whole.set(block.subarray(start, valueStart), shared)
      key = whole
      yield [key, block.subarray(valueStart, next)]
      at = next
    }
  }
}

/**
 * All entries of a table, in order; keys are UTF-8.
 * @param path names the file in messages
 * @throws ERR_FORMAT when any rule of the format is broken, a checksum included
 */
export function readTable(bytes: Uint8Array, path: string): Map<string, Uint8Array> {
  const reader = new TableReader(bytes, path)
  const footer = bytes.length - footerLength
  if (footer < 0) reader.refuse(`${bytes.length} bytes are too few`)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (
    view.getUint32(bytes.length - 8, true) !== magicLow ||
    view.getUint32(bytes.length - 4, true) !== magicHigh
  )
    reader.refuse('it does not end with the magic number of a table; it is cut short, or no index')
  const [, afterMeta] = reader.handle(bytes, footer)
  const [index] = reader.handle(bytes, afterMeta)
  const utf8 = new TextDecoder('utf-8', { ignoreBOM: true })
  const table = new Map<string, Uint8Array>()
  for (const [, handle] of reader.entries(reader.block(index))) {
    const [place] = reader.handle(handle, 0)
    for (const [key, value] of reader.entries(reader.block(place))) table.set(utf8.decode(key), value)
  }
  return table
}
