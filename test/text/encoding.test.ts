/** Rows: pairs, special tokens, truncation, overflowing parts, words, decoding, and what is refused. */
import t from 'tap'
import type { VoltaicError } from '../../dist/runtime/errors.js'
import { createTokenizer, type Tokenizer } from '../../dist/text/index.js'
import { cut, longestFirst } from '../../dist/text/truncation.js'

const special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
const letters = [...'abcdefghijklmnopqrstuvwxyz']
const extra = ['##b', '##c', 'do', 'not', "'", 't', '.', 'hello', '##lo']
const vocabulary = [...new Set([...special, ...letters, ...extra])]
const tokenizer = createTokenizer({ vocabulary })

function show(rows: readonly Int32Array[], using: Tokenizer = tokenizer): string[] {
  return rows.map((row) => using.convertIdsToTokens(row).join(' '))
}

function code(call: () => unknown): string {
  try {
    call()
  } catch (error) {
    return `${(error as VoltaicError).code} ${(error as Error).message}`
  }
  return 'no error'
}

t.test('one row a text, one type a part', async (t) => {
  const one = tokenizer('a bc')
  t.same(show(one.inputIds), ['[CLS] a b ##c [SEP]'])
  t.ok(one.inputIds[0] instanceof Int32Array)
  t.same(Object.keys(one), ['inputIds', 'tokenTypeIds'], 'nothing that was not asked for')
  t.same(show(tokenizer(['a', 'b c', '']).inputIds), ['[CLS] a [SEP]', '[CLS] b c [SEP]', '[CLS] [SEP]'])
  t.same(tokenizer([]).inputIds, [])
  const pairs = tokenizer([
    ['a b', 'c'],
    ['d', 'e f'],
  ])
  t.same(show(pairs.inputIds), ['[CLS] a b [SEP] c [SEP]', '[CLS] d [SEP] e f [SEP]'])
  t.same(
    pairs.tokenTypeIds.map((row) => Array.from(row)),
    [
      [0, 0, 0, 0, 1, 1],
      [0, 0, 0, 1, 1, 1],
    ],
  )
  t.same(tokenizer(['a b', 'd'], { textPair: ['c', 'e f'] }), pairs)
  t.same(show(tokenizer('a', { textPair: 'b' }).inputIds), ['[CLS] a [SEP] b [SEP]'])
  const bare = tokenizer('a', { textPair: 'b', addSpecialTokens: false })
  t.same(show(bare.inputIds), ['a b'])
  t.same(Array.from(bare.tokenTypeIds[0] ?? []), [0, 1])
})

t.test('offsets and words of pairs count in their own text; special tokens have none', async (t) => {
  const { offsetsMapping, wordIds } = tokenizer('x abc', {
    textPair: '  hello',
    returnOffsetsMapping: true,
    returnWordIds: true,
  })
  t.same(Array.from(offsetsMapping?.[0] ?? []), [0, 0, 0, 1, 2, 3, 3, 4, 4, 5, 0, 0, 2, 7, 0, 0])
  t.same(Array.from(wordIds?.[0] ?? []), [-1, 0, 1, 1, 1, -1, 0, -1])
})

t.test('words given by the caller are tokenized one by one', async (t) => {
  const options = { isSplitIntoWords: true, returnOffsetsMapping: true, returnWordIds: true } as const
  const { inputIds, offsetsMapping, wordIds } = tokenizer(['abc', '', 'a.b', 'x'], options)
  t.same(show(inputIds), ['[CLS] a ##b ##c a . b x [SEP]'])
  t.same(Array.from(wordIds?.[0] ?? []), [-1, 0, 0, 0, 2, 2, 2, 3, -1])
  t.same(Array.from(offsetsMapping?.[0] ?? []), [0, 0, 0, 1, 1, 2, 2, 3, 0, 1, 1, 2, 2, 3, 0, 1, 0, 0])
  t.same(show(tokenizer([['a', 'b'], ['c']], { isSplitIntoWords: true }).inputIds), [
    '[CLS] a b [SEP]',
    '[CLS] c [SEP]',
  ])
  t.same(show(tokenizer(['a', 'b'], { isSplitIntoWords: true, textPair: ['c'] }).inputIds), [
    '[CLS] a b [SEP] c [SEP]',
  ])
  t.same(
    inputIds,
    tokenizer(['abc', '', 'a.b', 'x'], { isSplitIntoWords: true }).inputIds,
    'the same without offsets',
  )
})

/** The original rule, in its own words: one token at a time. */
function popped(first: number, second: number, room: number): [number, number] {
  let [a, b] = [first, second]
  while (a + b > room) {
    if (a > b) a -= 1
    else b -= 1
  }
  return [a, b]
}

t.test('longest_first: both orders, for all lengths to 20', async (t) => {
  t.same(longestFirst(2, 3, 3, 'huggingface'), [1, 2])
  t.same(longestFirst(2, 3, 3, 'google'), [2, 1])
  let wrong = 0
  for (let a = 0; a <= 20; a++) {
    for (let b = 0; b <= 20; b++) {
      for (let room = 0; room <= 40; room++) {
        const [x, y] = longestFirst(a, b, room, 'google')
        const [p, q] = popped(a, b, room)
        const [u, v] = longestFirst(a, b, room, 'huggingface')
        const differs = room % 2 === 1 && a <= b && a > room / 2 && b > room / 2
        if (x !== p || y !== q) wrong += 1
        // The two orders differ by one token, exactly there.
        if (differs ? u !== p - 1 || v !== q + 1 : u !== p || v !== q) wrong += 1
      }
    }
  }
  t.equal(wrong, 0)
  const google = createTokenizer({ vocabulary, truncationOrder: 'google' })
  t.same(show(tokenizer([['a b', 'c d e']], { maxLength: 6 }).inputIds), ['[CLS] a [SEP] c d [SEP]'])
  t.same(show(google([['a b', 'c d e']], { maxLength: 6 }).inputIds), ['[CLS] a b [SEP] c [SEP]'])
})

t.test('truncation cuts what its name says, to maxLength with special tokens', async (t) => {
  const run = (options: object): string[] =>
    show(tokenizer('a b c d', { textPair: 'e f g', ...options }).inputIds)
  t.same(run({ maxLength: 7 }), ['[CLS] a b [SEP] e f [SEP]'])
  t.same(run({ maxLength: 7, truncation: 'only_first' }), ['[CLS] a [SEP] e f g [SEP]'])
  t.same(run({ maxLength: 8, truncation: 'only_second' }), ['[CLS] a b c d [SEP] e [SEP]'])
  t.same(run({ maxLength: 7, truncation: false }), ['[CLS] a b c d [SEP] e f g [SEP]'])
  t.same(run({ truncation: true }), ['[CLS] a b c d [SEP] e f g [SEP]'], 'no limit is known')
  const limited = createTokenizer({ vocabulary, modelMaxLength: 4 })
  t.same(show(limited('a b c', { truncation: true }).inputIds), ['[CLS] a b [SEP]'])
  t.same(show(limited('a b c').inputIds), ['[CLS] a b c [SEP]'])
  t.same(show(tokenizer('a b c', { maxLength: 2 }).inputIds), ['[CLS] [SEP]'])
})

t.test('overflowing parts start at multiples of room minus stride and end with the text', async (t) => {
  const options = { maxLength: 6, stride: 1, returnOverflowingTokens: true } as const
  const { inputIds, overflowToSampleMapping } = tokenizer(['a b c d e f g h', 'x y'], options)
  t.same(show(inputIds), ['[CLS] a b c d [SEP]', '[CLS] d e f g [SEP]', '[CLS] g h [SEP]', '[CLS] x y [SEP]'])
  t.same(Array.from(overflowToSampleMapping ?? []), [0, 0, 0, 1])
  t.same(cut(1000, 499, 128), {
    kept: [0, 499],
    overflow: [
      [371, 870],
      [742, 1000],
    ],
  })
  const question = tokenizer('q', {
    textPair: 'a b c d e',
    maxLength: 7,
    stride: 1,
    truncation: 'only_second',
    returnOverflowingTokens: true,
    returnOffsetsMapping: true,
  })
  t.same(show(question.inputIds), ['[CLS] q [SEP] a b c [SEP]', '[CLS] q [SEP] c d e [SEP]'])
  t.same(Array.from(question.offsetsMapping?.[1] ?? []), [0, 0, 0, 1, 0, 0, 4, 5, 6, 7, 8, 9, 0, 0])
  t.same(
    show(tokenizer('a b c', { textPair: 'x y z', maxLength: 7, returnOverflowingTokens: true }).inputIds),
    [
      '[CLS] a b [SEP] x y [SEP]',
      '[CLS] c [SEP] x y [SEP]',
      '[CLS] c [SEP] z [SEP]',
      '[CLS] a b [SEP] z [SEP]',
    ],
    'parts of both texts in the order of Hugging Face',
  )
})

t.test('improper use is thrown where it is given', async (t) => {
  const wrong = (input: unknown, options: object = {}): string =>
    code(() => tokenizer(input as string, options))
  t.match(wrong(7), /^ERR_ARGUMENT .*the input is a number/)
  t.match(wrong(['a', 7]), /^ERR_ARGUMENT .*text 1 is a number/)
  t.match(wrong([['a', 'b', 'c']]), /^ERR_ARGUMENT .*isSplitIntoWords/)
  t.match(wrong(['a'], { textPair: ['b', 'c'] }), /^ERR_ARGUMENT .*textPair has 2 texts, the input 1/)
  t.match(wrong(['a', 3], { isSplitIntoWords: true }), /^ERR_ARGUMENT .*word 1/)
  t.match(wrong('a', { maxLength: -1 }), /^ERR_ARGUMENT .*maxLength is -1/)
  t.match(wrong('a', { maxLength: 1 }), /^ERR_ARGUMENT .*2 special tokens/)
  t.match(wrong('a', { maxLength: 5, truncation: 'longest' }), /^ERR_ARGUMENT .*longest_first/)
  t.match(
    wrong('a b', { textPair: 'c', maxLength: 3, truncation: 'only_second' }),
    /^ERR_ARGUMENT .*only_second/,
  )
  t.match(wrong('a b c d', { maxLength: 4, truncation: 'only_second' }), /^ERR_ARGUMENT .*second text/)
  t.match(
    wrong('a b c d', { maxLength: 4, stride: 2, returnOverflowingTokens: true }),
    /^ERR_ARGUMENT .*stride is 2/,
  )
  t.match(wrong('a', { stride: 0.5 }), /^ERR_ARGUMENT .*stride/)
  t.match(
    code(() => tokenizer.decode([5, 999])),
    /^ERR_ARGUMENT .*id 999/,
  )
  t.match(
    code(() => tokenizer.encodeBytes('a' as unknown as Uint8Array)),
    /^ERR_ARGUMENT .*Uint8Array/,
  )
})

t.test('decoding joins pieces, and cleans up unless told not to', async (t) => {
  const ids = tokenizer("abc do not. don't").inputIds[0] as Int32Array
  t.same(tokenizer.convertIdsToTokens(ids), [
    '[CLS]',
    'a',
    '##b',
    '##c',
    'do',
    'not',
    '.',
    '[UNK]',
    "'",
    't',
    '[SEP]',
  ])
  t.equal(tokenizer.decode(ids), "[CLS] abc do not. [UNK]'t [SEP]")
  t.equal(tokenizer.decode(ids, { skipSpecialTokens: true }), "abc do not.'t")
  t.equal(tokenizer.decode(ids, { cleanUpTokenizationSpaces: false }), "[CLS] abc do not . [UNK] ' t [SEP]")
  t.same(tokenizer.batchDecode([[5], [6, 7]]), ['a', 'b c'])
  t.equal(tokenizer.decode([]), '')
})

t.test('tokens and ids, both ways', async (t) => {
  t.equal(tokenizer.vocabularySize, vocabulary.length)
  t.same(tokenizer.vocabulary, vocabulary)
  t.equal(tokenizer.tokenToId('a'), 5)
  t.equal(tokenizer.tokenToId('zzz'), undefined)
  t.equal(tokenizer.convertTokensToIds('zzz'), tokenizer.unkTokenId)
  t.same(tokenizer.convertTokensToIds(['a', '[SEP]']), [5, 3])
  t.equal(tokenizer.convertIdsToTokens(5), 'a')
  const { padTokenId, unkTokenId, clsTokenId, sepTokenId, maskTokenId } = tokenizer
  t.same([padTokenId, unkTokenId, clsTokenId, sepTokenId, maskTokenId], [0, 1, 2, 3, 4])
  t.same(tokenizer.specialTokenIds, [0, 1, 2, 3, 4])
})

t.test('a vocabulary without a special token is refused by its name', async (t) => {
  for (const token of special) {
    const message = code(() => createTokenizer({ vocabulary: vocabulary.filter((other) => other !== token) }))
    t.match(message, /^ERR_FORMAT /)
    t.ok(message.includes(token), token)
  }
  const renamed = vocabulary.map((token) => (token === '[UNK]' ? '<unk>' : token))
  t.equal(createTokenizer({ vocabulary: renamed, unkToken: '<unk>' }).unkTokenId, 1)
  t.match(
    code(() => createTokenizer({ vocabulary: [] })),
    /^ERR_FORMAT /,
  )
  t.match(
    code(() => createTokenizer({ vocabulary, maxInputCharsPerWord: 0 })),
    /^ERR_ARGUMENT /,
  )
})

t.test('added tokens are found in texts by their own rules', async (t) => {
  const using = createTokenizer({
    vocabulary,
    addedTokens: [
      { content: '<ent>', special: true, leftStrip: true },
      { content: 'Hello World' },
      { content: 'cab', singleWord: true },
    ],
  })
  t.equal(using.vocabularySize, vocabulary.length + 3)
  t.same(using.tokenize('a  <ent> b'), ['a', '<ent>', 'b'])
  t.same(using.tokenize('hello  WORLD'), ['hello', '[UNK]'], 'two spaces are not one')
  t.same(using.tokenize('xhello worlda'), ['x', 'Hello World', 'a'], 'in normalized text, within words')
  t.same(using.tokenize('cab cabs'), ['cab', '[UNK]'])
  const { offsetsMapping } = using('a  <ent>', { addSpecialTokens: false, returnOffsetsMapping: true })
  t.same(Array.from(offsetsMapping?.[0] ?? []), [0, 1, 1, 8], 'with the whitespace that it takes along')
  t.equal(using.decode(using('a <ent>').inputIds[0] as Int32Array, { skipSpecialTokens: true }), 'a')
  const splitting = createTokenizer({ ...using.specification, splitSpecialTokens: true })
  t.same(splitting.tokenize('[MASK]'), ['[UNK]', '[UNK]', '[UNK]'])
})
