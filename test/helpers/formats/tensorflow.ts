/** TensorFlow checkpoints for tests: a writer of the bundle format and of the table that its index is, from their descriptions. */
import { writeFileSync } from 'node:fs'
import { maskedCrc32c } from '../../../dist/formats/crc32c.js'

export interface Variable {
  readonly name: string
  readonly data: Uint8Array
  readonly shape: readonly number[]
  /** Default 1: float32. */
  readonly dtype?: number
  /** Which data file. Default 0. */
  readonly shard?: number
  /** Fields of the entry that are said instead of the true ones. */
  readonly claims?: {
    readonly offset?: number
    readonly size?: number
    readonly crc?: number
    readonly sliced?: boolean
  }
}

export function varint(value: number): Buffer {
  const bytes: number[] = []
  let rest = value
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80)
  return Buffer.from([...bytes, rest])
}

const number = (field: number, value: number): Buffer => Buffer.concat([varint(field * 8), varint(value)])
const message = (field: number, ...parts: Uint8Array[]): Buffer => {
  const content = Buffer.concat(parts)
  return Buffer.concat([varint(field * 8 + 2), varint(content.length), content])
}

/** Literals only, which is a valid way to pack. */
export function packSnappy(bytes: Uint8Array): Buffer {
  const parts = [varint(bytes.length)]
  for (let at = 0; at < bytes.length; at += 60) {
    const piece = bytes.subarray(at, at + 60)
    parts.push(Buffer.of((piece.length - 1) << 2), Buffer.from(piece))
  }
  return Buffer.concat(parts)
}

function block(entries: readonly [key: Buffer, value: Buffer][]): Buffer {
  const parts: Buffer[] = []
  let last: Buffer = Buffer.alloc(0)
  for (const [key, value] of entries) {
    let shared = 0
    while (shared < Math.min(key.length, last.length) && key[shared] === last[shared]) shared += 1
    parts.push(varint(shared), varint(key.length - shared), varint(value.length), key.subarray(shared), value)
    last = key
  }
  // One restart point, at the start.
  return Buffer.concat([...parts, Buffer.alloc(4), Buffer.of(1, 0, 0, 0)])
}

export interface TableOptions {
  readonly snappy?: boolean
  /** Entries in a data block. */
  readonly perBlock?: number
  /** Changes a block before its checksum is computed. */
  readonly damage?: (block: Buffer) => Buffer
}

export function writeTable(
  entries: readonly [key: string, value: Buffer][],
  { snappy = false, perBlock = 8, damage = (block) => block }: TableOptions = {},
): Buffer {
  const parts: Buffer[] = []
  let offset = 0
  const add = (content: Buffer): Buffer => {
    const packed = damage(snappy ? packSnappy(content) : content)
    const typed = Buffer.concat([packed, Buffer.of(snappy ? 1 : 0)])
    const crc = Buffer.alloc(4)
    crc.writeUInt32LE(maskedCrc32c(typed))
    parts.push(typed, crc)
    const handle = Buffer.concat([varint(offset), varint(packed.length)])
    offset += typed.length + 4
    return handle
  }
  const sorted = entries
    .map(([key, value]): [Buffer, Buffer] => [Buffer.from(key), value])
    .sort(([a], [b]) => Buffer.compare(a, b))
  const index: [Buffer, Buffer][] = []
  for (let at = 0; at < sorted.length; at += perBlock) {
    const piece = sorted.slice(at, at + perBlock)
    index.push([piece.at(-1)![0], add(block(piece))])
  }
  const meta = add(block([]))
  const handles = Buffer.concat([meta, add(block(index))])
  const footer = Buffer.alloc(48)
  handles.copy(footer)
  footer.writeUInt32LE(0x8b80fb57, 40)
  footer.writeUInt32LE(0xdb477524, 44)
  return Buffer.concat([...parts, footer])
}

/** The index of a checkpoint and its data files. */
export function writeBundle(
  variables: readonly Variable[],
  options: TableOptions & { readonly shards?: number } = {},
): { index: Buffer; data: Buffer[] } {
  const { shards = 1 } = options
  const data = Array.from({ length: shards }, () => [] as Uint8Array[])
  const lengths = data.map(() => 0)
  const entries = variables.map((variable): [string, Buffer] => {
    const { name, shape, dtype = 1, shard = 0, claims = {} } = variable
    const offset = lengths[shard]!
    data[shard]!.push(variable.data)
    lengths[shard] = offset + variable.data.length
    const crc = Buffer.alloc(4)
    crc.writeUInt32LE(claims.crc ?? maskedCrc32c(variable.data))
    const entry = Buffer.concat([
      number(1, dtype),
      message(2, ...shape.map((size) => message(2, number(1, size)))),
      number(3, shard),
      number(4, claims.offset ?? offset),
      number(5, claims.size ?? variable.data.length),
      Buffer.of(6 * 8 + 5),
      crc,
      ...(claims.sliced ? [message(7, number(1, 1))] : []),
    ])
    return [name, entry]
  })
  const header = Buffer.concat([number(1, shards), message(3, number(1, 1))])
  return {
    index: writeTable([['', header], ...entries], options),
    data: data.map((parts) => Buffer.concat(parts)),
  }
}

export function writeCheckpoint(
  prefix: string,
  variables: readonly Variable[],
  options: TableOptions & { readonly shards?: number } = {},
): void {
  const { index, data } = writeBundle(variables, options)
  writeFileSync(`${prefix}.index`, index)
  const padded = (value: number): string => String(value).padStart(5, '0')
  for (const [shard, content] of data.entries()) {
    writeFileSync(`${prefix}.data-${padded(shard)}-of-${padded(data.length)}`, content)
  }
}
