/**
 * Near-duplicate documents by MinHash over word shingles, in bounded memory.
 *
 * Shingles are runs of 3 words (letters and digits, lower case; in scripts without spaces a character is a word). A document's
 * signature has 128 values of 16 bits by one-permutation hashing: the shingle's hash chooses one of 128 bins, the smallest hash of a bin
 * stays, and an empty bin takes the value of another one chosen by a hash of its number (Shrivastava 2017). The share of equal values
 * estimates the Jaccard similarity J of two documents' shingles, with a standard deviation of at most 0.044. Documents that agree in all
 * 4 values of one of 32 bands are compared: that finds a pair with J = 0.8 with probability 1 - (1 - 0.8^4)^32 > 0.9999, and J = 0.5
 * with 0.87. A pair counts when its estimate is 0.7 or more.
 *
 * Memory: the latest 131,072 documents' signatures (32 MiB), and for each band a table of 262,144 slots that hold the latest document
 * (32 MiB). So a document is compared with the 131,072 before it at most. Time: one hash a word, and 32 look-ups a document.
 */
import type { TextPlace } from './inspect-excerpts.js'

export interface NearDuplicate extends TextPlace {
  /** The earlier document. */
  readonly of: TextPlace
  /** Estimated share of 3-word shingles that both have, of those that either has. */
  readonly similarity: number
}

export interface NearDuplicateSummary {
  /** Documents that are nearly an earlier one, but not exactly. */
  readonly documents: number
  /** Characters in them. */
  readonly characters: number
  /** Documents too short to compare. */
  readonly tooShort: number
  /** The first pairs found. */
  readonly examples: readonly NearDuplicate[]
}

const shingleWords = 3
/** With fewer words a change of one leaves nothing alike. */
const minimumWords = 12
const values = 128
const bands = 32
const rows = values / bands
const threshold = 0.7
/** Values have 31 bits: none is this. */
const empty = 0xffffffff

function mix(hash: number): number {
  let mixed = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
  return (mixed ^ (mixed >>> 16)) >>> 0
}

export class NearDuplicateFinder {
  readonly #capacity: number
  readonly #slots: number
  readonly #seed: number
  readonly #signatures: Uint16Array
  readonly #tables: Int32Array
  readonly #hashes: Float64Array
  readonly #places: (TextPlace | undefined)[] = []
  readonly #minima = new Uint32Array(values)
  readonly #signature = new Uint16Array(values)
  #words = 0
  #previous = 0
  #beforePrevious = 0
  #documents = 0
  #found = 0
  #characters = 0
  #tooShort = 0
  readonly #examples: NearDuplicate[] = []
  readonly #wanted: number

  /** `capacity`: how many of the latest documents are compared with, a power of two. */
  constructor(seed: number, examples: number, capacity: number = 1 << 17) {
    this.#seed = seed
    this.#wanted = examples
    this.#capacity = capacity
    this.#slots = 2 * capacity
    this.#signatures = new Uint16Array(capacity * values)
    this.#tables = new Int32Array(bands * this.#slots)
    this.#hashes = new Float64Array(capacity)
  }

  /** Begins a document. */
  begin(): void {
    this.#minima.fill(empty)
    this.#words = 0
  }

  /** The hash of the document's next word. */
  addWord(hash: number): void {
    this.#words += 1
    if (this.#words >= shingleWords) {
      const shingle = mix(
        Math.imul(this.#beforePrevious, 0x9e3779b1) ^
          Math.imul(this.#previous, 0x7feb352d) ^
          hash ^
          this.#seed,
      )
      const bin = shingle & (values - 1)
      const value = mix(shingle ^ 0x2545f491) >>> 1
      if (value < (this.#minima[bin] as number)) this.#minima[bin] = value
    }
    this.#beforePrevious = this.#previous
    this.#previous = hash
  }

  /** Ends a document: `hash` is that of its whole text, and a repeat of an earlier one takes no room. */
  end(hash: number, characters: number, place: TextPlace, isRepeat: boolean): void {
    if (isRepeat) return
    if (this.#words < minimumWords) {
      this.#tooShort += 1
      return
    }
    this.#sign()
    const document = this.#documents++
    const entry = document & (this.#capacity - 1)
    const [other, similarity] = this.#closest(document)
    this.#signatures.set(this.#signature, entry * values)
    const of = this.#places[other]
    this.#places[entry] = place
    const isExact = other >= 0 && this.#hashes[other] === hash
    this.#hashes[entry] = hash
    if (of === undefined || similarity < threshold || isExact) return
    this.#found += 1
    this.#characters += characters
    if (this.#examples.length < this.#wanted) this.#examples.push({ ...place, of, similarity })
  }

  #sign(): void {
    for (let bin = 0; bin < values; bin++) {
      let from = bin
      for (let attempt = 1; this.#minima[from] === empty; attempt++)
        from = mix(Math.imul(bin + 1, 0x9e3779b1) + attempt) & (values - 1)
      this.#signature[bin] = this.#minima[from] as number
    }
  }

  /** The entry of the most similar earlier document that shares a band, or -1; puts this one in the tables. */
  #closest(document: number): [entry: number, similarity: number] {
    let best = -1
    let bestShare = 0
    let last = -1
    for (let band = 0; band < bands; band++) {
      let hash = band
      for (let row = 0; row < rows; row++)
        hash = mix(hash ^ (this.#signature[band * rows + row] as number)) + row
      const slot = band * this.#slots + (hash & (this.#slots - 1))
      const candidate = (this.#tables[slot] as number) - 1
      this.#tables[slot] = document + 1
      if (candidate < 0 || candidate <= document - this.#capacity || candidate === last) continue
      last = candidate
      const entry = candidate & (this.#capacity - 1)
      const share = this.#share(entry)
      if (share > bestShare) [best, bestShare] = [entry, share]
    }
    return [best, bestShare]
  }

  #share(entry: number): number {
    let equal = 0
    for (let at = 0; at < values; at++)
      if (this.#signatures[entry * values + at] === this.#signature[at]) equal += 1
    return equal / values
  }

  summary(): NearDuplicateSummary {
    return {
      documents: this.#found,
      characters: this.#characters,
      tooShort: this.#tooShort,
      examples: this.#examples,
    }
  }
}
