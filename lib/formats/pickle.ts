/**
 * Python pickles, read without running anything.
 *
 * A pickle is a program for a small stack machine, and a general reader lets it call any function of the system. This one knows the
 * opcodes that data need and no others, and hands every global that a pickle names to its caller, who gives back what the name
 * stands for or refuses it. Nothing is looked up, imported or called by name.
 *
 * Bounds: one opcode makes at most one value, values are never copied or walked through, and both the bytes and the opcodes of one
 * pickle are limited; so time and memory are too, whatever the pickle says.
 */
import { VoltaicError } from '../runtime/errors.js'

/** What a pickle can hold here. Objects that the caller makes are `PickleObject`s of its own. */
export type PickleValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | PickleTuple
  | PickleList
  | PickleDict
  | PickleObject

export class PickleTuple {
  constructor(readonly items: readonly PickleValue[]) {}
}

export class PickleList {
  readonly items: PickleValue[] = []
}

/** A dict or OrderedDict; keys that are no strings or numbers are told apart as objects. */
export class PickleDict {
  readonly entries: Map<PickleValue, PickleValue> = new Map()
}

/** Base of what a caller makes of globals and persistent ids. */
export abstract class PickleObject {
  abstract readonly kind: string
}

/** A global that may be called, with what the call gives. */
export abstract class PickleCallable extends PickleObject {
  abstract call(args: readonly PickleValue[]): PickleValue
}

export interface PickleMeaning {
  /** What `module.name` stands for; throws when it is not allowed. */
  global(name: string): PickleObject
  /** What a persistent id stands for; throws when it is not understood. */
  persistent(id: PickleValue): PickleValue
}

const longestPickle = 16 * 1024 * 1024
const mostOpcodes = 250_000

class Mark extends PickleObject {
  readonly kind = 'mark'
}
const mark = new Mark()

class PickleReader {
  #at: number
  readonly #end: number
  readonly #view: DataView
  readonly #stack: PickleValue[] = []
  /** Where the marks stand in the stack. */
  readonly #marks: number[] = []
  readonly #memo = new Map<number, PickleValue>()
  readonly #utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

  constructor(
    readonly bytes: Uint8Array,
    readonly start: number,
    readonly path: string,
    readonly meaning: PickleMeaning,
  ) {
    this.#at = start
    this.#end = Math.min(bytes.byteLength, start + longestPickle)
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  refuse(problem: string): never {
    throw new VoltaicError(
      'ERR_FORMAT',
      `${this.path}: ${problem} (byte ${this.#at - this.start} of a pickle). The file is damaged or not a state dict; ` +
        'save it again',
    )
  }

  /** Takes `length` bytes; gives where they start. */
  #take(length: number): number {
    const at = this.#at
    if (length > this.#end - at) {
      this.refuse(`a pickle ends early, or is longer than ${longestPickle} bytes`)
    }
    this.#at += length
    return at
  }

  #uint(length: 1 | 2 | 4): number {
    const at = this.#take(length)
    if (length === 1) return this.#view.getUint8(at)
    if (length === 2) return this.#view.getUint16(at, true)
    return this.#view.getUint32(at, true)
  }

  #text(length: number): string {
    const at = this.#take(length)
    try {
      return this.#utf8.decode(this.bytes.subarray(at, at + length))
    } catch {
      this.refuse('a string is not UTF-8')
    }
  }

  #raw(length: number): Uint8Array {
    const at = this.#take(length)
    return this.bytes.subarray(at, at + length)
  }

  #line(): string {
    const at = this.#at
    const end = this.bytes.indexOf(0x0a, at)
    if (end < 0 || end >= this.#end || end - at > 1000) this.refuse('a line in a pickle does not end')
    const text = this.#text(end - at)
    this.#take(1)
    return text
  }

  /** A little-endian integer in two's complement. */
  #long(length: number): number | bigint {
    if (length > 16) this.refuse(`an integer of ${length} bytes; expected at most 16`)
    let value = 0n
    const raw = this.#raw(length)
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(raw[i] as number)
    if (length > 0) value = BigInt.asIntN(8 * length, value)
    const small = Number(value)
    return Number.isSafeInteger(small) ? small : value
  }

  #pop(): PickleValue {
    const value = this.#stack.pop()
    if (value === undefined || value === mark) this.refuse('the stack is empty')
    return value
  }

  #top(): PickleValue {
    const value = this.#stack.at(-1)
    if (value === undefined || value === mark) this.refuse('the stack is empty')
    return value
  }

  #popToMark(): PickleValue[] {
    const at = this.#marks.pop()
    if (at === undefined) this.refuse('a mark is missing')
    const values = this.#stack.splice(at)
    values.shift()
    return values
  }

  #tuple(length: number): void {
    const items = Array.from({ length }, () => this.#pop())
    this.#stack.push(new PickleTuple(items.reverse()))
  }

  #protocol(): void {
    const protocol = this.#uint(1)
    if (protocol > 5) this.refuse(`pickle protocol ${protocol}; expected at most 5`)
  }

  #mark(): void {
    this.#marks.push(this.#stack.length)
    this.#stack.push(mark)
  }

  #append(values: readonly PickleValue[]): void {
    const list = this.#top()
    if (!(list instanceof PickleList)) this.refuse('something is appended to what is no list')
    for (const value of values) list.items.push(value)
  }

  #set(values: readonly PickleValue[]): void {
    const dict = this.#top()
    if (!(dict instanceof PickleDict) || values.length % 2 !== 0)
      this.refuse('items are set in what is no dict, or a value is missing')
    for (let i = 0; i < values.length; i += 2) {
      dict.entries.set(values[i] as PickleValue, values[i + 1] as PickleValue)
    }
  }

  #remember(index: number): void {
    this.#memo.set(index, this.#top())
  }

  #recall(index: number): PickleValue {
    const value = this.#memo.get(index)
    if (value === undefined) this.refuse(`a value that was never kept is asked for (${index})`)
    return value
  }

  #call(): PickleValue {
    const args = this.#pop()
    const target = this.#pop()
    if (!(target instanceof PickleCallable) || !(args instanceof PickleTuple))
      this.refuse('something is called that is no function, or without a tuple of arguments')
    return target.call(args.items)
  }

  /** State that is set on an object: only a dict may have some (PyTorch's `_metadata`), which says nothing about the weights. */
  #build(): void {
    this.#pop()
    if (!(this.#top() instanceof PickleDict)) this.refuse('a state is set on what is no dict')
  }

  #stackGlobal(): PickleObject {
    const name = this.#pop()
    const module = this.#pop()
    if (typeof name !== 'string' || typeof module !== 'string') this.refuse('a global has no name')
    return this.meaning.global(`${module}.${name}`)
  }

  /** Runs to STOP; gives the value and where the pickle ends. */
  read(): { value: PickleValue; end: number } {
    const steps = this.#steps()
    for (let count = 0; count < mostOpcodes; count++) {
      const opcode = this.#uint(1)
      if (opcode === 0x2e) {
        const value = this.#pop()
        if (this.#stack.length > 0) this.refuse('values are left on the stack')
        return { value, end: this.#at }
      }
      const step = steps.get(opcode)
      if (step === undefined)
        this.refuse(`opcode 0x${opcode.toString(16)} is not one that tensors need, so it is not run`)
      step()
    }
    this.refuse(`more than ${mostOpcodes} opcodes`)
  }

  /** What each opcode does; those that are not here are not run. */
  #steps(): Map<number, () => void> {
    const push = (value: PickleValue): void => {
      this.#stack.push(value)
    }
    return new Map<number, () => void>([
      [0x80, () => this.#protocol()], // PROTO
      [0x95, () => void this.#take(8)], // FRAME
      [0x28, () => this.#mark()], // MARK
      [0x30, () => void this.#pop()], // POP
      [0x4e, () => push(null)], // NONE
      [0x88, () => push(true)], // NEWTRUE
      [0x89, () => push(false)], // NEWFALSE
      [0x4b, () => push(this.#uint(1))], // BININT1
      [0x4d, () => push(this.#uint(2))], // BININT2
      [0x4a, () => push(this.#view.getInt32(this.#take(4), true))], // BININT
      [0x8a, () => push(this.#long(this.#uint(1)))], // LONG1
      [0x47, () => push(this.#view.getFloat64(this.#take(8), false))], // BINFLOAT
      [0x58, () => push(this.#text(this.#uint(4)))], // BINUNICODE
      [0x8c, () => push(this.#text(this.#uint(1)))], // SHORT_BINUNICODE
      [0x54, () => push(this.#text(this.#uint(4)))], // BINSTRING
      [0x55, () => push(this.#text(this.#uint(1)))], // SHORT_BINSTRING
      [0x42, () => push(this.#raw(this.#uint(4)))], // BINBYTES
      [0x43, () => push(this.#raw(this.#uint(1)))], // SHORT_BINBYTES
      [0x29, () => push(new PickleTuple([]))], // EMPTY_TUPLE
      [0x85, () => this.#tuple(1)], // TUPLE1
      [0x86, () => this.#tuple(2)], // TUPLE2
      [0x87, () => this.#tuple(3)], // TUPLE3
      [0x74, () => push(new PickleTuple(this.#popToMark()))], // TUPLE
      [0x5d, () => push(new PickleList())], // EMPTY_LIST
      [0x61, () => this.#append([this.#pop()])], // APPEND
      [0x65, () => this.#append(this.#popToMark())], // APPENDS
      [0x7d, () => push(new PickleDict())], // EMPTY_DICT
      [0x73, () => this.#set([this.#pop(), this.#pop()].reverse())], // SETITEM
      [0x75, () => this.#set(this.#popToMark())], // SETITEMS
      [0x71, () => this.#remember(this.#uint(1))], // BINPUT
      [0x72, () => this.#remember(this.#uint(4))], // LONG_BINPUT
      [0x94, () => this.#remember(this.#memo.size)], // MEMOIZE
      [0x68, () => push(this.#recall(this.#uint(1)))], // BINGET
      [0x6a, () => push(this.#recall(this.#uint(4)))], // LONG_BINGET
      [0x63, () => push(this.meaning.global(`${this.#line()}.${this.#line()}`))], // GLOBAL
      [0x93, () => push(this.#stackGlobal())], // STACK_GLOBAL
      [0x52, () => push(this.#call())], // REDUCE
      [0x62, () => this.#build()], // BUILD
      [0x51, () => push(this.meaning.persistent(this.#pop()))], // BINPERSID
    ])
  }
}

/**
 * Reads the pickle that starts at `start`.
 * @param path names the file in messages
 * @returns the value, and where the pickle ends in `bytes`
 * @throws ERR_FORMAT for everything that is not plain data, and whatever `meaning` throws
 */
export function readPickle(
  bytes: Uint8Array,
  start: number,
  path: string,
  meaning: PickleMeaning,
): { readonly value: PickleValue; readonly end: number } {
  return new PickleReader(bytes, start, path, meaning).read()
}
