/** feature-extraction and text-ranking. */
import t from 'tap'
import {
  ElectraForMaskedLM,
  ElectraForMultipleChoice,
  ElectraForPreTraining,
  ElectraForSequenceClassification,
  ElectraModel,
  FeatureTensor,
  pipeline,
} from 'voltaic'
import { labels, saveModel, textOf, tokenizer } from './models.js'

const width = 32
const texts = ['the red boat', 'a chef cooked, ate and was good! 中 🚢', '']
/** The mean is taken in double precision here and there, then rounded to float32 there. */
const tolerance = 1e-6

const isNear = (found: ArrayLike<number>, wanted: readonly number[], within = tolerance): boolean =>
  found.length === wanted.length && wanted.every((value, i) => Math.abs(value - found[i]!) < within)

const mean = (rows: readonly (readonly number[])[]): number[] =>
  rows[0]!.map((_, i) => rows.reduce((sum, row) => sum + row[i]!, 0) / rows.length)

const unit = (vector: readonly number[]): number[] => {
  const length = Math.hypot(...vector)
  return vector.map((value) => value / length)
}

/** The last layer of each row, from the model alone. */
async function statesOf(
  folder: string,
  rows: readonly (readonly number[] | Int32Array)[],
): Promise<number[][][]> {
  const model = await ElectraForPreTraining.fromPretrained(folder, { device: 'cpu' })
  const states = rows.map((row) => {
    return model.electra.forward({ inputIds: [row] }).lastHiddenState.toArray() as number[][]
  })
  model.dispose()
  return states
}

t.test('vectors of tokens and texts, in the shapes of a Tensor', async (t) => {
  const folder = await saveModel(t, ElectraForPreTraining)
  const states = await statesOf(folder, tokenizer(texts).inputIds)
  await using extract = await pipeline('feature-extraction', folder, { device: 'cpu' })

  const one = await extract(texts[1] as string)
  t.ok(one instanceof FeatureTensor)
  t.equal(one.type, 'float32')
  t.same(one.dims, [1, states[1]!.length, width])
  t.equal(one.size, one.data.length)
  t.same(one.tolist(), [states[1]], 'every token, special ones included')
  const ragged = (await extract(texts)) as FeatureTensor[]
  t.same(
    ragged.map((tensor) => tensor.tolist()),
    states.map((rows) => [rows]),
    'a tensor a text: nothing is padded',
  )
  const pooled = await extract(texts, { pooling: 'mean' })
  t.same(pooled.dims, [3, width])
  states.forEach((rows, text) => {
    t.ok(isNear(pooled.tolist()[text] as number[], mean(rows)))
  })
  const single = await extract(texts[0] as string, { pooling: 'cls' })
  t.same(single.dims, [1, width])
  t.ok(isNear(single.data, states[0]![0]!))
  const normalized = await extract(texts, { pooling: 'mean', normalize: true })
  states.forEach((rows, text) => {
    t.ok(isNear(normalized.tolist()[text] as number[], unit(mean(rows))))
  })
  const tokens = await extract(texts[0] as string, { normalize: true })
  t.ok(isNear(tokens.data, states[0]!.flatMap(unit)), 'each token by itself')
  t.same((await extract([], { pooling: 'mean' })).dims, [0, width])
  await t.rejects(extract('a', { pooling: 'max' } as never), { message: /expected one of none, mean, cls/ })
})

t.test('a long text in windows: every token once, or the mean weighted with tokens', async (t) => {
  const folder = await saveModel(t, ElectraForPreTraining)
  await using extract = await pipeline('embeddings', folder, { device: 'cpu' })
  const text = textOf(60)
  const options = { max_length: 20, stride: 6 }
  const windows = tokenizer(text, {
    maxLength: 20,
    stride: 6,
    returnOverflowingTokens: true,
  }).inputIds
  t.ok(windows.length > 3)
  const states = await statesOf(folder, windows)
  const pooled = await extract(text, { ...options, pooling: 'mean' })
  t.ok(isNear(pooled.data, mean(states.flat())))
  const cls = await extract(text, { ...options, pooling: 'cls' })
  t.ok(isNear(cls.data, mean(states.flatMap((rows) => rows.map(() => rows[0]!)))))

  const every = await extract(text, options)
  const count = tokenizer(text).inputIds[0]!.length
  t.same(every.dims, [1, count, width])
  const [rows] = every.tolist() as number[][][]
  t.same(rows![0], states[0]![0], '[CLS] of the first window')
  t.same(rows!.at(-1), states.at(-1)!.at(-1), '[SEP] of the last')
  t.same(rows![1], states[0]![1])
  // Tokens 0 to 17 are the first window's, 12 to 29 the second's: token 16 has one to its right in the first, four to its left in the second.
  t.same(rows![1 + 16], states[1]![1 + 4])
})

t.test('any model has features; the bare body too', async (t) => {
  for (const Class of [ElectraModel, ElectraForMaskedLM] as const) {
    const folder = await saveModel(t, Class as typeof ElectraModel)
    await using extract = await pipeline('feature-extraction', folder, { device: 'cpu' })
    t.same((await extract('a', { pooling: 'mean' })).dims, [1, width])
  }
})

t.test('numbers that do not make the dimensions are refused', (t) => {
  t.throws(() => new FeatureTensor(new Float32Array(5), [2, 3]), { code: 'ERR_SHAPE' })
  t.end()
})

t.test('ranking by embeddings: the cosine of mean vectors', async (t) => {
  const folder = await saveModel(t, ElectraForPreTraining)
  await using rank = await pipeline('text-ranking', folder, { device: 'cpu' })
  const [query, ...candidates] = ['who ate the fish', ...texts, 'the chef ate the fish'] as [
    string,
    ...string[],
  ]
  const vectors = (await statesOf(folder, tokenizer([query, ...candidates]).inputIds)).map((rows) =>
    unit(mean(rows)),
  )
  const ranked = await rank(query, candidates, { return_documents: true })
  t.same(ranked.map(({ corpus_id }) => corpus_id).sort(), [0, 1, 2, 3])
  ranked.forEach(({ corpus_id, score, text }, place) => {
    const cosine = vectors[0]!.reduce((sum, value, i) => sum + value * vectors[corpus_id + 1]![i]!, 0)
    t.ok(Math.abs(score - cosine) < tolerance)
    t.equal(text, candidates[corpus_id])
    t.ok(place === 0 || score <= ranked[place - 1]!.score)
  })
  const [best, ...others] = await rank(query, candidates, { top_k: 1 })
  t.same([best, others], [{ corpus_id: ranked[0]!.corpus_id, score: ranked[0]!.score }, []])
  t.same(await rank(query, []), [])
  await t.rejects(rank(query, 'one' as never), { code: 'ERR_ARGUMENT', message: /expected a list/ })
})

t.test('ranking by a head for pairs: the label that fits, the number, or the choices', async (t) => {
  const query = 'what was red'
  const candidates = ['the boat was red', 'a meal', textOf(60)]
  const pairs = candidates.map((candidate) =>
    tokenizer([[query, candidate]], { maxLength: 40, stride: 9, returnOverflowingTokens: true }),
  )
  t.ok(pairs[2]!.inputIds.length > 1)
  const cases = [
    { options: labels('not_entailment', 'entailment'), label: 1, ask: undefined },
    { options: labels('a', 'b', 'c'), label: 2, ask: 'c' },
    { options: { problemType: 'regression', ...labels('score') } as const, label: 0, ask: undefined },
  ]
  for (const { options, label, ask } of cases) {
    const folder = await saveModel(t, ElectraForSequenceClassification, options)
    const model = await ElectraForSequenceClassification.fromPretrained(folder, { device: 'cpu' })
    const expected = pairs.map((rows) => {
      const logits = model.forward(rows).logits.toArray() as number[][]
      const scores = logits.map((row) => {
        if ('problemType' in options) return row[label]!
        const powers = row.map((logit) => Math.exp(logit))
        return powers[label]! / powers.reduce((sum, power) => sum + power)
      })
      return Math.max(...scores)
    })
    model.dispose()
    await using rank = await pipeline('text-ranking', folder, { device: 'cpu' })
    const ranked = await rank(query, candidates, { label: ask })
    for (const { corpus_id, score } of ranked) t.ok(Math.abs(score - expected[corpus_id]!) < tolerance)
    if (ask === undefined) continue
    await t.rejects(rank(query, candidates), {
      code: 'ERR_ARGUMENT',
      message: /labels are a, b, c, and none of them says that a candidate fits; give one/,
    })
    await t.rejects(rank(query, candidates, { label: 'd' }), { message: /none is 'd'/ })
  }

  const folder = await saveModel(t, ElectraForMultipleChoice)
  const model = await ElectraForMultipleChoice.fromPretrained(folder, { device: 'cpu' })
  const logits = pairs.map(({ inputIds, tokenTypeIds }) =>
    Math.max(
      ...(
        model.forward({ inputIds: [inputIds], tokenTypeIds: [tokenTypeIds] }).logits.toArray() as number[][]
      )[0]!,
    ),
  )
  model.dispose()
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0)
  await using rank = await pipeline('multiple-choice', folder, { device: 'cpu' })
  for (const { corpus_id, score } of await rank(query, candidates))
    t.ok(Math.abs(score - Math.exp(logits[corpus_id]!) / total) < tolerance)
})
