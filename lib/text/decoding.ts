/** From tokens back to text. */

const cleanUps: readonly (readonly [string, string])[] = [
  [' .', '.'],
  [' ?', '?'],
  [' !', '!'],
  [' ,', ','],
  [" ' ", "'"],
  [" n't", "n't"],
  [" 'm", "'m"],
  [" 's", "'s"],
  [" 've", "'ve"],
  [" 're", "'re"],
]

/** Takes out the spaces before punctuation and in English contractions, as Hugging Face's libraries do by default. */
export function cleanUpTokenization(text: string): string {
  return cleanUps.reduce((cleaned, [spaced, plain]) => cleaned.replaceAll(spaced, plain), text)
}

/** Joins tokens: a continuation to the token before, everything else behind a space. */
export function joinTokens(tokens: readonly string[], continuationPrefix: string): string {
  return tokens
    .map((token, i) => {
      if (i === 0) return token
      const continues = continuationPrefix !== '' && token.startsWith(continuationPrefix)
      return continues ? token.slice(continuationPrefix.length) : ` ${token}`
    })
    .join('')
}
