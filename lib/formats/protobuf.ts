/**
 * Protocol buffers, as far as they are written here: each function gives a field's bytes, and a message is its fields one after the
 * other (protobuf.dev/programming-guides/encoding).
 */
const varintType = 0
const doubleType = 1
const bytesType = 2
const floatType = 5

/** A whole number, 0 or more, in groups of seven bits, low ones first. */
function varint(value: number): Buffer {
  const bytes: number[] = []
  let rest = value
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) | 0x80)
    rest = Math.floor(rest / 0x80)
  }
  bytes.push(rest)
  return Buffer.from(bytes)
}

/** A number below 0 as int64 has it: two's complement, ten bytes. */
function negativeVarint(value: number): Buffer {
  let rest = BigInt.asUintN(64, BigInt(value))
  const bytes = Array.from({ length: 9 }, () => {
    const low = Number(rest & 0x7fn)
    rest >>= 7n
    return low | 0x80
  })
  return Buffer.from([...bytes, Number(rest)])
}

const key = (field: number, type: number): Buffer => varint((field << 3) | type)

/** int32, int64 or an enumeration: a whole number that a double holds exactly. */
export function integerField(field: number, value: number): Buffer {
  return Buffer.concat([key(field, varintType), value < 0 ? negativeVarint(value) : varint(value)])
}

export function doubleField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeDoubleLE(value)
  return Buffer.concat([key(field, doubleType), bytes])
}

export function floatField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeFloatLE(value)
  return Buffer.concat([key(field, floatType), bytes])
}

/** What stands before the content of bytes, a string or a message. */
export function lengthPrefix(field: number, byteLength: number): Buffer {
  return Buffer.concat([key(field, bytesType), varint(byteLength)])
}

/** bytes, a string, or a message of the fields given. */
export function bytesField(field: number, ...content: readonly (string | Uint8Array)[]): Buffer {
  const parts = content.map((part) => (typeof part === 'string' ? Buffer.from(part) : part))
  const byteLength = parts.reduce((sum, part) => sum + part.byteLength, 0)
  return Buffer.concat([lengthPrefix(field, byteLength), ...parts])
}
