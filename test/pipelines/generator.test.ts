/** fill-mask and text-infilling, and how tokens are drawn. */
import fc from 'fast-check'
import t from 'tap'
import { ElectraForMaskedLM, type FilledMask, pipeline } from 'voltaic'
import { infilledText } from '../../dist/pipelines/infilled-text.js'
import { largest, sampleToken } from '../../dist/pipelines/sampling.js'
import { tokensOf } from '../../dist/pipelines/windows.js'
import { saveModel, textOf, tokenizer, vocabulary } from './models.js'

/** Sums in double precision on both sides; the logits are the same bits, whatever the batch. */
const tolerance = 1e-12

const softmaxOf = (logits: readonly number[]): number[] => {
  const powers = logits.map((logit) => Math.exp(logit))
  const total = powers.reduce((sum, power) => sum + power)
  return powers.map((power) => power / total)
}

/** The probabilities of each masked token of a row. */
async function probabilitiesOf(folder: string, row: readonly number[] | Int32Array): Promise<number[][]> {
  const model = await ElectraForMaskedLM.fromPretrained(folder, { device: 'cpu' })
  const maskedPositions = [[...row.keys()].filter((place) => row[place] === tokenizer.maskTokenId)]
  const logits = model.forward({ inputIds: [row], maskedPositions }).logits.toArray() as number[][]
  model.dispose()
  return logits.map(softmaxOf)
}

t.test('fill-mask: the best tokens of each mask, and the text with them', async (t) => {
  const folder = await saveModel(t, ElectraForMaskedLM)
  await using fill = await pipeline('fill-mask', folder, { device: 'cpu' })
  const text = 'The chef [MASK] the fish.'
  const [expected] = await probabilitiesOf(folder, tokenizer(text).inputIds[0]!)
  const found = (await fill(text)) as FilledMask[]
  t.equal(found.length, 5)
  const order = [...expected!.keys()].sort((a, b) => expected![b]! - expected![a]!)
  found.forEach(({ score, token, token_str, sequence }, i) => {
    t.equal(token, order[i])
    t.ok(Math.abs(score - expected![token]!) < tolerance)
    t.equal(token_str, vocabulary[token])
    const ids = tokenizer(text).inputIds[0]!.map((id) => (id === tokenizer.maskTokenId ? token : id))
    t.equal(sequence, tokenizer.decode(ids, { skipSpecialTokens: true }))
  })
  t.equal(((await fill(text, { top_k: null })) as FilledMask[]).length, vocabulary.length)

  const two = 'the [MASK] was [MASK]'
  const both = await probabilitiesOf(folder, tokenizer(two).inputIds[0]!)
  const lists = (await fill(two, { top_k: 1 })) as FilledMask[][]
  t.equal(lists.length, 2, 'a list for each mask')
  lists.forEach(([best], mask) => {
    t.ok(Math.abs(best!.score - Math.max(...both[mask]!)) < tolerance)
    t.match(best!.sequence, '[MASK]', 'the other mask stays')
  })
  t.same(await fill([text, two], { top_k: 1 }), [await fill(text, { top_k: 1 }), lists])
  await t.rejects(fill('no mask here'), { code: 'ERR_ARGUMENT', message: /no \[MASK\] in "no mask here"/ })
})

t.test('fill-mask in a long text sees as much on either side of the mask as there is', async (t) => {
  const folder = await saveModel(t, ElectraForMaskedLM)
  await using fill = await pipeline('fill-mask', folder, { device: 'cpu' })
  const room = 38
  for (const [before, after] of [
    [60, 60],
    [0, 80],
    [80, 3],
  ] as const) {
    const text = `${textOf(before)} [MASK] ${textOf(after, 1)}`
    const ids = [...tokenizer(text, { addSpecialTokens: false }).inputIds[0]!]
    const place = ids.indexOf(tokenizer.maskTokenId)
    const begin = Math.min(Math.max(0, place - room / 2), ids.length - room)
    const row = [tokenizer.clsTokenId, ...ids.slice(begin, begin + room), tokenizer.sepTokenId]
    const [expected] = await probabilitiesOf(folder, row)
    const [best] = (await fill(text)) as FilledMask[]
    t.ok(Math.abs(best!.score - Math.max(...expected!)) < tolerance)
    t.equal(best!.token, expected!.indexOf(Math.max(...expected!)))
  }
})

t.test('infilling at temperature 0 takes the best token at each place, from the left', async (t) => {
  const folder = await saveModel(t, ElectraForMaskedLM)
  await using infill = await pipeline('text-infilling', folder, { device: 'cpu' })
  const text = 'The CHEF [MASK] the [MASK] [MASK], naïve 🚢!'
  const ids = [...tokenizer(text).inputIds[0]!]
  const words: string[] = []
  for (
    let place = ids.indexOf(tokenizer.maskTokenId);
    place >= 0;
    place = ids.indexOf(tokenizer.maskTokenId)
  ) {
    const [probabilities] = await probabilitiesOf(folder, ids)
    // A mask behind a word of the text begins a new word; behind another mask it may go on with that one's.
    const mayContinue = words.length === 2
    const allowed = probabilities!.map((probability, id) =>
      id < 6 || (!mayContinue && vocabulary[id]!.startsWith('##')) ? 0 : probability,
    )
    ids[place] = allowed.indexOf(Math.max(...allowed))
    words.push(vocabulary[ids[place]!]!)
  }
  const [filled] = await infill(text, { temperature: 0 })
  t.same(
    filled!.tokens.map(({ word }) => word),
    words,
  )
  t.ok(filled!.generated_text.startsWith('The CHEF'), 'what is not filled stays as it was')
  t.ok(filled!.generated_text.endsWith(', naïve 🚢!'))
  for (const { word, start, end, score } of filled!.tokens) {
    t.equal(filled!.generated_text.slice(start, end), word.replace(/^##/, ''))
    t.ok(score > 0 && score < 1)
  }
})

t.test('the same seed writes the same text, whoever else is served; another seed another one', async (t) => {
  const folder = await saveModel(t, ElectraForMaskedLM)
  await using infill = await pipeline('text-infilling', folder, { device: 'cpu' })
  const text = 'the [MASK] [MASK] [MASK] was in the [MASK]'
  const options = { seed: 7, rounds: 3, temperature: 1.2, top_k: 20, top_p: 0.9, num_return_sequences: 3 }
  const alone = await infill(text, options)
  t.equal(alone.length, 3)
  t.equal(new Set(alone.map(({ generated_text }) => generated_text)).size, 3, 'versions differ')
  const [again] = await Promise.all([
    infill(text, options),
    infill(
      Array.from({ length: 20 }, () => text),
      { seed: 3 },
    ),
    infill(textOf(70), { mask_probability: 0.1 }),
  ])
  t.same(again, alone)
  t.notSame(await infill(text, { ...options, seed: 8 }), alone)
  const [list] = await infill([text], options)
  t.same(list, alone, 'the first text of a list is drawn as it is alone')
})

t.test('spans are written anew, the rest stays; other tokens are revised by chance', async (t) => {
  const folder = await saveModel(t, ElectraForMaskedLM)
  await using infill = await pipeline('text-infilling', folder, { device: 'cpu' })
  const text = 'Ça, the red boat was GOOD in a film; the red fish ate'
  const span = [text.indexOf('red boat'), text.indexOf('red boat') + 8] as const
  const versions = await infill(text, { spans: [span], num_return_sequences: 8, rounds: 2 })
  for (const { generated_text, tokens } of versions) {
    // [CLS], the pieces of Ça, a comma, the: red boat are tokens 5 and 6 of the row.
    t.same(
      tokens.map(({ index }) => index),
      [5, 6],
    )
    t.ok(generated_text.startsWith(text.slice(0, span[0] - 1)))
    t.ok(generated_text.endsWith(text.slice(span[1])))
  }
  t.ok(versions.some(({ generated_text }) => generated_text !== text))
  const [revised] = await infill(text, { mask_probability: 0.5, rounds: 2 })
  t.ok(revised!.tokens.length > 2)
  const places = revised!.tokens.map(({ index }) => index)
  t.same(
    places,
    [...places].sort((a, b) => a - b),
  )
  await t.rejects(infill('nothing'), { code: 'ERR_ARGUMENT', message: /nothing to fill.*\[MASK\]/ })
  await t.rejects(infill(text, { spans: [[3, 3]] }), { message: /start before end/ })
  await t.rejects(infill(text, { spans: 5 } as never), { message: /spans: 5/ })
  await t.rejects(infill('[MASK]', { top_p: 0 }), { message: /top_p is 0/ })
  await t.rejects(infill('[MASK]', { temperature: -1 }), {
    message: /temperature is -1; expected a number of 0/,
  })
})

t.test('fillings stand between what stays; continuations go on, new words keep apart', (t) => {
  const cases: [text: string, words: string[], expected: string][] = [
    ['A [MASK][MASK]  B', ['red', 'boat'], 'A red boat  B'],
    ['A [MASK] [MASK], B', ['boat', '##ing'], 'A boating, B'],
    ['([MASK])', ['a'], '(a)'],
    ['[MASK]', ['中'], '中'],
    ['🚢[MASK]é', ['in'], '🚢iné'],
  ]
  for (const [text, words, expected] of cases) {
    const tokens = tokensOf(tokenizer, text)
    const masks = [...tokens.ids.keys()].filter((place) => tokens.ids[place] === tokenizer.maskTokenId)
    const fillings = new Map(masks.map((place, i) => [place, { word: words[i]!, score: i }]))
    const result = infilledText(tokens, fillings, '##', 1)
    t.equal(result.text, expected)
    t.same(
      result.tokens,
      words.map((word, i) => {
        const shown = word.replace('##', '')
        const start = i === 0 ? expected.indexOf(shown) : expected.lastIndexOf(shown)
        return { index: masks[i]! + 1, word, score: i, start, end: start + shown.length }
      }),
    )
  }
  t.end()
})

t.test('the largest numbers: as sorting gives them, ties by place', (t) => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: -3, max: 3 }), { size: '+1' }), fc.nat(200), (numbers, most) => {
      const sorted = [...numbers.keys()].sort((a, b) => numbers[b]! - numbers[a]! || a - b).slice(0, most)
      t.same(largest(numbers, most), sorted)
    }),
  )
  t.end()
})

t.test('a draw falls on a token as often as its probability says', (t) => {
  const logits = [0, 1, 2, 0.5, -1, Number.NEGATIVE_INFINITY]
  const frequencies = (settings: { temperature?: number; topK?: number; topP?: number }): number[] => {
    const counts = logits.map(() => 0)
    const draws = 10_000
    for (let i = 0; i < draws; i++) {
      const all = { temperature: 1, topK: Number.POSITIVE_INFINITY, topP: 1, ...settings }
      counts[sampleToken(logits, all, (i + 0.5) / draws)]! += 1 / draws
    }
    return counts
  }
  // Evenly spaced draws: each count is right to one draw of ten thousand.
  const isNear = (found: number[], wanted: number[]): boolean =>
    found.every((value, i) => Math.abs(value - wanted[i]!) < 2e-4)
  const odds = softmaxOf(logits)
  t.ok(isNear(frequencies({}), odds))
  t.ok(isNear(frequencies({ temperature: 2 }), softmaxOf(logits.map((logit) => logit / 2))))
  t.ok(
    isNear(
      frequencies({ topK: 2 }),
      [0, odds[1]!, odds[2]!, 0, 0, 0].map((p) => p / (odds[1]! + odds[2]!)),
    ),
  )
  t.ok(isNear(frequencies({ topP: 0.5 }), [0, 0, 1, 0, 0, 0]), 'the best has more than half')
  t.ok(
    isNear(
      frequencies({ topP: 0.6 }),
      [0, odds[1]!, odds[2]!, 0, 0, 0].map((p) => p / (odds[1]! + odds[2]!)),
    ),
  )
  t.ok(isNear(frequencies({ temperature: 0 }), [0, 0, 1, 0, 0, 0]))
  t.end()
})
