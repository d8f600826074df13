/**
 * The pickle of a PyTorch state dict: an OrderedDict from names to tensors, each a view (offset, sizes, strides) of a storage that
 * the file keeps beside the pickle. The globals listed here are all that such a pickle needs; every other one is refused by name.
 */
import { VoltaicError } from '../runtime/errors.js'
import {
  PickleCallable,
  PickleDict,
  PickleList,
  PickleObject,
  PickleTuple,
  type PickleValue,
  readPickle,
} from './pickle.js'
import { dtypeBits, type FileDtype } from './tensor-data.js'
import { showName } from './tensor-source.js'

/** A run of elements in the file, shared by the tensors that are views of it. */
export class Storage extends PickleObject {
  readonly kind = 'storage'

  constructor(
    readonly key: string,
    readonly dtype: FileDtype,
    readonly elements: number,
  ) {
    super()
  }

  get byteLength(): number {
    return (this.elements * dtypeBits[this.dtype]) / 8
  }
}

/** A view of a storage; `offset` and `strides` count elements. */
export class TensorView extends PickleObject {
  readonly kind = 'tensor'

  constructor(
    readonly storage: Storage,
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {
    super()
  }
}

export interface PytorchStateDict {
  readonly tensors: ReadonlyMap<string, TensorView>
  /** By key. */
  readonly storages: ReadonlyMap<string, Storage>
  /** Where the pickle ends. */
  readonly end: number
}

/** More axes than any library has. */
const mostAxes = 64
/** Items that Python 2's form of an OrderedDict may hold, all of them together. */
const mostListedItems = 100_000

const storageTypes: Readonly<Record<string, FileDtype>> = {
  FloatStorage: 'F32',
  HalfStorage: 'F16',
  BFloat16Storage: 'BF16',
  DoubleStorage: 'F64',
  LongStorage: 'I64',
  IntStorage: 'I32',
  ShortStorage: 'I16',
  CharStorage: 'I8',
  ByteStorage: 'U8',
  BoolStorage: 'BOOL',
}

class StorageType extends PickleObject {
  readonly kind = 'storage type'

  constructor(readonly dtype: FileDtype) {
    super()
  }
}

class Callable extends PickleCallable {
  readonly kind = 'function'

  constructor(readonly call: (args: readonly PickleValue[]) => PickleValue) {
    super()
  }
}

const isCount = (value: PickleValue | undefined): value is number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0

class StateDictReader {
  readonly storages = new Map<string, Storage>()
  #listed = 0
  readonly #globals: ReadonlyMap<string, PickleObject>

  constructor(readonly path: string) {
    const globals = new Map<string, PickleObject>([
      ['collections.OrderedDict', new Callable((args) => this.#dict(args))],
      ['torch._utils._rebuild_tensor_v2', new Callable((args) => this.#tensor(args))],
      ['torch._utils._rebuild_parameter', new Callable((args) => this.#parameter(args))],
      ['torch.Size', new Callable(([sizes = null]) => sizes)],
    ])
    for (const [name, dtype] of Object.entries(storageTypes)) {
      globals.set(`torch.${name}`, new StorageType(dtype))
    }
    this.#globals = globals
  }

  refuse(problem: string): never {
    throw new VoltaicError(
      'ERR_FORMAT',
      `${this.path}: ${problem}. The file is damaged or not a state dict; save the model again`,
    )
  }

  global(name: string): PickleObject {
    const found = this.#globals.get(name)
    if (found !== undefined) return found
    throw new VoltaicError(
      'ERR_FORMAT',
      `${this.path}: the pickle asks for ${showName(name)}, which no tensor needs, so it is not read: a pickle can run any program. ` +
        'If you trust the file, load it in Python and save its state dict alone (or as safetensors)',
    )
  }

  /** ("storage", type, key, location, elements), and in the legacy layout a sixth that tells views of storages, always None now. */
  persistent(id: PickleValue): Storage {
    const [tag, type, key, , elements, view = null] = id instanceof PickleTuple ? id.items : []
    if (tag !== 'storage' || !(type instanceof StorageType) || typeof key !== 'string' || !isCount(elements))
      this.refuse('a storage is not described as PyTorch does')
    if (view !== null)
      this.refuse(`storage ${showName(key)} is a view of another, as versions before 0.4 wrote`)
    const earlier = this.storages.get(key)
    if (earlier !== undefined) {
      if (earlier.dtype !== type.dtype || earlier.elements !== elements)
        this.refuse(`storage ${showName(key)} is described twice, differently`)
      return earlier
    }
    const storage = new Storage(key, type.dtype, elements)
    if (!Number.isSafeInteger(storage.byteLength))
      this.refuse(`storage ${showName(key)} has ${elements} elements`)
    this.storages.set(key, storage)
    return storage
  }

  /** Empty, or in Python 2's form from a list of pairs. */
  #dict([pairs]: readonly PickleValue[]): PickleDict {
    const dict = new PickleDict()
    if (pairs === undefined) return dict
    if (!(pairs instanceof PickleList)) this.refuse('an OrderedDict is not made of a list')
    this.#listed += pairs.items.length
    if (this.#listed > mostListedItems) this.refuse(`more than ${mostListedItems} items in OrderedDicts`)
    for (const pair of pairs.items) {
      const items = pair instanceof PickleTuple || pair instanceof PickleList ? pair.items : []
      if (items.length !== 2) this.refuse('an OrderedDict is not made of pairs')
      dict.entries.set(items[0] as PickleValue, items[1] as PickleValue)
    }
    return dict
  }

  #counts(value: PickleValue | undefined, what: string): number[] {
    if (!(value instanceof PickleTuple) || value.items.length > mostAxes || !value.items.every(isCount))
      this.refuse(`a tensor's ${what} are not a tuple of at most ${mostAxes} whole numbers, 0 or more`)
    return value.items as number[]
  }

  /** (storage, offset, sizes, strides, requires_grad, hooks). What the tensor covers must lie in its storage. */
  #tensor([storage, offset, sizes, steps]: readonly PickleValue[]): TensorView {
    if (!(storage instanceof Storage) || !isCount(offset)) this.refuse('a tensor has no storage or offset')
    const shape = this.#counts(sizes, 'sizes')
    const strides = this.#counts(steps, 'strides')
    if (shape.length !== strides.length) this.refuse('a tensor has as many strides as sizes')
    let elements = 1
    let last = offset
    for (const [axis, size] of shape.entries()) {
      elements *= size
      last += Math.max(0, size - 1) * (strides[axis] as number)
      if (!Number.isSafeInteger(elements) || !Number.isSafeInteger(last))
        this.refuse(`a tensor of shape [${shape.join(', ')}] is larger than any file`)
    }
    if (elements > 0 && (last >= storage.elements || elements > storage.elements)) {
      this.refuse(
        `a tensor of shape [${shape.join(', ')}], strides [${strides.join(', ')}] and offset ${offset} does not fit in storage ` +
          `${showName(storage.key)} of ${storage.elements} elements`,
      )
    }
    return new TensorView(storage, offset, shape, strides)
  }

  #parameter([data]: readonly PickleValue[]): TensorView {
    return data instanceof TensorView ? data : this.refuse('a parameter holds no tensor')
  }
}

/** Training scripts keep the weights as one member of a larger dict. */
function weightsOf(dict: PickleDict): PickleDict {
  const inner = dict.entries.get('state_dict')
  return inner instanceof PickleDict ? inner : dict
}

/**
 * Reads the pickle of a state dict that starts at `start`.
 * @param path names the file in messages
 * @throws ERR_FORMAT for a pickle that names anything else than tensors need, or holds anything else than named tensors
 */
export function readStateDict(bytes: Uint8Array, start: number, path: string): PytorchStateDict {
  const reader = new StateDictReader(path)
  const { value, end } = readPickle(bytes, start, path, reader)
  if (!(value instanceof PickleDict)) return reader.refuse('it holds no dict of tensors by name')
  const tensors = new Map<string, TensorView>()
  for (const [name, tensor] of weightsOf(value).entries) {
    if (typeof name !== 'string') return reader.refuse('a tensor has no name')
    if (!(tensor instanceof TensorView)) return reader.refuse(`member ${showName(name)} is no tensor`)
    tensors.set(name, tensor)
  }
  return { tensors, storages: reader.storages, end }
}
