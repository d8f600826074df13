/** Made-up text for tests of the data pipeline, and a tokenizer for it. */
import { createDraws, randomSite } from '../../dist/data/random.js'
import { createTokenizer } from '../../dist/text/index.js'

const syllables = ['ba', 'ke', 'lo', 'mi', 'nu', 'ra', 'si', 'to', 've', 'za']

const vocabulary = [
  '[PAD]',
  '[UNK]',
  '[CLS]',
  '[SEP]',
  '[MASK]',
  ...syllables,
  ...syllables.map((syllable) => `##${syllable}`),
  '.',
]

export const tokenizer = createTokenizer({ vocabulary })

/** Documents of 1 to 8 lines of 1 to 12 words of 1 to 3 syllables, a blank line between them. */
export function madeUpText(seed: number, bytes: number): string {
  const draws = createDraws(seed, randomSite.pairs)
  const many = (low: number, high: number, make: () => string, between: string): string =>
    Array.from({ length: draws.integer(low, high) }, make).join(between)
  const word = (): string => many(1, 3, () => syllables[draws.integer(0, 9)] as string, '')
  const line = (): string => `${many(1, 12, word, ' ')}.`
  const documents: string[] = []
  for (let length = 0; length < bytes; length += (documents.at(-1) as string).length + 2) {
    documents.push(many(1, 8, line, '\n'))
  }
  return `${documents.join('\n\n')}\n`
}
