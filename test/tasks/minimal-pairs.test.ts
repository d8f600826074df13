/** Minimal pairs: scores by hand, estimates on known data, files, and what a model that was taught a preference shows. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import {
  bootstrapMean,
  builtInPairs,
  createTokenizer,
  defineElectraConfig,
  ElectraForMaskedLM,
  ElectraForPreTraining,
  ElectraModel,
  minimalPairs,
  readMinimalPairs,
  type ScoredPair,
  summarizePairs,
} from 'voltaic'
import { describeMinimalPairs, printMinimalPairs } from '../../dist/cli/minimal-pairs.js'
import { sharedPlaces } from '../../dist/tasks/minimal-pair-scores.js'

t.test('a bootstrap interval on known data', async (t) => {
  const numbers = Array.from({ length: 400 }, (_, n) => [n % 2])
  const { value, low, high } = bootstrapMean(numbers, { samples: 4000 })
  t.equal(value, 0.5)
  // Of 400 fair coins: 0.5 ± 1.96 · 0.025. Percentiles of 4,000 samples err by some 0.001, and means come in steps of 0.0025.
  t.ok(Math.abs(low - 0.451) < 0.005 && Math.abs(high - 0.549) < 0.005, `${low} to ${high}`)
  t.same(bootstrapMean(numbers, { samples: 4000 }), { value, low, high }, 'the same again')
  t.not(bootstrapMean(numbers, { samples: 4000, seed: 1 }).low, Number.NaN)
  const narrow = bootstrapMean(numbers, { confidence: 0.5 })
  // 0.5 ± 0.674 · 0.025
  t.ok(Math.abs(narrow.high - 0.517) < 0.005, `${narrow.high}`)

  // Ten clusters of forty equal numbers are ten numbers: 1.96 · 0.5 / sqrt(10) = 0.31, in steps of a tenth.
  const clusters = Array.from({ length: 10 }, (_, n) => Array(40).fill(n % 2) as number[])
  const clustered = bootstrapMean(clusters)
  t.equal(clustered.value, 0.5)
  t.same([clustered.low, clustered.high], [0.2, 0.8])

  t.same(bootstrapMean([[3, 3], [3]]), { value: 3, low: 3, high: 3 })
  t.same(
    bootstrapMean([[1, 2]]),
    { value: 1.5, low: Number.NaN, high: Number.NaN },
    'one cluster has no spread',
  )
  t.throws(() => bootstrapMean([]), { code: 'ERR_ARGUMENT' })
  t.throws(() => bootstrapMean([[1]], { samples: 5 }), { code: 'ERR_ARGUMENT' })
  t.throws(() => bootstrapMean([[1]], { confidence: 1 }), { code: 'ERR_ARGUMENT' })
})

t.test('shared places are a longest common subsequence', async (t) => {
  t.same(sharedPlaces([2, 7, 8, 9, 3], [2, 7, 5, 6, 9, 3]), [
    [0, 1, 3, 4],
    [0, 1, 4, 5],
  ])
  t.same(sharedPlaces([], [1]), [[], []])
  const rows = fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 7 })
  /** The longest by trying every subset of a. */
  const longest = (a: number[], b: number[]): number => {
    let best = 0
    for (let set = 0; set < 2 ** a.length; set++) {
      const part = a.filter((_, i) => (set >> i) & 1)
      let at = 0
      for (const id of b) if (id === part[at]) at += 1
      if (at === part.length) best = Math.max(best, at)
    }
    return best
  }
  const property = fc.property(rows, rows, (a, b) => {
    const [left, right] = sharedPlaces(a, b)
    const rising = (places: number[]) =>
      places.every((place, i) => i === 0 || place > (places[i - 1] as number))
    return (
      rising(left) &&
      rising(right) &&
      left.length === right.length &&
      left.every((place, i) => a[place] === b[right[i] as number]) &&
      left.length === longest(a, b)
    )
  })
  t.doesNotThrow(() => fc.assert(property))
})

t.test('groups, shares and ties', async (t) => {
  const pair = (group: string, gap: number): ScoredPair => ({
    ...{ sentenceA: 'a', sentenceB: 'b', group, a: gap, b: 0, gap },
  })
  const { overall, groups, confidence } = summarizePairs([
    pair('x', 1),
    pair('y', -3),
    pair('x', 0),
    pair('x', 2),
  ])
  t.equal(confidence, 0.95)
  t.same(
    [overall, ...groups].map(({ group, pairs, preferA, gap }) => [group, pairs, preferA.value, gap.value]),
    [
      ['all', 4, 0.625, 0],
      ['x', 3, 2.5 / 3, 1],
      ['y', 1, 0, -3],
    ],
  )
})

t.test('the built-in pairs differ in one word, and there are forty of a group', async (t) => {
  const counts = new Map<string, number>()
  for (const { sentenceA, sentenceB, group = '', cluster = '' } of builtInPairs()) {
    counts.set(group, (counts.get(group) ?? 0) + 1)
    const [a, b] = [sentenceA.split(' '), sentenceB.split(' ')]
    t.equal(a.length, b.length)
    t.equal(a.filter((word, at) => word !== b[at]).length, 1, `${sentenceA} / ${sentenceB}`)
    t.ok(a.includes(cluster) && !/[{}]/.test(sentenceA + sentenceB))
  }
  t.same(Object.fromEntries(counts), { gender: 40, age: 40, origin: 40, religion: 40 })
})

const words = [
  ...new Set(
    builtInPairs()
      .flatMap(({ sentenceA, sentenceB }) => [sentenceA, sentenceB])
      .join(' ')
      .match(/\w+/g),
  ),
]
const vocabulary = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', ...words]
const tokenizer = createTokenizer({ vocabulary })
const config = defineElectraConfig({
  ...{ vocabSize: vocabulary.length, embeddingSize: 8, hiddenSize: 16, numHiddenLayers: 1 },
  ...{ numAttentionHeads: 2, intermediateSize: 32, maxPositionEmbeddings: 32 },
})
const folder = t.testdir({
  'pairs.tsv':
    'sentence_a\tsentence_b\tgroup\nhe waited at noon.\tshe waited at noon.\tg\nhe waited\the waited\tg\nhe read\t\tg\nold book\tyoung book\th\n',
  'crows.csv':
    ',sent_more,sent_less,stereo_antistereo,bias_type\n0,"he read a book, he waited",she read a book she waited,stereo,gender\n',
  'wrong.tsv': 'text\tlabel\na\tb\n',
})
const at = (name: string): string => join(folder, name)

t.test('scores are what single passes of the models give', async (t) => {
  const generator = new ElectraForMaskedLM(config, { seed: 3 }).eval()
  await generator.savePretrained(at('generator'))
  await tokenizer.save(at('generator'))
  const discriminator = new ElectraForPreTraining(config, { seed: 3 }).eval()
  await discriminator.savePretrained(at('discriminator'))
  await tokenizer.save(at('discriminator'))
  const body = new ElectraModel(config, { seed: 3 })
  await body.savePretrained(at('body'))
  await tokenizer.save(at('body'))

  const data = [{ sentenceA: 'the baker said he waited.', sentenceB: 'the baker said she waited.' }]
  const { pairs, scorer } = await minimalPairs({ model: at('generator'), data, device: 'cpu' })
  t.equal(scorer, 'generator')
  for (const [side, sentence] of [data[0]!.sentenceA, data[0]!.sentenceB].entries()) {
    const [ids] = tokenizer([sentence]).inputIds
    let sum = 0
    for (const position of [1, 2, 3, 5, 6]) {
      const masked = Int32Array.from(ids!)
      masked[position] = tokenizer.maskTokenId
      const labels = [Array.from(ids!, (id, place) => (place === position ? id : -100))]
      const { loss } = generator.forward({ inputIds: [masked], labels })
      sum -= loss.item()
    }
    const got = side === 0 ? pairs[0]!.a : pairs[0]!.b
    // Five float32 losses near ln 60, each within 1e-6 of it.
    t.ok(Math.abs(got - sum) < 1e-4, `${got}, expected ${sum}`)
  }

  const detected = await minimalPairs({ model: at('discriminator'), data, device: 'cpu' })
  t.equal(detected.scorer, 'discriminator')
  const { inputIds } = tokenizer([data[0]!.sentenceA])
  const logits = (await discriminator.forward({ inputIds }).logits.data()) as Float32Array
  const inner = [...logits].slice(1, -1)
  const expected = inner.reduce((all, logit) => all + Math.log(1 / (1 + Math.exp(logit))), 0) / inner.length
  t.ok(Math.abs(detected.pairs[0]!.a - expected) < 1e-6, `${detected.pairs[0]!.a}, expected ${expected}`)

  const single = await minimalPairs({ model: at('generator'), data, device: 'cpu', batchTokens: 1 })
  // In fp32 a row does not depend on its batch.
  t.same(single.pairs, pairs, 'however they are batched')
  const unknown = [{ sentenceA: 'the xyz waited.', sentenceB: 'the qrs waited.' }]
  const same = await minimalPairs({ model: at('generator'), data: [...data, ...unknown], device: 'cpu' })
  t.equal(same.indistinct, 1, 'both are [UNK]')
  t.match(describeMinimalPairs(same), /1 pair is the same to the tokenizer/)
  await t.rejects(minimalPairs({ model: at('body'), device: 'cpu' }), {
    code: 'ERR_CONFIG',
    message: /minimal pairs need a generator/,
  })
  await t.rejects(minimalPairs({ model: at('generator'), data: [] }), { code: 'ERR_ARGUMENT' })
  for (const model of [generator, discriminator, body]) model.dispose()
})

t.test('a model that cannot tell two terms apart prefers neither', async (t) => {
  const generator = await ElectraForMaskedLM.fromPretrained(at('generator'), { device: 'cpu' })
  const even = await minimalPairs({ model: at('generator'), device: 'cpu' })
  t.equal(even.overall.pairs, 160)
  t.same(
    even.groups.map(({ group }) => group),
    ['gender', 'age', 'origin', 'religion'],
  )
  // The embedding of "she" made that of "he": pairs of these two are the same to the model, and score alike.
  const table = await generator.electra.embeddings.wordEmbeddings.weight.data()
  const he = tokenizer.convertTokensToIds('he') * config.embeddingSize
  table.copyWithin(tokenizer.convertTokensToIds('she') * config.embeddingSize, he, he + config.embeddingSize)
  generator.electra.embeddings.wordEmbeddings.weight.assign(table)
  await generator.savePretrained(at('blind'))
  await tokenizer.save(at('blind'))
  generator.dispose()
  const { groups } = await minimalPairs({ model: at('blind'), device: 'cpu' })
  t.same(groups[0]?.gap, { value: 0, low: 0, high: 0 })
  t.same(groups[0]?.preferA, { value: 0.5, low: 0.5, high: 0.5 })
  t.not(even.groups[0]?.gap.value, 0)
})

t.test('files: ours, CrowS-Pairs, malformed rows', async (t) => {
  const { pairs, skipped } = await readMinimalPairs(at('pairs.tsv'))
  t.same(
    pairs.map(({ sentenceA, group }) => [sentenceA, group]),
    [
      ['he waited at noon.', 'g'],
      ['old book', 'h'],
    ],
  )
  t.same(skipped, [
    { line: 3, problem: 'both sentences are the same' },
    { line: 4, problem: 'expected two sentences' },
  ])
  await t.rejects(readMinimalPairs(at('pairs.tsv'), { strict: true }), {
    code: 'ERR_FORMAT',
    message: /pairs\.tsv:3: both sentences are the same/,
  })
  const crows = await readMinimalPairs(at('crows.csv'))
  t.same(crows.pairs[0]?.sentenceA, 'he read a book, he waited')
  t.same(crows.pairs[0]?.group, 'gender')
  await t.rejects(readMinimalPairs(at('wrong.tsv')), {
    code: 'ERR_CONFIG',
    message: /no column sentence_a; the file has: text, label/,
  })
})

t.test('the table, and the scored pairs as a file', async (t) => {
  const report = await minimalPairs({ model: at('discriminator'), data: at('pairs.tsv'), device: 'cpu' })
  const table = describeMinimalPairs(report)
  t.match(table, /^mean log-probability that a token is original \(discriminator\), in nats\n/)
  t.match(table, /\ng {4,}1 {4,}\d+\.\d %/)
  t.match(table, /\nall {2,}2 .*\[[+-]\d\.\d{3}, [+-]\d\.\d{3}\]\n2 rows are left out, the first on line 3/)
  const output = at('scored.jsonl')
  const written: string[] = []
  const { write } = process.stdout
  process.stdout.write = ((text: string) => written.push(text)) as never
  try {
    await printMinimalPairs({
      ...{ model: at('discriminator'), device: 'cpu' },
      data: at('pairs.tsv'),
      output,
      json: true,
    })
  } finally {
    process.stdout.write = write
  }
  const summary = JSON.parse(written.join(''))
  t.same(summary.overall, report.overall)
  t.notOk('pairs' in summary)
  const lines = readFileSync(output, 'utf8').trimEnd().split('\n')
  t.same(
    lines.map((line) => JSON.parse(line).gap),
    report.pairs.map(({ gap }) => gap),
  )
})
