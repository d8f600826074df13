/** From logits to scores: in double precision, finite for any finite logits. */

/** exp(x) / Σ exp(x): positive numbers that sum to 1. */
export function softmax(logits: ArrayLike<number>): Float64Array {
  const scores = Float64Array.from(logits)
  const largest = scores.reduce((most, logit) => Math.max(most, logit), Number.NEGATIVE_INFINITY)
  let total = 0
  for (let at = 0; at < scores.length; at++) {
    const score = Math.exp((scores[at] as number) - largest)
    scores[at] = score
    total += score
  }
  return scores.map((score) => score / total)
}

/** 1 / (1 + exp(-x)) */
export function sigmoid(x: number): number {
  const small = Math.exp(-Math.abs(x))
  return (x < 0 ? small : 1) / (1 + small)
}

/** The place of the largest score, the first of several; -1 of nothing. */
export function bestClass(scores: ArrayLike<number>): number {
  let best = scores.length > 0 ? 0 : -1
  for (let at = 1; at < scores.length; at++) {
    if ((scores[at] as number) > (scores[best] as number)) best = at
  }
  return best
}
