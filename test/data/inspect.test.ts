/** Inspecting a corpus: what is planted in it is found, and counted exactly where exactness is claimed. */
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import t from 'tap'
import { createTokenizer, inspectCorpus } from 'voltaic'
import { LengthDistribution } from '../../dist/data/inspect-lengths.js'
import { NearDuplicateFinder } from '../../dist/data/inspect-near-duplicates.js'
import { hashText, RepeatCounter } from '../../dist/data/inspect-repeats.js'
import { createDraws, randomSite } from '../../dist/data/random.js'
import { madeUpText } from './text.js'

const draws = createDraws(7, randomSite.pairs)
const place = { file: 'f', line: 1 }

t.test('sizes and lengths', async (t) => {
  const folder = t.testdir({ 'a.txt': 'one two\nthree\n\nvier fünf 🚢\n', 'b.txt.gz': gzipSync('six\n') })
  const found = await inspectCorpus([join(folder, 'a.txt'), join(folder, 'b.txt.gz')])
  const { files, documents, lines, words, characters, bytes } = found
  t.same(
    { files, documents, lines, words, characters, bytes },
    { files: 2, documents: 3, lines: 4, words: 7, characters: 13 + 11 + 3, bytes: 13 + 15 + 3 },
  )
  t.match(found.lengths.documentWords, { count: 3, minimum: 1, median: 3, maximum: 3 })
  t.match(found.lengths.lineCharacters, { count: 4, minimum: 3, maximum: 11 })
  t.same(found.lengths.documentWords.histogram, [
    { from: 1, to: 2, count: 1 },
    { from: 2, to: 4, count: 2 },
  ])
})

t.test('quantiles are at most 1/32 too small', (t) => {
  const distribution = new LengthDistribution()
  const lengths = Array.from({ length: 5000 }, () => Math.floor(2 ** (draws.integer(0, 20_000) / 1000)))
  for (const length of lengths) distribution.add(length)
  lengths.sort((a, b) => a - b)
  const summary = distribution.summary()
  for (const [name, fraction] of [
    ['p5', 0.05],
    ['p25', 0.25],
    ['median', 0.5],
    ['p75', 0.75],
    ['p95', 0.95],
    ['p99', 0.99],
  ] as const) {
    const exact = lengths[Math.ceil(fraction * lengths.length) - 1]!
    t.ok(
      summary[name] <= exact && summary[name] > exact * (1 - 1 / 32),
      `${name}: ${summary[name]} of ${exact}`,
    )
  }
  t.equal(
    summary.histogram.reduce((sum, { count }) => sum + count, 0),
    lengths.length,
  )
  t.end()
})

t.test('exact duplicates of documents and lines, with places', async (t) => {
  const text = 'first line\nsame line\n\nother\n\nfirst line\nsame line\n\n  same line \nthe end\n'
  const folder = t.testdir({ 'a.txt': text, 'b.jsonl': '{"text":"x\\nother"}\n\n{"text":"other"}\n' })
  const found = await inspectCorpus([join(folder, 'a.txt'), join(folder, 'b.jsonl')])
  t.match(found.duplicateDocuments, { distinct: 4, repeats: 2, repeatedCharacters: 25, sampled: 1 })
  t.match(found.duplicateLines, { distinct: 5, repeats: 5, sampled: 1 })
  t.match(found.duplicateLines.frequent, [
    { text: 'same line', count: 3, file: join(folder, 'a.txt'), line: 7 },
    { text: 'other', count: 3, file: join(folder, 'b.jsonl'), line: 1 },
    { text: 'first line', count: 2, line: 6 },
  ])
})

t.test('a full table samples: the numbers become estimates', (t) => {
  const counter = new RepeatCounter(4096)
  // 40,000 texts, a fifth of them twice.
  for (let at = 0; at < 40_000; at++) {
    const text = `line ${at}`
    const hash = hashText(text, 0, text.length, 1)
    counter.add(hash, text, 0, text.length, text.length, place)
    if (at % 5 === 0) counter.add(hash, text, 0, text.length, text.length, place)
  }
  const { distinct, repeats, repeatedCharacters, sampled } = counter.summary(3)
  t.ok(sampled < 1 && sampled >= 1 / 32, `sampled ${sampled}`)
  // 2,048 texts or more are held, so the standard deviations are at most 2.2 % and 5 %: four of them.
  t.ok(Math.abs(distinct / 40_000 - 1) < 0.09, `distinct ${distinct}`)
  t.ok(Math.abs(repeats / 8000 - 1) < 0.2, `repeats ${repeats}`)
  t.ok(repeatedCharacters > 8 * 8000 && repeatedCharacters < 13 * 8000, `characters ${repeatedCharacters}`)
  t.end()
})

t.test('near-duplicates: recall and false finds', (t) => {
  const word = (): number => draws.integer(0, 2 ** 31 - 1)
  /** Replaces every nth word. */
  const edited = (words: number[], every: number): number[] =>
    words.map((old, at) => (at % every === every - 1 ? word() : old))
  const foundOf = (every: number): number => {
    const finder = new NearDuplicateFinder(1, 3, 1 << 12)
    const originals = Array.from({ length: 300 }, () => Array.from({ length: 150 }, word))
    for (const [at, words] of [...originals, ...originals.map((words) => edited(words, every))].entries()) {
      finder.begin()
      for (const hash of words) finder.addWord(hash)
      finder.end(at + 1, 1, { file: 'f', line: at + 1 }, false)
    }
    return finder.summary().documents
  }
  // 148 shingles each. Three words replaced: 139 of 157 are shared, J = 0.89; 0.7 is six deviations below.
  t.equal(foundOf(40), 300, 'J = 0.89')
  // Six words: 132 of 164, J = 0.80; three deviations, so a few of a thousand are missed.
  t.ok(foundOf(25) >= 285, 'J = 0.80')
  // Every sixth word: half of the shingles, J = 0.33, nine deviations below.
  t.equal(foundOf(6), 0, 'J = 0.33')
  t.end()
})

t.test('near-duplicates in a corpus: the pair, not the exact repeat', async (t) => {
  const original = madeUpText(3, 600).replaceAll('\n\n', '\n').trim()
  const changed = original.replace(/\S+/, 'changed')
  const folder = t.testdir({ 'a.txt': [original, original, 'short one', changed].join('\n\n') })
  const found = await inspectCorpus([join(folder, 'a.txt')])
  const lines = original.split('\n').length
  t.equal(found.duplicateDocuments.repeats, 1)
  t.match(found.nearDuplicates, {
    documents: 1,
    tooShort: 1,
    examples: [{ line: 2 * lines + 5, of: { line: 1 } }],
  })
})

t.test('scripts, and what Latin text looks like', async (t) => {
  const folder = t.testdir({
    'mixed.txt': [
      'The ship was late and the people of the town had to wait for it in the rain.',
      'Das Schiff war zu spät und die Leute in der Stadt mussten auf den Regen nicht warten.',
      'El barco llegó tarde y la gente de la ciudad no se fue, pero los niños lo vieron por una hora.',
      'Lorem ipsum dolor sit amet consectetur',
      'Все люди рождаются свободными',
      'すべての人間は、生まれながらにして自由であり',
      '人人生而自由',
      '12 345',
    ].join('\n\n'),
  })
  const { languages, scripts } = await inspectCorpus([join(folder, 'mixed.txt')])
  t.same(
    new Set(languages.map(({ looksLike }) => looksLike)),
    new Set(['English', 'German', 'Spanish', 'unclear (Latin)', 'Cyrillic', 'Japanese', 'Han', 'no letters']),
  )
  t.equal(scripts[0]?.script, 'Latin')
  t.match(
    scripts.map(({ script }) => script),
    ['Latin', 'Cyrillic'],
  )
  t.ok(Math.abs(scripts.reduce((sum, { share }) => sum + share, 0) - 1) < 1e-12)
})

t.test('odd characters, mojibake and remains of HTML, with the lines they stand on', async (t) => {
  const folder = t.testdir({
    'odd.txt':
      'clean\ntwo\u00a0spaces\n\nbell\u0007\nzero\u200bwidth \ufffd\n\ncafÃ© and donâ€™t, Å\u009b\n\n' +
      '<b class="x">bold</b> &amp; 3 < 4 & 5\n\nprivate \ue000, mark\u200e, new \u{e0080}\n',
    'clean.txt': 'naïve café, São Paulo, NÃO, 🚢 👩‍👧, می‌خواهم, a\u3000b < c\n',
  })
  const clean = await inspectCorpus([join(folder, 'clean.txt')])
  t.same(clean.oddities, [])
  const { oddities } = await inspectCorpus([join(folder, 'odd.txt')])
  const found = Object.fromEntries(
    oddities.map(({ kind, count, frequent, examples }) => [
      kind,
      [count, frequent[0]?.form, examples[0]?.line, examples[0]?.text],
    ]),
  )
  t.same(found, {
    replacement: [1, 'U+FFFD', 5, 'zero<U+200B>width \ufffd'],
    control: [2, 'U+0007', 4, 'bell<U+0007>'],
    'private-use': [1, 'U+E000', 11, 'private <U+E000>, mark<U+200E>, new <U+E0080>'],
    unassigned: [1, 'U+E0080', 11, 'private <U+E000>, mark<U+200E>, new <U+E0080>'],
    invisible: [1, 'U+200B', 5, 'zero<U+200B>width \ufffd'],
    'direction-mark': [1, 'U+200E', 11, 'private <U+E000>, mark<U+200E>, new <U+E0080>'],
    'unusual-space': [1, 'U+00A0', 2, 'two<U+00A0>spaces'],
    mojibake: [3, 'Ã©', 7, 'cafÃ© and donâ€™t, Å<U+009B>'],
    tag: [2, '<b>', 9, '<b class="x">bold</b> &amp; 3 < 4 & 5'],
    entity: [1, '&amp;', 9, '<b class="x">bold</b> &amp; 3 < 4 & 5'],
  })
})

t.test("the vocabulary's coverage", async (t) => {
  const vocabulary = [
    '[PAD]',
    '[UNK]',
    '[CLS]',
    '[SEP]',
    '[MASK]',
    '[unused1]',
    'the',
    'a',
    '##a',
    'boat',
    '##s',
    'rare',
  ]
  const tokenizer = createTokenizer({ vocabulary })
  const folder = t.testdir({ 'a.txt': 'the boats a\nzebra Zebra the\n\nquay the\n' })
  const { vocabulary: found, lengths } = await inspectCorpus([join(folder, 'a.txt')], { tokenizer })
  t.same(found, {
    vocabularySize: 12,
    tokens: 9,
    unknownShare: 3 / 9,
    unknownWords: [
      { word: 'zebra', count: 1 },
      { word: 'Zebra', count: 1 },
      { word: 'quay', count: 1 },
    ],
    piecesPerWord: 9 / 8,
    singleLetterShare: 2 / 9,
    unusedEntries: 2,
    unusedExamples: ['##a', 'rare'],
  })
  t.match(lengths.documentTokens, { count: 2, minimum: 2, maximum: 7 })
})

t.test('options out of range are refused; reading can be aborted', async (t) => {
  const folder = t.testdir({ 'a.txt': 'text' })
  const file = join(folder, 'a.txt')
  await t.rejects(inspectCorpus([file], { examples: 0 }), { code: 'ERR_ARGUMENT', message: /examples is 0/ })
  await t.rejects(inspectCorpus([file], { seed: -1 }), { code: 'ERR_ARGUMENT', message: /seed is -1/ })
  await t.rejects(inspectCorpus([file], { signal: AbortSignal.abort() }), { code: 'ERR_ABORTED' })
  await t.rejects(inspectCorpus([join(folder, 'b.txt')]), { code: 'ERR_IO' })
})
