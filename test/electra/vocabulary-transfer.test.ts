/** Models moved to another vocabulary: which row comes from which. */

import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import {
  createTokenizer,
  ElectraForMaskedLM,
  openModelSource,
  planVocabularyTransfer,
  type Tokenizer,
  transferRows,
  transferVocabulary,
} from 'voltaic'
import { smallConfig } from './helpers.js'

const specials = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
const tokenizerOf = (tokens: readonly string[], options: object = {}): Tokenizer =>
  createTokenizer({ vocabulary: [...specials, ...tokens], ...options })

/** The old tokens that each new one comes from. */
function origins(old: Tokenizer, now: Tokenizer): Record<string, string[]> {
  const { sources } = planVocabularyTransfer(old, now)
  return Object.fromEntries(
    now.vocabulary.map((token, id) => [
      token,
      (sources[id] ?? []).map((from) => old.vocabulary[from] as string),
    ]),
  )
}

const old = tokenizerOf(['sail', '##or', 'boat', 'b', '##oat', '##s', 'the', '##h', 'h', '##a', '##u', '.'])

t.test('rows are shared, averaged or fresh, by what the old tokenizer makes of a piece', async (t) => {
  const now = tokenizerOf(['boat', 'boats', 'sailor', '##ors', '##oat', 'x', '##x', 'the', '##boat'])
  t.same(origins(old, now), {
    ...Object.fromEntries(specials.map((token) => [token, [token]])),
    boat: ['boat'],
    boats: ['boat', '##s'],
    sailor: ['sail', '##or'],
    '##ors': ['##or', '##s'],
    '##oat': ['##oat'],
    x: [],
    '##x': [],
    the: ['the'],
    // Within a word the old vocabulary has no ##b: what it makes of the string at a word's beginning.
    '##boat': ['boat'],
  })
  const { special, shared, averaged, fresh } = planVocabularyTransfer(old, now)
  t.same({ special, shared, averaged, fresh }, { special: 5, shared: 3, averaged: 4, fresh: 2 })
})

t.test('special tokens go by their role, whatever they are called and wherever they stand', async (t) => {
  const now = createTokenizer({
    vocabulary: ['boat', '<unk>', '<s>', '<mask>', '</s>', '<pad>', '[CLS]'],
    ...{ unkToken: '<unk>', clsToken: '<s>', sepToken: '</s>', padToken: '<pad>', maskToken: '<mask>' },
  })
  const from = origins(old, now)
  t.same(from, {
    boat: ['boat'],
    '<unk>': ['[UNK]'],
    '<s>': ['[CLS]'],
    '<mask>': ['[MASK]'],
    '</s>': ['[SEP]'],
    '<pad>': ['[PAD]'],
    // A token of that name without the role is none.
    '[CLS]': from['[CLS]'],
  })
})

t.test("case and accents are the old tokenizer's affair", async (t) => {
  const now = tokenizerOf(['Boat', 'Haús', '##AU', '##Hau'], { lowercase: false })
  t.same(Object.fromEntries(Object.entries(origins(old, now)).slice(5)), {
    Boat: ['boat'],
    Haús: ['h', '##a', '##u', '##s'],
    // 'au' begins no word of the old vocabulary, but goes on within one.
    '##AU': ['##a', '##u'],
    '##Hau': ['##h', '##a', '##u'],
  })
})

t.test('rows: kept bit for bit, means, and first values', async (t) => {
  const now = tokenizerOf(['boats', 'boat', 'x'])
  const plan = planVocabularyTransfer(old, now)
  const table = Float32Array.from({ length: 17 * 2 }, (_, at) => Math.fround(Math.sin(at + 1) / 3))
  const fresh = new Float32Array(8 * 2).fill(9)
  const rows = transferRows(plan, table, fresh, 2)
  const row = (from: Float32Array, id: number): Float32Array => from.subarray(2 * id, 2 * id + 2)
  const id = (token: string): number => old.convertTokensToIds(token)
  for (const role of [0, 1, 2, 3, 4]) t.same(row(rows, role), row(table, role))
  t.same(row(rows, 6), row(table, id('boat')))
  t.same([...row(rows, 7)], [9, 9])
  const [a, b] = [row(table, id('boat')), row(table, id('##s'))]
  t.same(
    [...row(rows, 5)],
    [0, 1].map((at) => Math.fround(((a[at] as number) + (b[at] as number)) / 2)),
  )
  t.throws(() => transferRows(plan, table.subarray(2), fresh, 2), { code: 'ERR_SHAPE' })
  t.throws(() => planVocabularyTransfer(old, now, 16), {
    code: 'ERR_ARGUMENT',
    message: /is it the model's own/,
  })
})

t.test('any vocabulary moves to any order of itself without a change', async (t) => {
  const pieces = fc.uniqueArray(fc.stringMatching(/^(##)?[a-z]{1,4}$/), { minLength: 1, maxLength: 20 })
  const property = fc.property(
    pieces.chain((list) =>
      fc.tuple(fc.constant(list), fc.shuffledSubarray(list, { minLength: list.length })),
    ),
    ([list, shuffled]) => {
      const [before, after] = [tokenizerOf(list), tokenizerOf(shuffled)]
      const plan = planVocabularyTransfer(before, after)
      return (
        plan.shared === list.length &&
        plan.sources.every(([from], to) => before.vocabulary[from as number] === after.vocabulary[to])
      )
    },
  )
  t.doesNotThrow(() => fc.assert(property))
})

t.test('a whole generator: its table, its bias, nothing else; fresh rows from the seed', async (t) => {
  const folder = t.testdir()
  const config = smallConfig({ vocabSize: 17 })
  const model = new ElectraForMaskedLM(config, { seed: 1 })
  const bias = Float32Array.from({ length: 17 }, (_, id) => id / 8)
  for (const [name, parameter] of model.namedParameters())
    if (name === 'generator_lm_head.bias') parameter.assign(bias)
  await model.savePretrained(join(folder, 'old'))
  model.dispose()
  const now = tokenizerOf(['boats', 'boat', 'x'])
  using source = await openModelSource(join(folder, 'old'))
  const moved = await transferVocabulary(source, old, now, { seed: 4 })
  const { special, shared, averaged, fresh } = moved
  t.same({ special, shared, averaged, fresh }, { special: 5, shared: 1, averaged: 1, fresh: 1 })
  t.equal(moved.model.config.vocabSize, 8)
  const table = 'electra.embeddings.word_embeddings.weight'
  t.same(
    [...moved.model.tensors.float32('generator_lm_head.bias')],
    [
      ...[0, 1, 2, 3, 4].map((id) => id / 8),
      (old.convertTokensToIds('boat') + old.convertTokensToIds('##s')) / 16,
      old.convertTokensToIds('boat') / 8,
      0,
    ],
  )
  const drawn = moved.model.tensors.float32(table).slice(7 * 24)
  // A truncated normal of 0.02: none beyond two deviations, and not all alike.
  t.ok(drawn.every((value) => Math.abs(value) <= 0.04 + 1e-6) && new Set(drawn).size > 12)
  const again = await transferVocabulary(source, old, now, { seed: 4 })
  t.same(again.model.tensors.float32(table), moved.model.tensors.float32(table))
  const other = await transferVocabulary(source, old, now, { seed: 5 })
  t.notSame(other.model.tensors.float32(table).slice(7 * 24), drawn)
  for (const name of source.tensors.names.filter((name) => !/word_embeddings|lm_head/.test(name)))
    t.ok(Buffer.compare(moved.model.tensors.bytes(name), source.tensors.bytes(name)) === 0, name)
})
