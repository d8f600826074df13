/** Which ids and offsets come out of which text: the spec's vectors, the shared expectations, and two oracles. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { Tokenizer as OracleTokenizer } from '@huggingface/tokenizers'
import t from 'tap'
import {
  createTokenizer,
  loadVocabulary,
  type Tokenizer,
  type TokenizerOptions,
  tokenizerFiles,
} from '../../dist/text/index.js'
import { needsSharedData, sharedData } from '../helpers/shared.js'

const shared = (path: string): string => join(sharedData as string, path)

const plain = { addSpecialTokens: false } as const
const idsOf = (tokenizer: Tokenizer, text: string): number[] =>
  Array.from(tokenizer(text, plain).inputIds[0] ?? [])
const offsetsOf = (tokenizer: Tokenizer, text: string): number[] =>
  Array.from(tokenizer(text, { ...plain, returnOffsetsMapping: true }).offsetsMapping?.[0] ?? [])

/** Where each code point of a text begins, in UTF-16 units, and where the text ends. */
function utf16Places(text: string): number[] {
  const places = [0]
  for (const character of text) places.push((places.at(-1) as number) + character.length)
  return places
}

interface Case {
  readonly setting: number
  readonly text: string
  readonly ids: number[]
  readonly offsets?: number[]
  readonly words?: number[]
}

t.test(
  'random Unicode gives the ids, offsets and words of Hugging Face 0.23.2 and the ids of the original code',
  async (t) => {
    // Made by scripts/generate-tokenizer-cases.py from the two references.
    const [first = '', ...lines] = readFileSync(
      new URL('../../test/text/unicode-cases.jsonl', import.meta.url),
      'utf8',
    )
      .trimEnd()
      .split('\n')
    const { vocabulary, settings } = JSON.parse(first) as {
      vocabulary: string[]
      settings: Omit<TokenizerOptions, 'vocabulary'>[]
    }
    const tokenizers = settings.map((setting) => createTokenizer({ ...setting, vocabulary }))
    for (const line of lines) {
      const row = JSON.parse(line) as Case
      const tokenizer = tokenizers[row.setting] as Tokenizer
      const about = `setting ${row.setting}, ${JSON.stringify(row.text)}`
      const encoding = tokenizer(row.text, { ...plain, returnOffsetsMapping: true, returnWordIds: true })
      assert.deepEqual(Array.from(encoding.inputIds[0] ?? []), row.ids, about)
      assert.deepEqual(idsOf(tokenizer, row.text), row.ids, `${about}: without offsets`)
      assert.deepEqual(
        Array.from(tokenizer.encodeBytes(Buffer.from(row.text))),
        row.ids,
        `${about}: from bytes`,
      )
      if (row.offsets) assert.deepEqual(Array.from(encoding.offsetsMapping?.[0] ?? []), row.offsets, about)
      if (row.words) assert.deepEqual(Array.from(encoding.wordIds?.[0] ?? []), row.words, about)
    }
    t.equal(lines.length, 280)
  },
)

t.test('the published vectors of the English uncased vocabulary', needsSharedData, async (t) => {
  const file = shared('vocab/bert-uncased-vocab.txt')
  const tokenizer = await loadVocabulary(file)
  const google = await loadVocabulary(file, { unicode: 'google' })
  t.equal(tokenizer.vocabularySize, 30522)
  const same: readonly (readonly [string, readonly number[]])[] = [
    ['unaffable', [14477, 20961, 3468]],
    [
      "Hello, World! ELECTRA's   pre-training.",
      [7592, 1010, 2088, 999, 11322, 2527, 1005, 1055, 3653, 1011, 2731, 1012],
    ],
    ['Ünïcödé naïve café', [27260, 15743, 7668]],
    ['東京 is 2020年', [1879, 1755, 2003, 12609, 1840]],
    ["I'm can't won't", [1045, 1005, 1049, 2064, 1005, 1056, 2180, 1005, 1056]],
    ['$100^2=`x`~y', [1002, 2531, 1034, 1016, 1027, 1036, 1060, 1036, 1066, 1061]],
    ['tab\tnew\nline\u00a0nbsp', [21628, 2047, 2240, 1050, 5910, 2361]],
    ['emoji 😀🤖', [7861, 29147, 2072, 100]],
    ['ﬁne', [1984, 2638]],
    ['İstanbul', [9960]],
    ['1,234.56%', [1015, 1010, 22018, 1012, 5179, 1003]],
    ['', []],
  ]
  for (const [text, ids] of same) {
    t.same(idsOf(tokenizer, text), ids, text)
    t.same(idsOf(google, text), ids, `${text} (google)`)
  }
  t.same(offsetsOf(tokenizer, "Hello, World! ELECTRA's   pre-training.").slice(8, 12), [14, 19, 19, 21])
  t.same(offsetsOf(tokenizer, "Hello, World! ELECTRA's   pre-training.").slice(16, 18), [26, 29])
  t.same(offsetsOf(tokenizer, 'Ünïcödé naïve café'), [0, 7, 8, 13, 14, 18])
  t.same(
    offsetsOf(tokenizer, 'a\u200bb\u00adc'),
    [0, 5],
    'dropped characters lie within the token around them',
  )
  t.same(offsetsOf(tokenizer, '😀 a'), [0, 2, 3, 4], 'UTF-16 units: an emoji counts two')

  t.same(idsOf(tokenizer, '[MASK] token [mask]'), [103, 19204, 1031, 7308, 1033])
  t.same(google.tokenize('[MASK] token [mask]'), ['[', 'mask', ']', 'token', '[', 'mask', ']'])
  t.same(idsOf(tokenizer, 'x'.repeat(101)), [100], 'more than 100 characters are unknown')
  t.equal(idsOf(google, 'x'.repeat(101)).length, 51, 'the original takes 200')
  t.same(idsOf(google, 'x'.repeat(201)), [100])
  t.equal(tokenizer.convertIdsToTokens(idsOf(tokenizer, 'ΟΔΥΣΣΕΥΣ')).at(-1), '##σ')
  t.equal(google.convertIdsToTokens(idsOf(google, 'ΟΔΥΣΣΕΥΣ')).at(-1), '##ς')
})

interface SharedRow {
  readonly text: string
  readonly ids: number[]
  readonly hf_same?: boolean
  readonly hf_tokens?: string[]
  readonly offsets?: [number, number][]
}

t.test('all rows of the shared tokenizer expectations, in both modes', needsSharedData, async (t) => {
  const sets = [
    'edge-cases.uncased',
    'blns.uncased',
    'english.uncased',
    'multilingual.uncased',
    'multilingual.multi-cased',
    'squad-questions',
  ]
  for (const name of sets) {
    const cased = name.endsWith('multi-cased')
    const file = shared(`vocab/bert-${cased ? 'multi-cased' : 'uncased'}-vocab.txt`)
    // The rows were made by the raw library with at most 200 characters a word, special tokens in texts not recognised.
    const options = { cased, maxInputCharsPerWord: 200, splitSpecialTokens: true }
    const huggingface = await loadVocabulary(file, options)
    const google = await loadVocabulary(file, { ...options, unicode: 'google' })
    const rows = gunzipSync(readFileSync(shared(`tokenizer/${name}.jsonl.gz`)))
      .toString()
      .trimEnd()
      .split('\n')
    let others = 0
    for (const line of rows) {
      const row = JSON.parse(line) as SharedRow
      const about = `${name}: ${JSON.stringify(row.text)}`
      assert.deepEqual(idsOf(google, row.text), row.ids, `google, ${about}`)
      if (row.hf_same === false) {
        assert.deepEqual(huggingface.tokenize(row.text), row.hf_tokens, about)
        others += 1
        continue
      }
      assert.deepEqual(idsOf(huggingface, row.text), row.ids, about)
      if (row.offsets === undefined) continue
      const places = utf16Places(row.text)
      assert.deepEqual(
        offsetsOf(huggingface, row.text),
        row.offsets.flat().map((place) => places[place]),
        about,
      )
    }
    t.pass(`${name}: ${rows.length} rows, ${others} of them different in the two modes`)
  }
})

interface UpstreamCase {
  readonly op: string
  readonly text: string
  readonly lower?: boolean
  readonly strip_accents?: boolean
  readonly vocab?: string[]
  readonly tokens: string[]
  readonly ids?: number[]
  readonly offsets?: [number, number][]
  readonly kind: 'whitespace' | 'control' | 'punctuation'
  readonly true: string[]
  readonly false: string[]
}

t.test('the facts of the upstream unit tests', needsSharedData, async (t) => {
  const { cases } = JSON.parse(readFileSync(shared('tokenizer/upstream-facts.json'), 'utf8')) as {
    cases: UpstreamCase[]
  }
  const withSpecial = (words: readonly string[]): string[] => [
    ...words,
    ...['[UNK]', '[CLS]', '[SEP]', '[PAD]', '[MASK]'].filter((token) => !words.includes(token)),
  ]
  const english = await loadVocabulary(shared('vocab/bert-uncased-vocab.txt'))
  // What one character between two letters makes of them.
  const around = (character: string): string[] => {
    const words = withSpecial(['a', 'aa', 'aAa', 'a a', character].filter((word) => word.trim() !== ''))
    return createTokenizer({ vocabulary: words, lowercase: false }).tokenize(`a${character}a`)
  }
  for (const entry of cases) {
    const { op, text, lower = false, strip_accents = lower, vocab, tokens, ids } = entry
    if (op === 'full' || op === 'wordpiece' || op === 'basic') {
      // The basic tokenizer alone: a vocabulary that knows the expected words gives them back.
      const vocabulary = withSpecial(vocab ?? [...new Set(tokens)])
      const tokenizer = createTokenizer({ vocabulary, lowercase: lower, stripAccents: strip_accents })
      t.same(tokenizer.tokenize(text), tokens, `${op}: ${JSON.stringify(text)}`)
      if (ids) t.same(idsOf(tokenizer, text), ids)
    } else if (op === 'class') {
      const parts = { whitespace: ['a', 'a'], control: ['aa'], punctuation: ['a', undefined, 'a'] }[
        entry.kind
      ]
      for (const character of entry.true) {
        t.same(
          around(character),
          parts.map((part) => part ?? character),
          `${entry.kind}: ${JSON.stringify(character)}`,
        )
      }
      for (const character of entry.false) {
        t.notSame(
          around(character),
          parts.map((part) => part ?? character),
          `not ${entry.kind}: ${JSON.stringify(character)}`,
        )
      }
    } else if (op === 'offsets') {
      const { inputIds, offsetsMapping } = english(text, { returnOffsetsMapping: true })
      t.same(english.convertIdsToTokens(inputIds[0] as Int32Array), tokens)
      t.same(Array.from(offsetsMapping?.[0] ?? []), entry.offsets?.flat())
    } else {
      t.equal(op, 'pair_layout', 'no fact is passed over')
      const [a, b] = ['sequence builders', 'multi-sequence build']
      const expected = [101, ...english.encode(a), 102, ...english.encode(b), 102]
      t.same(Array.from(english(a, { textPair: b }).inputIds[0] ?? []), expected)
    }
  }
})

/** A small generator of numbers with a seed that can be printed. */
function randomNumbers(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

t.test('agrees with @huggingface/tokenizers on random text of settled scripts', needsSharedData, async () => {
  const tokenizer = await loadVocabulary(shared('vocab/bert-uncased-vocab.txt'))
  const files = tokenizerFiles(tokenizer.specification)
  const oracle = new OracleTokenizer(
    JSON.parse(files['tokenizer.json'] as string) as object,
    JSON.parse(files['tokenizer_config.json'] as string) as object,
  )
  // Scripts whose characters are as old as the tables; the oracle asks the runtime, which is newer. No capital sigma: the runtime
  // lower-cases it by context.
  const ranges = [
    [32, 126],
    [0xa1, 0x17f],
    [0x3b1, 0x3c9],
    [0x410, 0x44f],
    [0x5d0, 0x5ea],
    [0x627, 0x63a],
    [0x905, 0x939],
    [0xe01, 0xe2e],
    [0x3041, 0x3093],
    [0x4e00, 0x9fa5],
    [0xac00, 0xd7a3],
    [0x1f600, 0x1f640],
    [0x300, 0x333],
  ] as const // prettier-ignore
  for (let seed = 1; seed <= 1500; seed++) {
    const random = randomNumbers(seed)
    const words = Array.from({ length: 1 + random(6) }, () =>
      Array.from({ length: 1 + random(7) }, () => {
        const [low, high] = ranges[random(3) === 0 ? random(ranges.length) : 0] as readonly [number, number]
        return String.fromCodePoint(low + random(high - low + 1))
      }).join(''),
    )
    const text = words.join(' ')
    assert.deepEqual(
      idsOf(tokenizer, text),
      oracle.encode(text, { add_special_tokens: false }).ids,
      `seed ${seed}: ${JSON.stringify(text)}`,
    )
  }
})

t.test('bytes that are no UTF-8 count as U+FFFD and are dropped; lone surrogates too', async (t) => {
  const vocabulary = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'ab', 'a', 'b', 'é']
  const tokenizer = createTokenizer({ vocabulary, stripAccents: false })
  for (const broken of [[0xff], [0xc3], [0xe2, 0x82], [0xf0, 0x9f, 0x98], [0xed, 0xa0, 0x80], [0xc0, 0x80]]) {
    t.same(Array.from(tokenizer.encodeBytes(Uint8Array.from([0x61, ...broken, 0x62]))), [5], `a ${broken} b`)
  }
  t.same(Array.from(tokenizer.encodeBytes(Uint8Array.from([0xc3, 0xa9]))), [8])
  t.same(idsOf(tokenizer, 'a\ud800b'), [5])
  t.same(offsetsOf(tokenizer, '\udc00a\ud800b é'), [1, 4, 5, 6])
  t.same(Array.from(tokenizer.encodeBytes(new Uint8Array())), [])
})

t.test('a word longer than the cache, a word twice, and a long text give what short ones give', async (t) => {
  const letters = [...'abcdefghijklmnopqrstuvwxyz']
  const vocabulary = [
    '[PAD]',
    '[UNK]',
    '[CLS]',
    '[SEP]',
    '[MASK]',
    ...letters,
    ...letters.map((letter) => `##${letter}`),
  ]
  const tokenizer = createTokenizer({ vocabulary })
  for (const length of [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 99, 100]) {
    const word = letters.join('').repeat(4).slice(0, length)
    const expected = [...word].map((letter, i) => (i === 0 ? letter : `##${letter}`))
    t.same(tokenizer.tokenize(word), expected, `${length} letters`)
    t.same(
      tokenizer.tokenize(`${word.toUpperCase()} ${word}`),
      [...expected, ...expected],
      `${length} letters again`,
    )
  }
  t.equal(idsOf(tokenizer, 'ab c '.repeat(100_000)).length, 300_000)
})

t.test('results keep their ids while thousands follow, and after a buffer is moved away', async (t) => {
  const vocabulary = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'b', '##b', '##a']
  const tokenizer = createTokenizer({ vocabulary })
  const random = (at: number): string => 'ab'.repeat(at % 7).slice(at % 2) + ' a'.repeat(at % 2000)
  const expected = (text: string): number[] => idsOf(tokenizer, text)
  const texts = Array.from({ length: 400 }, (_, at) => random(at * 31))
  const results = texts.map((text) => tokenizer.encode(text))
  const moved = tokenizer.encode('a b a')
  t.same(Array.from(moved), [5, 6, 5])
  texts.forEach((text, at) => {
    assert.deepEqual(Array.from(results[at] as Int32Array), expected(text))
  })
  structuredClone(moved, { transfer: [moved.buffer as ArrayBuffer] })
  t.equal(moved.length, 0)
  for (let round = 0; round < 3; round++) t.same(Array.from(tokenizer.encode('b a b')), [6, 5, 6])
})

t.test('documents in one call give the ids of each of their lines', async (t) => {
  const vocabulary = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'b', 'c', '\u00e9']
  const tokenizer = createTokenizer({ vocabulary, stripAccents: false })
  const documents = ['a b\n\n \nc', '', '\u00e9 a\n', '\n', 'c c\nb\n']
  const utf8 = documents.map((text) => Buffer.from(text))
  let end = 0
  const ends = Uint32Array.from(utf8, ({ length }) => {
    end += length
    return end
  })
  const result = tokenizer.encodeDocuments(Buffer.concat(utf8), ends)
  t.same(Array.from(result.tokens), [5, 6, 7, 8, 5, 7, 7, 6])
  t.same(Array.from(result.sentences), [0, 2, 3, 5, 7, 8])
  t.same(Array.from(result.documents), [0, 2, 2, 3, 3, 5])
  t.equal(result.tokens.BYTES_PER_ELEMENT, 2)
  t.same(Array.from(tokenizer.encodeDocuments(Buffer.from('a'), new Uint32Array()).documents), [0])
  for (const wrong of [[2, 1], [100]]) {
    const call = (): unknown => tokenizer.encodeDocuments(Buffer.from('a b c'), Uint32Array.from(wrong))
    t.throws(call, { code: 'ERR_ARGUMENT', message: /a document ends at byte/ })
  }
})
