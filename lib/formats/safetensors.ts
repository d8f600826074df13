/** Safetensors files, read in place from mapped memory and written as a stream. */
import type { FileHandle } from 'node:fs/promises'
import { writeFileAtomically, writeFully } from '../runtime/atomic-file.js'
import { VoltaicError } from '../runtime/errors.js'
import { type MapFileOptions, mapFile } from '../runtime/mapped-file.js'
import { compareCodePoints } from './python-json.js'
import { maxHeaderLength, readSafetensorsHeader } from './safetensors-header.js'
import { dtypeRank, type FileDtype, isFileDtype, tensorByteLength } from './tensor-data.js'
import { type SourceTensor, showName, type TensorSource, tensorSource } from './tensor-source.js'

export interface SafetensorsFile extends TensorSource {
  readonly metadata: Readonly<Record<string, string>>
}

/**
 * Opens a safetensors file. The whole header is checked before anything is handed out; the data stay in the file until read.
 * `names` come in the order of the file's header.
 * @throws ERR_IO when it cannot be read; ERR_FORMAT when any rule of the format is broken
 */
export function readSafetensors(path: string, options: MapFileOptions = {}): SafetensorsFile {
  const file = mapFile(path, options)
  try {
    const { tensors, metadata, dataOffset } = readSafetensorsHeader(file.bytes, path)
    const places = new Map<string, SourceTensor>()
    for (const [name, { dtype, shape, begin, byteLength }] of tensors) {
      const start = dataOffset + begin
      const bytes = (): Uint8Array => file.bytes.subarray(start, start + byteLength)
      places.set(name, { dtype, shape, byteLength, bytes })
    }
    return { ...tensorSource(path, places, file.close), metadata }
  } catch (error) {
    file.close()
    throw error
  }
}

export interface TensorToWrite {
  readonly name: string
  readonly dtype: FileDtype
  readonly shape: readonly number[]
  /**
   * Little-endian, row-major. A function is called when the tensor's turn comes, so that a file larger than memory can be written
   * (or one whose tensors are still on a device). `pieces` are written one after the other, each before the next is asked for.
   */
  readonly data:
    | ArrayBufferView
    | (() => ArrayBufferView | Promise<ArrayBufferView>)
    | { readonly pieces: () => Iterable<ArrayBufferView> }
}

function refuse(path: string, problem: string): never {
  throw new VoltaicError('ERR_ARGUMENT', `write ${path}: ${problem}`)
}

function checkedLength({ name, dtype, shape }: TensorToWrite, path: string): number {
  const where = `tensor ${showName(name)}`
  if (/\p{Surrogate}/u.test(name)) refuse(path, `${where}: the name has half a surrogate pair`)
  if (name === '__metadata__') refuse(path, `${where}: the format keeps this name for itself`)
  if (!isFileDtype(dtype)) refuse(path, `${where}: unknown dtype ${showName(String(dtype))}`)
  const isShape = shape.every((size) => Number.isSafeInteger(size) && size >= 0)
  const byteLength = isShape ? tensorByteLength(dtype, shape) : undefined
  return (
    byteLength ?? refuse(path, `${where}: shape [${shape.join(', ')}] of ${dtype} is no size in whole bytes`)
  )
}

interface Placed {
  readonly tensor: TensorToWrite
  readonly byteLength: number
}

function asBytes({ tensor, byteLength }: Placed, data: ArrayBufferView, path: string): Uint8Array {
  if (data.byteLength !== byteLength) {
    const { name, dtype, shape } = tensor
    refuse(
      path,
      `tensor ${showName(name)}: data of ${data.byteLength} bytes; shape [${shape.join(', ')}] of ${dtype} takes ${byteLength}`,
    )
  }
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
}

function formatHeader(order: readonly Placed[], metadata: Readonly<Record<string, string>>): Uint8Array {
  const members: string[] = []
  const metadataKeys = Object.keys(metadata).sort(compareCodePoints)
  if (metadataKeys.length > 0) {
    const pairs = metadataKeys.map((key) => `${JSON.stringify(key)}:${JSON.stringify(metadata[key])}`)
    members.push(`"__metadata__":{${pairs.join(',')}}`)
  }
  let begin = 0
  for (const { tensor, byteLength } of order) {
    const { name, dtype, shape } = tensor
    const end = begin + byteLength
    members.push(
      `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join(',')}],"data_offsets":[${begin},${end}]}`,
    )
    begin = end
  }
  const json = Buffer.from(`{${members.join(',')}}`)
  const length = Math.ceil(json.length / 8) * 8
  const header = Buffer.alloc(8 + length, 0x20)
  header.writeBigUInt64LE(BigInt(length))
  json.copy(header, 8)
  return header
}

async function writePieces(
  handle: FileHandle,
  { tensor, byteLength }: Placed,
  pieces: Iterable<ArrayBufferView>,
  path: string,
): Promise<void> {
  let written = 0
  for (const piece of pieces) {
    written += piece.byteLength
    if (written > byteLength) break
    await writeFully(handle, new Uint8Array(piece.buffer, piece.byteOffset, piece.byteLength))
  }
  if (written !== byteLength)
    refuse(
      path,
      `tensor ${showName(tensor.name)}: its pieces are not the ${byteLength} bytes of shape [${tensor.shape.join(', ')}]`,
    )
}

/**
 * Writes a safetensors file in the format's own order (element type descending, then name), byte for byte what its reference writer
 * makes of the same tensors. Atomic: the old file stays until the new one is complete and synced. Tensors are written one after
 * another; nothing is copied together.
 * @param metadata string pairs for `__metadata__`, left out when empty. Hugging Face's readers want `{ format: 'pt' }`, the default.
 * @throws ERR_ARGUMENT for a wrong tensor (twice the same name, data that do not fill the shape); ERR_IO when writing fails
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<TensorToWrite>,
  metadata: Readonly<Record<string, string>> = { format: 'pt' },
): Promise<void> {
  for (const text of Object.entries(metadata).flat()) {
    if (/\p{Surrogate}/u.test(text)) refuse(path, `metadata ${showName(text)}: half a surrogate pair`)
  }
  const order: Placed[] = []
  const names = new Set<string>()
  for (const tensor of tensors) {
    const placed = { tensor, byteLength: checkedLength(tensor, path) }
    if (names.has(tensor.name)) refuse(path, `tensor ${showName(tensor.name)} is given twice`)
    names.add(tensor.name)
    if (ArrayBuffer.isView(tensor.data)) asBytes(placed, tensor.data, path)
    order.push(placed)
  }
  order.sort(
    ({ tensor: a }, { tensor: b }) =>
      dtypeRank(b.dtype) - dtypeRank(a.dtype) || compareCodePoints(a.name, b.name),
  )
  const header = formatHeader(order, metadata)
  if (header.length - 8 > maxHeaderLength) {
    refuse(path, `the names of ${order.length} tensors make a header above ${maxHeaderLength} bytes`)
  }
  await writeFileAtomically(path, async (handle) => {
    await writeFully(handle, header)
    for (const placed of order) {
      const { data } = placed.tensor
      if (typeof data === 'function') await writeFully(handle, asBytes(placed, await data(), path))
      else if (ArrayBuffer.isView(data)) await writeFully(handle, asBytes(placed, data, path))
      else await writePieces(handle, placed, data.pieces(), path)
    }
  })
}
