/**
 * Exact repeats of lines and documents in bounded memory.
 *
 * A text is its 53-bit hash in an open table with a count. When the table is full, the half of the hashes with a set bit goes, and
 * from then on only texts whose hash has that bit clear are counted (adaptive sampling); what is reported is scaled by the share that
 * is left. All occurrences of a text have one hash, so a sampled text's count stays exact. Two different texts meet in one hash once in
 * 2^53 pairs: with 3 million texts, one false repeat in 2,000 corpora.
 */
import { type TextPlace, visibleExcerpt } from './inspect-excerpts.js'

export interface RepeatedText extends TextPlace {
  /** How often it occurs; at least that, where only a share was counted. */
  readonly count: number
  /** Its beginning; file and line are those of an occurrence behind the first. */
  readonly text: string
}

export interface RepeatSummary {
  /** Different texts. */
  readonly distinct: number
  /** Occurrences behind the first. */
  readonly repeats: number
  /** Characters of these occurrences. */
  readonly repeatedCharacters: number
  /** The share of texts that was counted: 1 unless the table was full; numbers above are estimates then. */
  readonly sampled: number
  /** The most repeated texts, most frequent first. */
  readonly frequent: readonly RepeatedText[]
}

/** A 53-bit hash of a part of a text, never 0: two lanes of multiplications and a final mix (Bryc's cyrb53). */
export function hashText(text: string, start: number, end: number, seed: number): number {
  let a = 0xdeadbeef ^ seed
  let b = 0x41c6ce57 ^ seed
  for (let at = start; at < end; at++) {
    const unit = text.charCodeAt(at)
    a = Math.imul(a ^ unit, 2654435761)
    b = Math.imul(b ^ unit, 1597334677)
  }
  a = Math.imul(a ^ (a >>> 16), 2246822507) ^ Math.imul(b ^ (b >>> 13), 3266489909)
  b = Math.imul(b ^ (b >>> 16), 2246822507) ^ Math.imul(a ^ (a >>> 13), 3266489909)
  return (b & 0x1fffff) * 2 ** 32 + (a >>> 0) || 1
}

/** Repeated texts whose beginnings are remembered; the rarer half goes when there are more. */
const remembered = 2048
const excerptLength = 120

export class RepeatCounter {
  readonly #limit: number
  #keys = new Float64Array(1 << 12)
  #counts = new Uint32Array(1 << 12)
  #used = 0
  /** Bits above the 32 that choose a slot decide who is sampled: of `#sampleBits` bits all must be clear. */
  #sampleBits = 0
  #repeats = 0
  #characters = 0
  #texts = new Map<number, RepeatedText>()

  /** At most `limit` different texts are held, a power of two; 12 bytes each and as much again free. */
  constructor(limit: number) {
    this.#limit = limit
  }

  /** Counts a text of `characters` code points; true when it was there before (among those that are sampled). */
  add(hash: number, text: string, start: number, end: number, characters: number, place: TextPlace): boolean {
    if (!this.#isSampled(hash)) return false
    const slot = this.#slotOf(hash)
    if (this.#keys[slot] === hash) {
      const count = (this.#counts[slot] as number) + 1
      this.#counts[slot] = count
      this.#repeats += 1
      this.#characters += characters
      this.#remember(hash, count, text, start, end, place)
      return true
    }
    this.#keys[slot] = hash
    this.#counts[slot] = 1
    this.#used += 1
    if (2 * this.#used > this.#keys.length) this.#makeRoom()
    return false
  }

  #isSampled(hash: number): boolean {
    return Math.floor(hash / 2 ** 32) % 2 ** this.#sampleBits === 0
  }

  #slotOf(hash: number): number {
    const mask = this.#keys.length - 1
    let slot = (hash % 2 ** 32) & mask
    while (this.#keys[slot] !== 0 && this.#keys[slot] !== hash) slot = (slot + 1) & mask
    return slot
  }

  #makeRoom(): void {
    const keys = this.#keys
    const counts = this.#counts
    const full = this.#used >= this.#limit
    if (full) this.#sampleBits += 1
    this.#keys = new Float64Array(full ? keys.length : 2 * keys.length)
    this.#counts = new Uint32Array(this.#keys.length)
    this.#used = 0
    const before = this.#repeats
    this.#repeats = 0
    for (const [at, hash] of keys.entries()) {
      if (hash === 0 || !this.#isSampled(hash)) continue
      const slot = this.#slotOf(hash)
      this.#keys[slot] = hash
      this.#counts[slot] = counts[at] as number
      this.#used += 1
      this.#repeats += (counts[at] as number) - 1
    }
    // How long the texts were that went is not known: those that stay are taken to be as long on average.
    if (before > 0) this.#characters *= this.#repeats / before
  }

  #remember(hash: number, count: number, text: string, start: number, end: number, place: TextPlace): void {
    const known = this.#texts.get(hash)
    const first = known ?? {
      ...place,
      text: visibleExcerpt(text.slice(start, Math.min(end, start + excerptLength))),
    }
    this.#texts.set(hash, { ...first, count })
    if (this.#texts.size <= 2 * remembered) return
    const sorted = [...this.#texts].sort(([, x], [, y]) => y.count - x.count)
    this.#texts = new Map(sorted.slice(0, remembered))
  }

  summary(examples: number): RepeatSummary {
    const sampled = 2 ** -this.#sampleBits
    const frequent = [...this.#texts.values()].sort((x, y) => y.count - x.count).slice(0, examples)
    return {
      distinct: Math.round(this.#used / sampled),
      repeats: Math.round(this.#repeats / sampled),
      repeatedCharacters: Math.round(this.#characters / sampled),
      sampled,
      frequent,
    }
  }
}
