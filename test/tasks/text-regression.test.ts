/** Regression: raw numbers, the mean squared error of the reference, correlations, and what is refused. */
import t from 'tap'
import { ElectraForSequenceClassification } from '../../dist/electra/index.js'
import { taskKind } from '../../dist/tasks/index.js'
import { textRegression } from '../../dist/tasks/text-regression.js'
import { golden, outputsOf, readInputs } from '../electra/golden-data.js'
import { needsSharedData, sharedData } from '../helpers/shared.js'
import {
  device,
  fileOf,
  learn,
  madeOutputs,
  modelFor,
  predict,
  smallConfig,
  tokenizer,
} from './small-task.js'

const options = { maxLength: 32, training: true }

t.test('a file of numbers: they are the targets as they stand', async (t) => {
  const kind = textRegression()
  const file = fileOf('r.csv', 'text_a,text_b,label\na b,c,4.5\nd,e,much\nf,g,-1\n')
  const { examples, skipped } = await kind.read(file, {})
  t.match(skipped, [{ place: 'line 3', problem: 'the label is "much", expected a number' }])
  const task = kind.learn(examples)
  t.same(
    task.features(examples, tokenizer, options).map(({ target }) => target),
    [4.5, -1],
  )
  t.match(task.config, { problemType: 'regression', numLabels: 1 })
  await t.rejects(kind.read(file, { strict: true }), { code: 'ERR_FORMAT', message: /r\.csv:3/ })
  await t.rejects(kind.read(fileOf('e.csv', ''), {}), { code: 'ERR_FORMAT', message: /is empty/ })
})

t.test('the loss is the reference’s', needsSharedData, async (t) => {
  const folder = golden('sequence_regression')
  const inputs = readInputs(folder)
  const labels = inputs.file.float32('labels')
  const model = await ElectraForSequenceClassification.fromPretrained(folder, { device })
  const task = textRegression().restore(model.config)
  const [inputIds, tokenTypeIds] = [inputs.ragged('input_ids'), inputs.ragged('token_type_ids')]
  const features = inputIds.map((row, at) => ({
    example: at,
    inputIds: row,
    tokenTypeIds: tokenTypeIds[at]!,
    target: labels[at]!,
  }))
  const expected = outputsOf(folder).float32('loss')[0]!
  const found = task.loss(model, features).dataSync()[0]!
  // float32 sums in another order; the golden data's own rule.
  t.ok(Math.abs(found - expected) <= 1e-4 * Math.abs(expected), `${found}, expected ${expected}`)
})

t.test('STS-B: raw scores, both orders, ten epochs', needsSharedData, async (t) => {
  const kind = taskKind('sts-b')
  t.equal(kind.name, 'text-regression')
  t.same(kind.defaults, { epochs: 10, maxLength: 128 })
  const { examples } = await kind.read(`${sharedData}/glue/STS-B/dev.tsv`, {})
  const few = examples.slice(0, 3)
  t.equal(kind.learn(few).features(few, tokenizer, options).length, 6)
  t.equal(Math.max(...examples.map((example) => (example as { label: number }).label)), 5)
})

t.test('metrics: correlations, NaN where one is not defined', async (t) => {
  const task = textRegression().learn([])
  const examples = [1, 2, 4].map((label, line) => ({ text: 'a', label, line }))
  const features = task.features(examples, tokenizer, { ...options, training: false })
  const predictions = task.decode(examples, features, madeOutputs([[2], [3], [5]]))
  t.same(predictions, [2, 3, 5])
  const { spearman, pearson, meanSquaredError } = task.metrics(examples, predictions)
  // Rounding of a few operations.
  t.ok(Math.abs(spearman! - 1) < 1e-12 && Math.abs(pearson! - 1) < 1e-12)
  t.equal(meanSquaredError, 1)
  t.equal(task.metric, 'spearman')
  const constant = task.metrics(examples, [1, 1, 1])
  t.ok(Number.isNaN(constant.spearman) && Number.isNaN(constant.pearson))
  const lonely = task.metrics(examples.slice(0, 1), [3])
  t.ok(Number.isNaN(lonely.spearman) && Number.isNaN(lonely.pearson))
  t.equal(lonely.meanSquaredError, 4)
  t.same(task.record(examples[2]!, 5), { line: 2, text: 'a', label: 4, prediction: 5 })
  t.throws(() => task.metrics([{ text: 'a', line: 7 }], [1]), {
    code: 'ERR_ARGUMENT',
    message: /line 7 has no label/,
  })
  t.throws(() => task.metrics([{ text: 'a', label: 'x', line: 7 }], [1]), { code: 'ERR_ARGUMENT' })
})

t.test('a model learns numbers beyond 0 to 1', async (t) => {
  const labels = { bad: -2, cold: 0, warm: 2, good: 4 }
  const examples = Object.entries(labels).map(([text, label], line) => ({ text, label, line }))
  const kind = textRegression()
  const task = kind.learn(examples)
  const model = modelFor(task)
  const losses = await learn(task, model, task.features(examples, tokenizer, options), 120)
  t.ok(losses[0]! > 1 && losses.at(-1)! < 0.2, `from ${losses[0]} to ${losses.at(-1)}`)
  const predictions = await predict(kind.restore(model.config), model, examples)
  t.equal(task.metrics(examples, predictions).spearman, 1)
  model.dispose()
})

t.test('models of other tasks', async (t) => {
  t.throws(() => textRegression().restore(smallConfig({ numLabels: 2 })), {
    code: 'ERR_CONFIG',
    message: /2 labels; a regression has one/,
  })
  t.throws(
    () => textRegression().restore(smallConfig({ numLabels: 1, problemType: 'multi_label_classification' })),
    {
      code: 'ERR_CONFIG',
    },
  )
  t.throws(
    () => textRegression().restore(smallConfig({ numLabels: 1, architectures: ['ElectraForPreTraining'] })),
    {
      code: 'ERR_CONFIG',
      message: /ElectraForPreTraining/,
    },
  )
})
