/**
 * The element types of tensor files, and bytes as JavaScript numbers. Bytes are little-endian and row-major, as files store them
 * and as every machine that Voltaic runs on has them.
 */
import { VoltaicError } from '../runtime/errors.js'

/**
 * Bits of each safetensors element type, in the format's own order: files list tensors by this order descending, then by name.
 */
export const dtypeBits = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const

export type FileDtype = keyof typeof dtypeBits

const dtypeOrder: ReadonlyMap<string, number> = new Map(
  Object.keys(dtypeBits).map((name, rank) => [name, rank]),
)

export function isFileDtype(name: string): name is FileDtype {
  return dtypeOrder.has(name)
}

/** The place of a type in the format's order. */
export function dtypeRank(dtype: FileDtype): number {
  return dtypeOrder.get(dtype) ?? 0
}

/**
 * Bytes of a tensor, or undefined when the product of the sizes passes 2^53 or does not fill whole bytes.
 * The sizes must be whole numbers, 0 or more.
 */
export function tensorByteLength(dtype: FileDtype, shape: readonly number[]): number | undefined {
  let elements = 1
  for (const size of shape) {
    elements *= size
    if (!Number.isSafeInteger(elements)) return undefined
  }
  const bits = elements * dtypeBits[dtype]
  return Number.isSafeInteger(bits) && bits % 8 === 0 ? bits / 8 : undefined
}

/** Where an array of another element type can begin. */
export interface BytesView {
  readonly buffer: ArrayBufferLike
  readonly byteOffset: number
  readonly byteLength: number
}

/** The bytes at an address that a `width`-byte element may start at: copied only where they are not aligned. */
export function aligned(bytes: Uint8Array, width: number): BytesView {
  return bytes.byteOffset % width === 0 ? bytes : bytes.slice()
}

const float32Bits = new Uint32Array(1)
const float32Value = new Float32Array(float32Bits.buffer)

/** Half precision: 1 sign, 5 exponent and 10 fraction bits, subnormals and non-numbers included. */
function halfToFloat(half: number): number {
  const sign = (half & 0x8000) << 16
  const exponent = (half >> 10) & 0x1f
  const fraction = half & 0x3ff
  if (exponent === 0) return (sign === 0 ? 1 : -1) * fraction * 2 ** -24
  float32Bits[0] = sign | ((exponent === 0x1f ? 0xff : exponent + 112) << 23) | (fraction << 13)
  return float32Value[0] as number
}

function wrongDtype(dtype: FileDtype, target: string, expected: string, where: string): VoltaicError {
  return new VoltaicError(
    'ERR_FORMAT',
    `${where}: element type ${dtype} does not convert to ${target}; expected ${expected}`,
  )
}

/**
 * Bytes as 32-bit floats. F32 that lies aligned is a view of the same memory; everything else is converted into a new array
 * (F16 and BF16 exactly, F64 rounded to nearest).
 * @param where names the file and tensor in messages
 * @throws ERR_FORMAT for element types that are no floats
 */
export function toFloat32(bytes: Uint8Array, dtype: FileDtype, where = 'tensor'): Float32Array {
  switch (dtype) {
    case 'F32': {
      const { buffer, byteOffset, byteLength } = aligned(bytes, 4)
      return new Float32Array(buffer, byteOffset, byteLength / 4)
    }
    case 'F64': {
      const { buffer, byteOffset, byteLength } = aligned(bytes, 8)
      return Float32Array.from(new Float64Array(buffer, byteOffset, byteLength / 8))
    }
    case 'F16':
    case 'BF16': {
      const { buffer, byteOffset, byteLength } = aligned(bytes, 2)
      const halves = new Uint16Array(buffer, byteOffset, byteLength / 2)
      const result = new Float32Array(halves.length)
      if (dtype === 'F16') {
        for (let i = 0; i < halves.length; i++) result[i] = halfToFloat(halves[i] as number)
      } else {
        // bfloat16 is the upper half of a float32; through the bits, so that every NaN stays what it was.
        const bits = new Uint32Array(result.buffer)
        for (let i = 0; i < halves.length; i++) bits[i] = (halves[i] as number) << 16
      }
      return result
    }
    default:
      throw wrongDtype(dtype, '32-bit floats', 'F32, F16, BF16 or F64', where)
  }
}

/**
 * Bytes as 32-bit integers. I32 that lies aligned is a view of the same memory; I64 is converted, each number checked.
 * @param where names the file and tensor in messages
 * @throws ERR_FORMAT for other element types, and for an I64 number that 32 bits cannot hold
 */
export function toInt32(bytes: Uint8Array, dtype: FileDtype, where = 'tensor'): Int32Array {
  if (dtype !== 'I32' && dtype !== 'I64') throw wrongDtype(dtype, '32-bit integers', 'I32 or I64', where)
  const { buffer, byteOffset, byteLength } = aligned(bytes, 4)
  const words = new Int32Array(buffer, byteOffset, byteLength / 4)
  if (dtype === 'I32') return words
  const result = new Int32Array(words.length / 2)
  for (let i = 0; i < result.length; i++) {
    const low = words[2 * i] as number
    const high = words[2 * i + 1] as number
    if (high !== low >> 31) {
      const value = (BigInt(high) << 32n) | BigInt(low >>> 0)
      throw new VoltaicError(
        'ERR_FORMAT',
        `${where}: element ${i} is ${value}; expected a number that 32 bits hold (-2147483648 to 2147483647)`,
      )
    }
    result[i] = low
  }
  return result
}
