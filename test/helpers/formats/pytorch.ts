/** State dicts as PyTorch files for tests: the pickle's opcodes by hand, in both layouts. */
import type { FileDtype } from '../../../dist/formats/tensor-data.js'
import { writeZip, type ZipEntry } from './zip.js'

export interface TensorToPickle {
  readonly name: string
  readonly dtype: FileDtype
  readonly shape: readonly number[]
  readonly data: Uint8Array
  /** Tensors with the same key share a storage. Default: the name. */
  readonly key?: string
  readonly offset?: number
  readonly strides?: readonly number[]
}

const storageNames: Partial<Record<FileDtype, string>> = {
  F32: 'FloatStorage',
  F16: 'HalfStorage',
  BF16: 'BFloat16Storage',
  F64: 'DoubleStorage',
  I64: 'LongStorage',
}
const widths: Partial<Record<FileDtype, number>> = { F32: 4, F16: 2, BF16: 2, F64: 8, I64: 8 }

export type PicklePart = number | string | Uint8Array

/** Opcodes as bytes: numbers as they are, strings as ASCII. */
export function pickle(...parts: readonly PicklePart[]): Buffer {
  return Buffer.concat(
    parts.map((part) => (typeof part === 'number' ? Buffer.of(part) : Buffer.from(part as string))),
  )
}

export function text(value: string): Buffer {
  const bytes = Buffer.from(value)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(bytes.length)
  return Buffer.concat([Buffer.from('X'), length, bytes])
}

export function integer(value: number): Buffer {
  const bytes = Buffer.alloc(9)
  bytes.writeBigInt64LE(BigInt(value), 1)
  bytes[0] = 8
  return Buffer.concat([Buffer.of(0x8a), bytes])
}

const tuple = (...items: readonly Uint8Array[]): Buffer => pickle('(', ...items, 't')
export const global = (module: string, name: string): Buffer => Buffer.from(`c${module}\n${name}\n`)

function rowMajor(shape: readonly number[]): number[] {
  const strides = shape.map(() => 1)
  for (let axis = shape.length - 2; axis >= 0; axis--) strides[axis] = strides[axis + 1]! * shape[axis + 1]!
  return strides
}

export function storageId(tensor: TensorToPickle, legacy: boolean): Buffer {
  const { name, key = name, dtype, data } = tensor
  const items = [
    text('storage'),
    global('torch', storageNames[dtype]!),
    text(key),
    text('cpu'),
    integer(data.byteLength / widths[dtype]!),
  ]
  return pickle(tuple(...items, ...(legacy ? [Buffer.from('N')] : [])), 'Q')
}

/** A state dict's pickle, protocol 2. */
export function pickleStateDict(tensors: readonly TensorToPickle[], { legacy = false } = {}): Buffer {
  const members = tensors.flatMap((tensor) => {
    const { name, shape, offset = 0, strides = rowMajor(shape) } = tensor
    return [
      text(name),
      global('torch._utils', '_rebuild_tensor_v2'),
      tuple(
        storageId(tensor, legacy),
        integer(offset),
        tuple(...shape.map(integer)),
        tuple(...strides.map(integer)),
        Buffer.of(0x89),
        pickle(global('collections', 'OrderedDict'), ')R'),
      ),
      Buffer.from('R'),
    ]
  })
  return pickle(0x80, 2, global('collections', 'OrderedDict'), ')R(', ...members, 'u.')
}

function storagesOf(tensors: readonly TensorToPickle[]): Map<string, TensorToPickle> {
  return new Map(tensors.map((tensor) => [tensor.key ?? tensor.name, tensor]))
}

export function zipEntries(pickled: Uint8Array, tensors: readonly TensorToPickle[]): ZipEntry[] {
  const storages = [...storagesOf(tensors)]
  return [
    { name: 'archive/data.pkl', data: pickled },
    ...storages.map(([key, { data }]) => ({ name: `archive/data/${key}`, data })),
    { name: 'archive/byteorder', data: Buffer.from('little') },
    { name: 'archive/version', data: Buffer.from('3\n') },
  ]
}

export function writeZipCheckpoint(tensors: readonly TensorToPickle[]): Buffer {
  return writeZip(zipEntries(pickleStateDict(tensors), tensors))
}

const magic = Buffer.from('80028a0a6cfc9c46f9206aa850192e', 'hex')

/** Magic number, version 1001 and the writer's system. */
export const legacyHead: Buffer = Buffer.concat([
  magic,
  pickle(0x80, 2, 0x4d, 0xe9, 0x03, '.'),
  pickle(0x80, 2, '}(', text('protocol_version'), 0x4d, 0xe9, 0x03, text('little_endian'), 0x88, 'u.'),
])

export function writeLegacyCheckpoint(
  tensors: readonly TensorToPickle[],
  pickled: Uint8Array = pickleStateDict(tensors, { legacy: true }),
): Buffer {
  const storages = [...storagesOf(tensors)]
  const contents = storages.flatMap(([, { data, dtype }]) => {
    const count = Buffer.alloc(8)
    count.writeBigInt64LE(BigInt(data.byteLength / widths[dtype]!))
    return [count, data]
  })
  const keys = pickle(0x80, 2, '](', ...storages.map(([key]) => text(key)), 'e.')
  return Buffer.concat([legacyHead, pickled, keys, ...contents])
}
