/**
 * TensorFlow checkpoints in the bundle format that `tf.train.Saver` writes: PREFIX.index, a table from variable names to where they
 * are (type, shape, shard, offset, size, checksum), and PREFIX.data-00000-of-0000N with the plain numbers.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { VoltaicError } from '../runtime/errors.js'
import { ioError, type MapFileOptions, type MappedFile, mapFile } from '../runtime/mapped-file.js'
import { maskedCrc32c } from './crc32c.js'
import { ProtobufError, type ProtobufField, protobufFields } from './protobuf-reader.js'
import { type FileDtype, tensorByteLength } from './tensor-data.js'
import { type SourceTensor, showName, type TensorSource, tensorSource } from './tensor-source.js'
import { readTable } from './tensorflow-table.js'

/** tensorflow/core/framework/types.proto; what is not here (strings, say) is no weight. */
const dtypes: Readonly<Record<number, FileDtype>> = {
  1: 'F32',
  2: 'F64',
  3: 'I32',
  4: 'U8',
  5: 'I16',
  6: 'I8',
  9: 'I64',
  10: 'BOOL',
  14: 'BF16',
  19: 'F16',
}

const mostShards = 100_000
const mostAxes = 64

/** BundleEntryProto. */
interface Entry {
  readonly dtype: number
  readonly shape: readonly number[]
  readonly shard: number
  readonly offset: number
  readonly byteLength: number
  readonly checksum: number
  readonly isSliced: boolean
}

class BundleReader {
  constructor(readonly path: string) {}

  refuse(problem: string): never {
    throw new VoltaicError('ERR_FORMAT', `${this.path}: ${problem}. The checkpoint is damaged; copy it again`)
  }

  fields(bytes: Uint8Array, what: string): ProtobufField[] {
    try {
      return [...protobufFields(bytes)]
    } catch (error) {
      if (error instanceof ProtobufError) this.refuse(`${what}: ${error.message}`)
      throw error
    }
  }

  /** BundleHeaderProto: 1 num_shards, 2 endianness. */
  shards(bytes: Uint8Array | undefined): number {
    if (bytes === undefined) this.refuse('the header is missing')
    let shards = 0
    for (const { number, value } of this.fields(bytes, 'header')) {
      if (number === 1) shards = value
      if (number === 2 && value !== 0) this.refuse('its numbers are not little-endian')
    }
    if (shards < 1 || shards > mostShards) this.refuse(`the header says ${shards} files of data`)
    return shards
  }

  /** TensorShapeProto: 2 dim, and in it 1 size. */
  shape(bytes: Uint8Array, what: string): number[] {
    const dims = this.fields(bytes, what).filter(({ number }) => number === 2)
    if (dims.length > mostAxes) this.refuse(`${what}: ${dims.length} axes`)
    return dims.map((dim) => {
      const size = this.fields(dim.bytes, what).find(({ number }) => number === 1)?.value ?? 0
      return Number.isSafeInteger(size) ? size : this.refuse(`${what}: a size is larger than any file`)
    })
  }

  /** BundleEntryProto: 1 dtype, 2 shape, 3 shard_id, 4 offset, 5 size, 6 crc32c, 7 slices. */
  entry(bytes: Uint8Array, what: string): Entry {
    const fields = this.fields(bytes, what)
    const value = (wanted: number): number => fields.find(({ number }) => number === wanted)?.value ?? 0
    const shape = fields.find(({ number }) => number === 2)
    return {
      dtype: value(1),
      shape: shape === undefined ? [] : this.shape(shape.bytes, what),
      shard: value(3),
      offset: value(4),
      byteLength: value(5),
      checksum: value(6),
      isSliced: fields.some(({ number }) => number === 7),
    }
  }
}

function shardPath(prefix: string, shard: number, shards: number): string {
  const padded = (value: number): string => String(value).padStart(5, '0')
  return `${prefix}.data-${padded(shard)}-of-${padded(shards)}`
}

/**
 * Opens a checkpoint by its prefix (`…/model.ckpt-1000000`). Names are TensorFlow's variable names. Variables of types that are no
 * numbers are left out. A tensor's checksum is compared each time its bytes are asked for.
 * @throws ERR_IO when a file cannot be read; ERR_FORMAT when one is damaged
 */
export function readTensorflowCheckpoint(prefix: string, options: MapFileOptions = {}): TensorSource {
  const indexPath = `${prefix}.index`
  const opened: MappedFile[] = []
  const close = (): void => {
    for (const file of opened) file.close()
  }
  try {
    using index = mapFile(indexPath, options)
    const reader = new BundleReader(indexPath)
    const table = readTable(index.bytes, indexPath)
    const shards = reader.shards(table.get(''))
    const files = new Map<number, MappedFile>()
    const fileOf = (shard: number): MappedFile => {
      let file = files.get(shard)
      if (file === undefined) {
        file = mapFile(shardPath(prefix, shard, shards), options)
        opened.push(file)
        files.set(shard, file)
      }
      return file
    }
    const tensors = new Map<string, SourceTensor>()
    for (const [name, value] of table) {
      if (name === '') continue
      const what = `variable ${showName(name)}`
      const { dtype: type, shape, shard, offset, byteLength, checksum, isSliced } = reader.entry(value, what)
      const dtype = dtypes[type]
      if (dtype === undefined) continue
      if (isSliced) {
        throw new VoltaicError(
          'ERR_FORMAT',
          `${indexPath}: ${what} is in slices, as a run over several machines saves it; save it again from one`,
        )
      }
      if (shard >= shards) reader.refuse(`${what} is said to be in file ${shard} of ${shards}`)
      if (tensorByteLength(dtype, shape) !== byteLength)
        reader.refuse(`${what}: ${byteLength} bytes are not those of shape [${shape.join(', ')}] of ${dtype}`)
      const file = fileOf(shard)
      if (offset + byteLength > file.byteLength) {
        reader.refuse(
          `${what} ends at byte ${offset + byteLength} of ${basename(file.path)}, which has ${file.byteLength}`,
        )
      }
      const bytes = (): Uint8Array => {
        const content = file.bytes.subarray(offset, offset + byteLength)
        if (maskedCrc32c(content) !== checksum)
          reader.refuse(`${what} has another checksum than it was written with`)
        return content
      }
      tensors.set(name, { dtype, shape, byteLength, bytes })
    }
    return tensorSource(indexPath, tensors, close)
  } catch (error) {
    close()
    throw error
  }
}

const endings = /\.(index|meta|data-\d{5}-of-\d{5})$/

/**
 * The prefix of the checkpoint that a path means: the prefix itself, one of its files, or a folder (the file `checkpoint` in it names
 * the last one saved; else there must be only one). Undefined when the path means none.
 */
export function findTensorflowCheckpoint(path: string): string | undefined {
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) {
    const prefix = path.replace(endings, '')
    return existsSync(`${prefix}.index`) ? prefix : undefined
  }
  let names: string[]
  let state = ''
  try {
    names = readdirSync(path).filter((name) => name.endsWith('.index'))
    const statePath = join(path, 'checkpoint')
    // The file is a few lines of text; a large one is something else.
    if (
      names.length > 0 &&
      (statSync(statePath, { throwIfNoEntry: false })?.size ?? Number.POSITIVE_INFINITY) < 2 ** 20
    )
      state = readFileSync(statePath, 'utf8')
  } catch (cause) {
    throw ioError('read', path, cause)
  }
  const last = /^model_checkpoint_path:\s*"([^"]+)"/m.exec(state)?.[1]
  const name = last === undefined ? undefined : `${basename(last)}.index`
  if (name !== undefined && names.includes(name)) return join(path, name.replace(endings, ''))
  if (names.length > 1) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `${path}: holds ${names.length} TensorFlow checkpoints (${names.slice(0, 3).join(', ')}…); name one of them by its path`,
    )
  }
  return names[0] === undefined ? undefined : join(path, names[0].replace(endings, ''))
}
