/** text-classification and zero-shot-classification against plain compositions of tokenizer and model. */
import t from 'tap'
import { ElectraForSequenceClassification, ElectraForTokenClassification, pipeline } from 'voltaic'
import { labels, saveModel, textOf, tokenizer } from './models.js'

const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0)
const softmaxOf = (logits: readonly number[]): number[] => {
  const powers = logits.map((logit) => Math.exp(logit))
  return powers.map((power) => power / sum(powers))
}

/** Logits of rows, from the model alone. */
async function logitsOf(
  folder: string,
  input: Parameters<typeof tokenizer>[0],
  options: Parameters<typeof tokenizer>[1] = {},
): Promise<number[][]> {
  const model = await ElectraForSequenceClassification.fromPretrained(folder, { device: 'cpu' })
  const rows = model.forward(tokenizer(input, options)).logits.toArray() as number[][]
  model.dispose()
  return rows
}

/** Sums in double precision on both sides; the logits are the same bits, whatever the batch. */
const tolerance = 1e-12

t.test('labels and scores are the softmax of the logits, in the shapes of transformers.js', async (t) => {
  const folder = await saveModel(t, ElectraForSequenceClassification, labels('bad', 'fair', 'good'))
  await using classify = await pipeline('text-classification', folder, { device: 'cpu' })
  const texts = ['The chef cooked a good meal!', 'a', '', 'What was in the boat? 中文 😀']
  const expected = (await logitsOf(folder, texts)).map((row) =>
    softmaxOf(row)
      .map((score, label) => ({ label: ['bad', 'fair', 'good'][label] as string, score }))
      .sort((a, b) => b.score - a.score),
  )
  const near = (found: unknown, wanted: readonly { label: string; score: number }[], what: string): void => {
    const list = found as { label: string; score: number }[]
    t.same(
      list.map(({ label }) => label),
      wanted.map(({ label }) => label),
      what,
    )
    list.forEach(({ score }, i) => {
      t.ok(Math.abs(score - (wanted[i]?.score ?? 0)) < tolerance, what)
    })
  }
  near(
    await classify(texts),
    expected.map(([best]) => best!),
    'texts: the best of each, flat',
  )
  near(await classify(texts[0] as string), [expected[0]![0]!], 'a text: a list of one')
  near(await classify(texts[0] as string, { top_k: 2 }), expected[0]!.slice(0, 2), 'top_k')
  near(await classify(texts[0] as string, { top_k: null }), expected[0]!, 'all')
  const all = await classify(texts, { top_k: 9 })
  t.equal(all.length, texts.length)
  all.forEach((list, i) => {
    near(list, expected[i]!, `texts with top_k: a list for text ${i}`)
  })
  t.same(await classify([]), [])
  const raw = await classify(texts[0] as string, { top_k: null, function_to_apply: 'none' })
  const first = (await logitsOf(folder, texts))[0]!
  t.ok(Math.abs(sum(raw.map(({ score }) => score)) - sum(first)) < 1e-6, 'none gives the logits')

  const pair = { text: 'who ate', text_pair: 'the chef' }
  const [paired] = await logitsOf(folder, [[pair.text, pair.text_pair]])
  t.ok(
    Math.abs((await classify(pair))[0]!.score - Math.max(...softmaxOf(paired!))) < tolerance,
    'a pair has both texts in one row',
  )

  await t.rejects(classify(texts[0] as string, { topk: 2 } as never), {
    code: 'ERR_ARGUMENT',
    message: /no option 'topk'; the options are top_k/,
  })
  await t.rejects(classify(7 as never), { code: 'ERR_ARGUMENT', message: /text/ })
  await t.rejects(classify(['a', null] as never), { code: 'ERR_ARGUMENT' })
  await t.rejects(classify('a', { top_k: 0 }), { code: 'ERR_ARGUMENT', message: /top_k is 0/ })
  await t.rejects(classify('a', { max_length: 41 }), { code: 'ERR_ARGUMENT', message: /40 tokens at most/ })
  await t.rejects(classify('a', { max_length: 8, stride: 6 }), {
    code: 'ERR_ARGUMENT',
    message: /less than the 6 tokens/,
  })
})

t.test('several labels at once are sigmoids, one label too, regression is the number itself', async (t) => {
  const cases = [
    { problemType: 'multi_label_classification', ...labels('x', 'y') },
    { problemType: null, ...labels('score') },
    { problemType: 'regression', ...labels('score') },
  ] as const
  for (const options of cases) {
    const folder = await saveModel(t, ElectraForSequenceClassification, options)
    const [logits] = await logitsOf(folder, ['the red fish'])
    await using classify = await pipeline('sentiment-analysis', folder, { device: 'cpu' })
    const found = await classify('the red fish', { top_k: null })
    const wanted = logits!
      .map((logit) => (options.problemType === 'regression' ? logit : 1 / (1 + Math.exp(-logit))))
      .sort((a, b) => b - a)
    found.forEach(({ score }, i) => {
      t.ok(Math.abs(score - wanted[i]!) < tolerance, String(options.problemType))
    })
  }
})

t.test('a text that is too long is the mean of its windows, a pair too', async (t) => {
  const folder = await saveModel(t, ElectraForSequenceClassification, labels('no', 'yes'))
  await using classify = await pipeline('text-classification', folder, { device: 'cpu' })
  const text = textOf(90)
  const found = await classify(text, { max_length: 20, stride: 5, top_k: null, function_to_apply: 'none' })
  const options = { truncation: true, returnOverflowingTokens: true } as const
  const rows = await logitsOf(folder, text, { ...options, maxLength: 20, stride: 5 })
  t.ok(rows.length > 5)
  for (const { label, score } of found) {
    const id = label === 'no' ? 0 : 1
    t.ok(Math.abs(score - sum(rows.map((row) => row[id]!)) / rows.length) < tolerance)
  }
  const whole = await classify(text, { top_k: null, function_to_apply: 'none' })
  t.not(whole[0]?.score, found[0]?.score, 'without options windows are as long as the model takes')

  const pair = { text: 'what was red', text_pair: textOf(60, 1) }
  const paired = await classify(pair, { max_length: 16, stride: 4, top_k: null, function_to_apply: 'none' })
  const pairRows = await logitsOf(folder, [[pair.text, pair.text_pair]], {
    ...options,
    maxLength: 16,
    stride: 4,
  })
  t.ok(pairRows.length > 5)
  for (const { label, score } of paired) {
    const id = label === 'no' ? 0 : 1
    t.ok(Math.abs(score - sum(pairRows.map((row) => row[id]!)) / pairRows.length) < tolerance)
  }
})

t.test("a folder's calibration divides by its temperature and rejects below its threshold", async (t) => {
  const text = 'the green boat'
  const calibration = { temperature: 2, threshold: 0.99, out_of_scope_label: 'none of these' }
  const options = { ...labels('a', 'b', 'c'), extra: { voltaic_calibration: calibration } }
  const folder = await saveModel(t, ElectraForSequenceClassification, options)
  const [logits] = await logitsOf(folder, [text])
  const scores = softmaxOf(logits!.map((logit) => logit / 2))
  await using classify = await pipeline('text-classification', folder, { device: 'cpu' })
  const rejected = await classify(text, { top_k: null })
  t.equal(rejected.length, 4)
  t.equal(rejected[0]?.label, 'none of these')
  t.ok(Math.abs(rejected[0]!.score - (1 - Math.max(...scores))) < tolerance)
  t.ok(Math.abs(rejected[1]!.score - Math.max(...scores)) < tolerance, 'calibrated')
  const plain = await classify(text, { function_to_apply: 'softmax' })
  t.ok(Math.abs(plain[0]!.score - Math.max(...softmaxOf(logits!))) < tolerance, 'asked for, plain softmax')
  await classify.dispose()

  const lenient = { ...options, extra: { voltaic_calibration: { ...calibration, threshold: 0 } } }
  const other = await saveModel(t, ElectraForSequenceClassification, lenient)
  await using accept = await pipeline('text-classification', other, { device: 'cpu' })
  t.equal((await accept(text, { top_k: null })).length, 3)
})

t.test('zero-shot: hypotheses are entailed', async (t) => {
  const folder = await saveModel(
    t,
    ElectraForSequenceClassification,
    labels('contradiction', 'neutral', 'Entailment'),
  )
  await using classify = await pipeline('zero-shot-classification', folder, { device: 'cpu' })
  const text = 'the chef cooked the fish.'
  const candidates = ['meal', 'boat', 'film']
  const rows = await logitsOf(
    folder,
    candidates.map((label) => [text, `This example is ${label}.`] as const),
  )
  const single = await classify(text, candidates)
  const expected = softmaxOf(rows.map((row) => row[2]!))
  t.equal(single.sequence, text)
  t.same([...single.labels].sort(), [...candidates].sort())
  single.labels.forEach((label, i) => {
    t.ok(Math.abs(single.scores[i]! - expected[candidates.indexOf(label)]!) < tolerance)
    t.ok(i === 0 || single.scores[i]! <= single.scores[i - 1]!, 'the best first')
  })
  const [multiple] = await classify([text], candidates, { multi_label: true })
  multiple!.labels.forEach((label, i) => {
    const row = rows[candidates.indexOf(label)]!
    t.ok(Math.abs(multiple!.scores[i]! - softmaxOf([row[0]!, row[2]!])[1]!) < tolerance)
  })
  const other = await classify(text, 'boat', { hypothesis_template: 'on a {}?' })
  const [row] = await logitsOf(folder, [[text, 'on a boat?']])
  t.ok(Math.abs(other.scores[0]! - softmaxOf([row![0]!, row![2]!])[1]!) < tolerance)
  await t.rejects(classify(text, []), { code: 'ERR_ARGUMENT', message: /candidate labels/ })
  await t.rejects(classify(text, 'a', { hypothesis_template: 'this' }), { message: /expected \{\}/ })
})

t.test('zero-shot without a label for entailment says what is needed', async (t) => {
  const folder = await saveModel(t, ElectraForSequenceClassification, labels('bad', 'good'))
  await t.rejects(pipeline('zero-shot-classification', folder, { device: 'cpu' }), {
    code: 'ERR_CONFIG',
    message: /labels are bad, good; expected one called entailment.*MNLI/,
  })
  const tags = await saveModel(t, ElectraForTokenClassification, labels('O', 'B-X'))
  await t.rejects(pipeline('zero-shot-classification', tags, { device: 'cpu' }), {
    code: 'ERR_CONFIG',
    message: /holds ElectraForTokenClassification, expected ElectraForSequenceClassification; fine-tune/,
  })
})
