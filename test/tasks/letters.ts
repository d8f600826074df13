/** A tokenizer whose pieces are single letters and a few words, so that every test can count tokens by eye. */
import { createTokenizer, type Tokenizer } from '../../dist/text/index.js'

const letters = [...'abcdefghijklmnopqrstuvwxyz0123456789']

export function letterTokenizer(
  words: readonly string[] = [],
  options: { lowercase?: boolean } = {},
): Tokenizer {
  const vocabulary = [
    ...['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'],
    ...letters,
    ...letters.map((letter) => `##${letter}`),
    ...'.,!?-\'"',
    ...words,
  ]
  return createTokenizer({ vocabulary, ...options })
}
