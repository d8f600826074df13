/**
 * Random numbers of the data pipeline: Philox4x32-10 (Salmon et al., SC 2011), the generator of native/engine/philox.h, in
 * TypeScript. A draw is a pure function of (seed, site, counter): nothing is stored, so any segment or any place of the order can
 * be computed without those before it. The sites below differ from those of the kernels, so no number is used twice.
 */
import { VoltaicError } from '../runtime/errors.js'

/** What a draw is for: the third word of the counter. */
export const randomSite = {
  /** Two-segment examples; counter = the number of the example's first sentence. */
  pairs: 0xda7a0001,
  /** The order of an epoch; counter = the epoch. */
  order: 0xda7a0002,
  /** The built-in sample text; counter = the scene. */
  sample: 0xda7a0003,
  /** The order of fine-tuning's batches; counter = the epoch. */
  batches: 0xda7a0006,
  /** What text-infilling chooses and draws; counter = the number of the text and of its version. */
  infilling: 0xda7a0010,
  /** Which language comes next; counter = the number of the draw. */
  languages: 0xda7a0020,
  /** Bootstrap samples of an evaluation; counter = the sample. */
  bootstrap: 0xda7a0021,
} as const

export type RandomSite = (typeof randomSite)[keyof typeof randomSite]

/** The upper 32 bits of the 64-bit product of two unsigned 32-bit numbers. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff
  const aHigh = a >>> 16
  const bLow = b & 0xffff
  const bHigh = b >>> 16
  // Each sum stays below 2^32, so all is exact in a double.
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16)
  const carry = aLow * bHigh + (middle & 0xffff)
  return aHigh * bHigh + (middle >>> 16) + (carry >>> 16)
}

/** One block of Philox4x32-10: four words of 32 bits into `out`, from a key of two words and a counter of four. */
export function philox4x32(
  out: Uint32Array,
  key: readonly [number, number],
  counter: readonly [number, number, number, number],
): void {
  let key0 = key[0]
  let key1 = key[1]
  let c0 = counter[0]
  let c1 = counter[1]
  let c2 = counter[2]
  let c3 = counter[3]
  for (let round = 0; round < 10; round++) {
    const next0 = multiplyHigh(0xcd9e8d57, c2) ^ c1 ^ key0
    const next2 = multiplyHigh(0xd2511f53, c0) ^ c3 ^ key1
    c1 = Math.imul(0xcd9e8d57, c2) >>> 0
    c3 = Math.imul(0xd2511f53, c0) >>> 0
    c0 = next0 >>> 0
    c2 = next2 >>> 0
    key0 = (key0 + 0x9e3779b9) >>> 0
    key1 = (key1 + 0xbb67ae85) >>> 0
  }
  out[0] = c0
  out[1] = c1
  out[2] = c2
  out[3] = c3
}

/** The two key words of a seed, a whole number from 0 to 2^53 - 1. Throws ERR_ARGUMENT for any other. */
export function seedKey(seed: number): [number, number] {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new VoltaicError('ERR_ARGUMENT', `seed is ${seed}; expected a whole number from 0 to 2^53 - 1`)
  }
  return [seed >>> 0, Math.floor(seed / 2 ** 32)]
}

/** A sequence of draws for one (seed, site, counter): words, uniform numbers, whole numbers. */
export interface Draws {
  /** The next 32 bits. */
  word(): number
  /** The next uniform number in [0, 1), in steps of 2^-32. */
  uniform(): number
  /** The next whole number from `low` to `high`, both included (their distance far below 2^32: the bias is distance / 2^32). */
  integer(low: number, high: number): number
  /** Starts the sequence of another counter, a whole number below 2^53. */
  restart(counter: number): void
}

/** Draws of a seed at a site. Throws ERR_ARGUMENT for a bad seed. */
export function createDraws(seed: number, site: RandomSite, counter = 0): Draws {
  const key = seedKey(seed)
  const words = new Uint32Array(4)
  const block: [number, number, number, number] = [0, 0, site, 0]
  let used = 0
  const restart = (next: number): void => {
    block[0] = next >>> 0
    block[1] = Math.floor(next / 2 ** 32)
    block[3] = 0
    used = 4
  }
  const word = (): number => {
    if (used === 4) {
      philox4x32(words, key, block)
      block[3] += 1
      used = 0
    }
    used += 1
    return words[used - 1] as number
  }
  const uniform = (): number => word() / 2 ** 32
  restart(counter)
  return { word, uniform, restart, integer: (low, high) => low + Math.floor(uniform() * (high - low + 1)) }
}

const feistelRounds = 8

/** Murmur3's finalizer: every bit of the result depends on every bit of the argument. */
function mix(value: number): number {
  let bits = value
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b)
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35)
  return bits ^ (bits >>> 16)
}

/**
 * The shuffled order of `count` items in one epoch, in constant memory: place -> item, each item once. A Feistel network of eight
 * rounds permutes the next even power of two, and values outside the range are sent through again until they fall inside (cycle
 * walking: fewer than four passes on average). Depends on (count, seed, epoch) only.
 * @param count at most 2^32.
 */
export function createPermutation(count: number, seed: number, epoch: number): (place: number) => number {
  if (!Number.isInteger(count) || count < 1 || count > 2 ** 32) {
    throw new VoltaicError('ERR_ARGUMENT', `a permutation needs 1 to 2^32 items, not ${count}`)
  }
  const draws = createDraws(seed, randomSite.order, epoch)
  const keys = Uint32Array.from({ length: feistelRounds }, () => draws.word())
  // Halves of at least three bits: with fewer the rounds could not reach most orders of a handful of items.
  const halfBits = Math.max(3, Math.ceil(Math.log2(count) / 2))
  const mask = 2 ** halfBits - 1
  const permuteOnce = (value: number): number => {
    let left = Math.floor(value / (mask + 1))
    let right = value & mask
    for (let round = 0; round < feistelRounds; round++) {
      const next = left ^ (mix(right ^ (keys[round] as number)) & mask)
      left = right
      right = next
    }
    return left * (mask + 1) + right
  }
  return (place) => {
    let item = permuteOnce(place)
    while (item >= count) item = permuteOnce(item)
    return item
  }
}
