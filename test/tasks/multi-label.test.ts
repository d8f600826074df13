/** Classification with several labels a text: how it is asked for, targets, predictions, metrics. */
import t from 'tap'
import { kindOptionsOf } from '../../dist/tasks/index.js'
import { textClassification } from '../../dist/tasks/text-classification.js'
import { decoded, examplesOf, fileOf, learn, modelFor, predict, tokenizer } from './small-task.js'

const options = { maxLength: 32, training: true }

t.test('several labels at once: from arrays, or on request', async (t) => {
  const lines = [
    { text: 'a', labels: ['x', 'y'] },
    { text: 'b', labels: [] },
    { text: 'c', labels: 'y' },
  ]
  const file = fileOf('m.jsonl', lines.map((line) => `${JSON.stringify(line)}\n`).join(''))
  const { examples } = await textClassification().read(file, {})
  const task = textClassification().learn(examples)
  t.match(task.config, { problemType: 'multi_label_classification', id2label: { 0: 'x', 1: 'y' } })
  t.same(
    task.features(examples, tokenizer, options).map(({ target }) => [...(target as Float32Array)]),
    [
      [1, 1],
      [0, 0],
      [0, 1],
    ],
  )
  const kind = textClassification({ labels: 'multiple', labelSeparator: '|' })
  const table = await kind.read(fileOf('m.tsv', 'text\tlabel\na\tx|y\nb\t\n'), {})
  t.same(
    table.examples.map(({ label }) => label),
    [['x', 'y'], []],
  )
  t.equal(kind.learn(table.examples).config.problemType, 'multi_label_classification')
  await t.rejects(textClassification({ labels: 'single' }).read(file, { strict: true }), {
    code: 'ERR_FORMAT',
    message: /m\.jsonl:1: the label is/,
  })
})

t.test('several labels at once: one half and more, metrics, report', async (t) => {
  const examples = examplesOf(['a', ['x', 'y']], ['b', []], ['c', ['y']])
  const task = textClassification().learn(examples)
  const predictions = decoded(task, examples, [
    [0, 3],
    [-1, -2],
    [1, -1],
  ])
  t.same(
    predictions.map(({ label }) => label),
    [['y', 'x'], [], ['x']],
  )
  t.same(
    predictions.map(({ score, scores }) => score === Math.max(...scores)),
    [true, true, true],
  )
  const metrics = task.metrics(examples, predictions)
  // 3 true, 3 predicted, 2 of them right; x: F1 2/3, y: F1 2/3.
  t.same(Object.keys(metrics), [
    'microF1',
    'microPrecision',
    'microRecall',
    'macroF1',
    'weightedF1',
    'subsetAccuracy',
  ])
  t.same([metrics.subsetAccuracy, metrics.microF1, metrics.macroF1], [2 / 3, 2 / 3, 2 / 3])
  t.equal(task.metric, 'microF1')
  t.match(task.report(examples, predictions), /^ +precision.*\nx .*\ny .*\n\nmicro average .*\nmacro/)
  t.match(task.record(examples[2]!, predictions[2]!), {
    label: ['y'],
    prediction: ['x'],
    scores: { x: Number },
  })
})

t.test('several labels at once: a model learns them', async (t) => {
  const examples = examplesOf(
    ['good film', ['good', 'film']],
    ['good', ['good']],
    ['the film', ['film']],
    ['no', []],
    ['very good', ['good']],
    ['a film', ['film']],
  )
  const kind = textClassification()
  const task = kind.learn(examples)
  const model = modelFor(task)
  const losses = await learn(task, model, task.features(examples, tokenizer, options), 80)
  t.ok(losses.at(-1)! < 0.1, `ends at ${losses.at(-1)}`)
  const restored = textClassification(kindOptionsOf(model.config)).restore(model.config)
  t.equal(restored.metrics(examples, await predict(restored, model, examples)).subsetAccuracy, 1)
  model.dispose()
})
