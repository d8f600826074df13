/** The beams of the original's question answering, on this side of the device: the best starts, then the best ends behind each. */

/** A token of a sequence that may start an answer, and the logarithm of its probability. */
export interface StartBeam {
  readonly token: number
  readonly logProbability: number
}

function logSumExp(logits: Float32Array): number {
  const largest = logits.reduce((most, logit) => Math.max(most, logit), Number.NEGATIVE_INFINITY)
  return largest + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0))
}

/** The best of the allowed tokens from `from` on, the best first, of equal ones the first. */
function best(logits: Float32Array, penalties: Float32Array, from: number, most: number): StartBeam[] {
  const shift = logSumExp(logits)
  const tokens: number[] = []
  for (let token = from; token < logits.length; token++) if (penalties[token] === 0) tokens.push(token)
  tokens.sort((a, b) => (logits[b] as number) - (logits[a] as number) || a - b)
  return tokens.slice(0, most).map((token) => ({ token, logProbability: (logits[token] as number) - shift }))
}

/** @param penalties 0 for the tokens that may be part of an answer */
export function bestStarts(logits: Float32Array, penalties: Float32Array, most: number): StartBeam[] {
  return best(logits, penalties, 0, most)
}

/**
 * Spans as three numbers each: first token, last token, logarithm of the probability.
 * @param logits [starts, tokens]
 */
export function bestEnds(
  starts: readonly StartBeam[],
  logits: Float32Array,
  penalties: Float32Array,
  most: number,
): Float32Array {
  const tokens = penalties.length
  const spans = starts.flatMap(({ token: start, logProbability: ofStart }, row) => {
    const ends = best(logits.subarray(row * tokens, (row + 1) * tokens), penalties, start, most)
    return ends.flatMap(({ token, logProbability }) => [start, token, ofStart + logProbability])
  })
  return Float32Array.from(spans)
}
