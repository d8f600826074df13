/** Zip archives for tests, written from the format's description: stored or deflated entries, with or without zip64. */
import { crc32, deflateRawSync } from 'node:zlib'

export interface ZipEntry {
  readonly name: string
  readonly data: Uint8Array
  readonly deflate?: boolean
  /** What the list of entries says instead of the truth. */
  readonly claims?: { readonly unpacked?: number; readonly packed?: number; readonly header?: number }
}

const full = 0xffffffff

function long(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}

export function writeZip(entries: readonly ZipEntry[], { zip64 = false } = {}): Buffer {
  const parts: Buffer[] = []
  const list: Buffer[] = []
  let offset = 0
  for (const { name, data, deflate = false, claims = {} } of entries) {
    const packed = deflate ? deflateRawSync(data) : Buffer.from(data)
    const nameBytes = Buffer.from(name)
    const checksum = crc32(data)
    const local = Buffer.alloc(30)
    local.writeUInt32LE(0x04034b50, 0)
    local.writeUInt16LE(deflate ? 8 : 0, 8)
    local.writeUInt32LE(checksum, 14)
    local.writeUInt32LE(packed.length, 18)
    local.writeUInt32LE(data.length, 22)
    local.writeUInt16LE(nameBytes.length, 26)
    const [unpackedSize, packedSize, header] = [
      claims.unpacked ?? data.length,
      claims.packed ?? packed.length,
      claims.header ?? offset,
    ]
    const extra = zip64
      ? Buffer.concat([Buffer.of(1, 0, 24, 0), long(unpackedSize), long(packedSize), long(header)])
      : Buffer.alloc(0)
    const entry = Buffer.alloc(46)
    entry.writeUInt32LE(0x02014b50, 0)
    entry.writeUInt16LE(deflate ? 8 : 0, 10)
    entry.writeUInt32LE(checksum, 16)
    entry.writeUInt32LE(zip64 ? full : packedSize, 20)
    entry.writeUInt32LE(zip64 ? full : unpackedSize, 24)
    entry.writeUInt16LE(nameBytes.length, 28)
    entry.writeUInt16LE(extra.length, 30)
    entry.writeUInt32LE(zip64 ? full : header, 42)
    list.push(entry, nameBytes, extra)
    parts.push(local, nameBytes, packed)
    offset += local.length + nameBytes.length + packed.length
  }
  const directory = Buffer.concat(list)
  const end = Buffer.alloc(22)
  end.writeUInt32LE(0x06054b50, 0)
  end.writeUInt16LE(zip64 ? 0xffff : entries.length, 8)
  end.writeUInt16LE(zip64 ? 0xffff : entries.length, 10)
  end.writeUInt32LE(zip64 ? full : directory.length, 12)
  end.writeUInt32LE(zip64 ? full : offset, 16)
  if (!zip64) return Buffer.concat([...parts, directory, end])
  const end64 = Buffer.alloc(56)
  end64.writeUInt32LE(0x06064b50, 0)
  long(44).copy(end64, 4)
  long(entries.length).copy(end64, 24)
  long(entries.length).copy(end64, 32)
  long(directory.length).copy(end64, 40)
  long(offset).copy(end64, 48)
  const locator = Buffer.alloc(20)
  locator.writeUInt32LE(0x07064b50, 0)
  long(offset + directory.length).copy(locator, 8)
  locator.writeUInt32LE(1, 16)
  return Buffer.concat([...parts, directory, end64, locator, end])
}
