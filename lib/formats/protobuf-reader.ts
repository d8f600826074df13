/** Protocol buffers, read: the fields of a message in order, nothing nested (protobuf.dev/programming-guides/encoding). */

export interface ProtobufField {
  readonly number: number
  /** Of a varint or fixed field: the number, as an unsigned one; beyond 2^53 it is no longer exact. */
  readonly value: number
  /** Of a length-delimited field: its bytes; else empty. */
  readonly bytes: Uint8Array
}

const none: Uint8Array = new Uint8Array(0)

/** Thrown for bytes that are no message; the caller says which file it was. */
export class ProtobufError extends Error {}

/** A varint at `at`; gives the number and where it ends. */
export function readVarint(bytes: Uint8Array, at: number): [value: number, end: number] {
  let value = 0
  for (let i = 0; i < 10; i++) {
    const byte = bytes[at + i]
    if (byte === undefined) break
    value += (byte & 0x7f) * 2 ** (7 * i)
    if (byte < 0x80) return [value, at + i + 1]
  }
  throw new ProtobufError('a number does not end')
}

/** The fields of a message. */
export function* protobufFields(bytes: Uint8Array): Generator<ProtobufField> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let at = 0
  while (at < bytes.length) {
    const [key, start] = readVarint(bytes, at)
    const number = Math.floor(key / 8)
    const type = key % 8
    let value = 0
    let content: Uint8Array = none
    if (type === 0) [value, at] = readVarint(bytes, start)
    else if (type === 2) {
      const [length, from] = readVarint(bytes, start)
      at = from + length
      content = bytes.subarray(from, at)
    } else if (type === 5 || type === 1) {
      at = start + (type === 5 ? 4 : 8)
      if (at > bytes.length) break
      value = view.getUint32(start, true)
      if (type === 1) value += view.getUint32(start + 4, true) * 2 ** 32
    } else throw new ProtobufError(`a field has the unknown type ${type}`)
    if (at > bytes.length) break
    yield { number, value, bytes: content }
  }
  if (at > bytes.length) throw new ProtobufError('a field is cut short')
}
