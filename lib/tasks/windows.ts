/** Windows of a text that is longer than a model takes: which of those that overlap decides about a token. */

/** Tokens [begin, end) of a text. */
export interface TokenRange {
  readonly begin: number
  readonly end: number
}

/**
 * The window where a token has most context: the one with the largest smaller side of it, then the longer one, then the first (the
 * original BERT's rule).
 * @returns the window's index; -1 when none holds the token
 */
export function windowWithMostContext(windows: readonly TokenRange[], token: number): number {
  let best = -1
  let most = -1
  for (const [index, { begin, end }] of windows.entries()) {
    if (token < begin || token >= end) continue
    const context = Math.min(token - begin, end - 1 - token) + 0.01 * (end - begin)
    if (context > most) {
      best = index
      most = context
    }
  }
  return best
}
