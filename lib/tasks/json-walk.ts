/**
 * Walks a large JSON document from above, without ever making it whole: objects and lists are entered one by one, and only what is
 * asked for, a paragraph at a time, becomes a value. A document that nests by the million, or has a million fields nobody knows,
 * costs no more than its bytes.
 *
 * What `members` or `elements` yields must be taken before the next is asked for: entered, made a `value`, or passed over with `skip`.
 */
import { parseJsonText } from '../formats/json-file.js'
import { VoltaicError } from '../runtime/errors.js'

/** Bytes of a value that is made whole. A paragraph of SQuAD with its questions has some thousands. */
const largestValue = 2 * 2 ** 20
/** As in `parseJsonText`. */
const deepest = 100

const quoteMark = 0x22
const comma = 0x2c
const colon = 0x3a
const backslash = 0x5c
const openings = { object: 0x7b, list: 0x5b } as const
const closings = { object: 0x7d, list: 0x5d } as const

const isSpace = (byte: number | undefined): boolean =>
  byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09

const isOpening = (byte: number | undefined): boolean => byte === openings.object || byte === openings.list
const isClosing = (byte: number | undefined): boolean => byte === closings.object || byte === closings.list

export class JsonWalk {
  /** The byte that comes next. Going back to an earlier one reads it again. */
  at = 0

  /** @param bytes UTF-8 without a byte order mark */
  constructor(
    readonly bytes: Buffer,
    readonly file: string,
  ) {}

  refuse(place: string, problem: string): never {
    throw new VoltaicError('ERR_FORMAT', `${this.file}: ${place}: ${problem}`)
  }

  #refuseByte(place: string, expected: string): never {
    const found = this.bytes[this.at]
    const what = found === undefined ? 'the file ends' : `byte ${this.at} is ${showByte(found)}`
    this.refuse(place, `not JSON (${what}, expected ${expected}). The file is damaged; copy or save it again`)
  }

  #next(): number | undefined {
    while (isSpace(this.bytes[this.at])) this.at += 1
    return this.bytes[this.at]
  }

  #passString(place: string): void {
    for (let quote = this.at; ; ) {
      quote = this.bytes.indexOf(quoteMark, quote + 1)
      if (quote < 0) {
        this.at = this.bytes.length
        this.#refuseByte(place, 'the end of a string')
      }
      let before = quote - 1
      while (this.bytes[before] === backslash) before -= 1
      if ((quote - before) % 2 === 0) continue
      this.at = quote + 1
      return
    }
  }

  /** Whether an object or a list comes next. */
  is(kind: 'object' | 'list'): boolean {
    return this.#next() === openings[kind]
  }

  /** Passes over the next value; of what is in it only the brackets are looked at. */
  skip(place: string): void {
    const first = this.#next()
    if (first === quoteMark) this.#passString(place)
    else if (isOpening(first)) this.#passBrackets(place)
    else this.#passBare(place)
  }

  /** Numbers, true, false and null. */
  #passBare(place: string): void {
    const start = this.at
    for (let byte = this.bytes[start]; byte !== undefined; byte = this.bytes[++this.at]) {
      if (byte === comma || isClosing(byte) || isSpace(byte)) break
    }
    if (this.at === start) this.#refuseByte(place, 'a value')
  }

  #passBrackets(place: string): void {
    for (let depth = 0; ; ) {
      const byte = this.bytes[this.at]
      if (byte === undefined) this.#refuseByte(place, 'a closing bracket')
      if (byte === quoteMark) {
        this.#passString(place)
        continue
      }
      this.at += 1
      if (isOpening(byte)) {
        depth += 1
        if (depth > deepest)
          this.refuse(place, `nests deeper than ${deepest}; expected an ordinary JSON file`)
      } else if (isClosing(byte)) {
        depth -= 1
        if (depth === 0) return
      }
    }
  }

  /** The next value, made whole. */
  value(place: string): unknown {
    this.#next()
    const start = this.at
    this.skip(place)
    if (this.at - start > largestValue) {
      this.refuse(place, `more than ${largestValue / 2 ** 20} MiB, expected a short piece of JSON`)
    }
    return parseJsonText(this.bytes.toString('utf8', start, this.at), `${this.file}: ${place}`)
  }

  /** Enters the object that comes next, and yields the names of its members. */
  *members(place: string): Generator<string> {
    for (const _ of this.#parts('object', place)) {
      if (this.#next() !== quoteMark) this.#refuseByte(place, 'a name in quotes')
      const name = this.value(place) as string
      if (this.#next() !== colon) this.#refuseByte(place, 'a colon')
      this.at += 1
      yield name
    }
  }

  /** Enters the list that comes next, and yields the number of each element from 0. */
  elements(place: string): Generator<number> {
    return this.#parts('list', place)
  }

  *#parts(kind: 'object' | 'list', place: string): Generator<number> {
    if (!this.is(kind)) this.#refuseByte(place, kind === 'object' ? 'an object' : 'a list')
    this.at += 1
    for (let part = 0; part > 0 || this.#next() !== closings[kind]; part++) {
      yield part
      if (this.#next() === closings[kind]) break
      if (this.bytes[this.at] !== comma) this.#refuseByte(place, 'a comma or a closing bracket')
      this.at += 1
    }
    this.at += 1
  }

  /** @throws ERR_FORMAT when anything but white space is left */
  end(): void {
    if (this.#next() !== undefined) this.#refuseByte('the file', 'its end')
  }
}

const showByte = (byte: number): string =>
  byte > 0x20 && byte < 0x7f ? `'${String.fromCharCode(byte)}'` : `0x${byte.toString(16).padStart(2, '0')}`
