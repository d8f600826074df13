/**
 * `pytorch_model.bin` in both of its layouts, as tensors by name.
 *
 * Zip (PyTorch 1.6 and later): ROOT/data.pkl is the state dict's pickle, ROOT/data/KEY the bytes of each storage.
 * Legacy: pickles one after the other (a magic number, the version 1001, the writer's system, the state dict, the list of storage
 * keys), then for each key in that order the number of elements, int64, and the bytes.
 *
 * Tensors that lie in their storage as they are read, row by row, are views of the mapped file; others are gathered when asked for.
 */
import { VoltaicError } from '../runtime/errors.js'
import { type MapFileOptions, mapFile } from '../runtime/mapped-file.js'
import { PickleDict, PickleList, type PickleMeaning, type PickleValue, readPickle } from './pickle.js'
import { readStateDict, type Storage, type TensorView } from './pytorch-pickle.js'
import { dtypeBits } from './tensor-data.js'
import { type SourceTensor, showName, type TensorSource, tensorSource } from './tensor-source.js'
import { readZip, type ZipArchive } from './zip/archive.js'

type StorageBytes = (storage: Storage) => Uint8Array

interface Content {
  readonly tensors: ReadonlyMap<string, TensorView>
  readonly bytesOf: StorageBytes
}

/** The pickled number 0x1950a86a20f9469cfc6c that starts a legacy file. */
const legacyMagic = Uint8Array.of(
  0x80,
  2,
  0x8a,
  10,
  0x6c,
  0xfc,
  0x9c,
  0x46,
  0xf9,
  0x20,
  0x6a,
  0xa8,
  0x50,
  0x19,
  0x2e,
)
const legacyVersion = 1001

function refuse(path: string, problem: string): never {
  throw new VoltaicError(
    'ERR_FORMAT',
    `${path}: ${problem}. The file is damaged or no PyTorch file; copy or save it again`,
  )
}

function startsWith(bytes: Uint8Array, start: Uint8Array): boolean {
  return start.every((byte, i) => bytes[i] === byte)
}

/** Plain values only. */
const plainData = (path: string): PickleMeaning => ({
  global: (name) => refuse(path, `its head asks for ${showName(name)}; expected plain numbers`),
  persistent: () => refuse(path, 'its head asks for a storage; expected plain numbers'),
})

function rootOf(archive: ZipArchive, path: string): string {
  const pickles = archive.names.filter((name) => /^[^/]+\/data\.pkl$/.test(name))
  const [pickle] = pickles
  if (pickle === undefined || pickles.length > 1)
    refuse(path, `${pickles.length} entries named ROOT/data.pkl; expected one`)
  return pickle.slice(0, -'data.pkl'.length)
}

function readZipLayout(bytes: Uint8Array, path: string): Content {
  const archive = readZip(bytes, path)
  const root = rootOf(archive, path)
  const order = `${root}byteorder`
  if (archive.has(order) && new TextDecoder().decode(archive.bytes(order)) !== 'little')
    refuse(path, 'its numbers are not little-endian')
  const { tensors, storages } = readStateDict(archive.bytes(`${root}data.pkl`), 0, path)
  const entryOf = ({ key }: Storage): string => `${root}data/${key}`
  for (const storage of storages.values()) {
    const { key, byteLength } = storage
    const found = archive.byteLength(entryOf(storage))
    if (found !== byteLength)
      refuse(path, `storage ${showName(key)} has ${found} bytes; expected ${byteLength}`)
  }
  return { tensors, bytesOf: (storage) => archive.bytes(entryOf(storage)) }
}

function isLittleEndian(system: PickleValue): boolean {
  return system instanceof PickleDict && system.entries.get('little_endian') === true
}

function readLegacyLayout(bytes: Uint8Array, path: string): Content {
  const plain = plainData(path)
  const version = readPickle(bytes, legacyMagic.length, path, plain)
  if (version.value !== legacyVersion) refuse(path, `its legacy layout is not of version ${legacyVersion}`)
  const system = readPickle(bytes, version.end, path, plain)
  if (!isLittleEndian(system.value)) refuse(path, 'its numbers are not little-endian')
  const { tensors, storages, end } = readStateDict(bytes, system.end, path)
  const keys = readPickle(bytes, end, path, plain)
  if (!(keys.value instanceof PickleList)) refuse(path, 'the list of storages is missing')

  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const starts = new Map<Storage, number>()
  let at = keys.end
  for (const key of keys.value.items) {
    const storage = typeof key === 'string' ? storages.get(key) : undefined
    if (storage === undefined || starts.has(storage))
      refuse(path, 'the list of storages is not that of the tensors')
    if (at + 8 + storage.byteLength > bytes.byteLength)
      refuse(path, `it is cut short in storage ${showName(storage.key)}`)
    const elements = view.getBigInt64(at, true)
    if (elements !== BigInt(storage.elements))
      refuse(path, `storage ${showName(storage.key)} has ${elements} elements; expected ${storage.elements}`)
    starts.set(storage, at + 8)
    at += 8 + storage.byteLength
  }
  for (const storage of storages.values()) {
    if (!starts.has(storage)) refuse(path, `storage ${showName(storage.key)} is not in the list of storages`)
  }
  const bytesOf = (storage: Storage): Uint8Array => {
    const start = starts.get(storage) as number
    return bytes.subarray(start, start + storage.byteLength)
  }
  return { tensors, bytesOf }
}

/** Whether the elements stand one after the other in row-major order; an axis of size 1 may have any stride. */
function isContiguous({ shape, strides }: TensorView): boolean {
  let expected = 1
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const size = shape[axis] as number
    if (size === 0) return true
    if (size !== 1 && strides[axis] !== expected) return false
    expected *= size
  }
  return true
}

/** The view's elements in row-major order, each `width` bytes. */
function gather(
  { shape, strides, offset }: TensorView,
  source: Uint8Array,
  width: number,
  length: number,
): Uint8Array {
  const result = new Uint8Array(length)
  const place = shape.map(() => 0)
  let from = offset
  for (let to = 0; to < length; to += width) {
    const start = from * width
    for (let i = 0; i < width; i++) result[to + i] = source[start + i] as number
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const stride = strides[axis] as number
      const next = (place[axis] as number) + 1
      if (next < (shape[axis] as number)) {
        place[axis] = next
        from += stride
        break
      }
      from -= (next - 1) * stride
      place[axis] = 0
    }
  }
  return result
}

function tensorOfView(view: TensorView, bytesOf: StorageBytes): SourceTensor {
  const { storage, shape, offset } = view
  const { dtype } = storage
  const width = dtypeBits[dtype] / 8
  const byteLength = shape.reduce((product, size) => product * size, width)
  const bytes = (): Uint8Array => {
    const source = bytesOf(storage)
    return isContiguous(view)
      ? source.subarray(offset * width, offset * width + byteLength)
      : gather(view, source, width, byteLength)
  }
  return { dtype, shape, byteLength, bytes }
}

/**
 * Opens a PyTorch file that holds a state dict. The pickle inside is read, not run: whatever it names beside tensors is refused.
 * The data stay in the file until read.
 * @throws ERR_IO when it cannot be read; ERR_FORMAT when it is damaged, hostile, or holds anything else than named tensors
 */
export function readPytorchCheckpoint(path: string, options: MapFileOptions = {}): TensorSource {
  const file = mapFile(path, options)
  try {
    const { bytes } = file
    const isZip = bytes[0] === 0x50 && bytes[1] === 0x4b
    if (!isZip && !startsWith(bytes, legacyMagic))
      refuse(path, 'it starts neither as a zip archive nor with the magic number of the legacy layout')
    const { tensors, bytesOf } = isZip ? readZipLayout(bytes, path) : readLegacyLayout(bytes, path)
    // A closed file says so, instead of looking damaged.
    const whileOpen = (storage: Storage): Uint8Array => (file.bytes === bytes ? bytesOf(storage) : bytes)
    const places = new Map<string, SourceTensor>()
    for (const [name, view] of tensors) places.set(name, tensorOfView(view, whileOpen))
    return tensorSource(path, places, file.close)
  } catch (error) {
    file.close()
    throw error
  }
}
