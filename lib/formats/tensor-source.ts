/** Named tensors that come from somewhere: one file of any format, several read as one, or a file's tensors under other names. */
import { VoltaicError } from '../runtime/errors.js'
import { type FileDtype, toFloat32, toInt32 } from './tensor-data.js'

/** What a tensor is. */
export interface TensorInfo {
  readonly dtype: FileDtype
  readonly shape: readonly number[]
  readonly byteLength: number
}

export interface TensorSource {
  readonly path: string
  readonly names: readonly string[]
  has(name: string): boolean
  /** Throws ERR_ARGUMENT for a name that is not there. */
  info(name: string): TensorInfo
  /** The tensor's bytes, little-endian and row-major: a view of the file where it has them so, of length 0 after `close`. */
  bytes(name: string): Uint8Array
  /** Converted from F32, F16, BF16 or F64; a view where nothing has to be converted. */
  float32(name: string): Float32Array
  /** Converted from I32 or I64, range-checked; a view where nothing has to be converted. */
  int32(name: string): Int32Array
  /** Gives the memory back. Views end here: copy what must live on. */
  close(): void
  [Symbol.dispose](): void
}

/** One tensor of a source. */
export interface SourceTensor extends TensorInfo {
  bytes(): Uint8Array
}

/** A name for messages: quoted, and cut where it is long. */
export function showName(name: string): string {
  return JSON.stringify(name.length > 120 ? `${name.slice(0, 120)}…` : name)
}

/** The tensors of a map as a source; `path` names it in messages. */
export function tensorSource(
  path: string,
  tensors: ReadonlyMap<string, SourceTensor>,
  close: () => void,
): TensorSource {
  const at = (name: string): SourceTensor => {
    const tensor = tensors.get(name)
    if (tensor !== undefined) return tensor
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `${path}: holds no tensor ${showName(name)}; it holds ${tensors.size} others`,
    )
  }
  const where = (name: string): string => `${path}: tensor ${showName(name)}`
  return {
    path,
    names: [...tensors.keys()],
    has: (name) => tensors.has(name),
    info(name) {
      const { dtype, shape, byteLength } = at(name)
      return { dtype, shape, byteLength }
    },
    bytes: (name) => at(name).bytes(),
    float32: (name) => toFloat32(at(name).bytes(), at(name).dtype, where(name)),
    int32: (name) => toInt32(at(name).bytes(), at(name).dtype, where(name)),
    close,
    [Symbol.dispose]: close,
  }
}

/** A tensor of a source, to put it into another one under another name. */
export function tensorOf(source: TensorSource, name: string): SourceTensor {
  return { ...source.info(name), bytes: () => source.bytes(name) }
}
