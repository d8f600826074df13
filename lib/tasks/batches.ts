/** Sequences of about one length together, up to so many tokens: for predictions, where the order does not matter. */

/**
 * Batches of indices, the longest sequences first: what does not fit into memory shows at once.
 * @param lengths tokens of each sequence
 * @param budget tokens of a batch; a longer sequence is a batch of its own
 */
export function batchesByTokens(lengths: readonly number[], budget: number): number[][] {
  const order = lengths.map((_, index) => index)
  order.sort((a, b) => (lengths[b] as number) - (lengths[a] as number) || a - b)
  const batches: number[][] = []
  let tokens = 0
  for (const index of order) {
    const length = lengths[index] as number
    const last = batches.at(-1)
    if (last === undefined || tokens + length > budget) {
      batches.push([index])
      tokens = length
    } else {
      last.push(index)
      tokens += length
    }
  }
  return batches
}
