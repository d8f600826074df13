/**
 * The batches of an epoch: sequences of similar length together, so that a batch's cost varies little, and still in an order that
 * chance decides. It is a pure function of lengths, seed and epoch, so a resumed run needs to keep nothing of it.
 */
import { createDraws, createPermutation, randomSite } from '../data/random.js'

/** Batches that are sorted by length together. More would make batches of one length alone, and order the epoch by it. */
const poolBatches = 50

/** Puts items in a random order, in place (Fisher and Yates). */
function shuffle<T>(items: T[], integer: (low: number, high: number) => number): void {
  for (let last = items.length - 1; last > 0; last--) {
    const other = integer(0, last)
    const item = items[last] as T
    items[last] = items[other] as T
    items[other] = item
  }
}

/**
 * Batches of indices, each index once; all but one have `batchSize`. Random pools of 50 batches are sorted by length and cut, and the
 * batches shuffled.
 * @param lengths tokens of each sequence, at least one
 */
export function epochBatches(
  lengths: readonly number[],
  batchSize: number,
  seed: number,
  epoch: number,
): number[][] {
  const count = lengths.length
  const itemAt = createPermutation(count, seed, epoch)
  const batches: number[][] = []
  for (let begin = 0; begin < count; begin += poolBatches * batchSize) {
    const size = Math.min(poolBatches * batchSize, count - begin)
    const pool = Array.from({ length: size }, (_, place) => itemAt(begin + place))
    // Sorting is stable: items of one length stay in chance's order.
    pool.sort((a, b) => (lengths[a] as number) - (lengths[b] as number))
    for (let at = 0; at < size; at += batchSize) batches.push(pool.slice(at, at + batchSize))
  }
  shuffle(batches, createDraws(seed, randomSite.batches, epoch).integer)
  return batches
}
