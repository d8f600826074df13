/** Classification with one label a text: what is read and learned, what the model gets, what comes out. */
import fc from 'fast-check'
import t from 'tap'
import { ElectraForSequenceClassification } from '../../dist/electra/index.js'
import { formatElectraConfig, parseElectraConfig } from '../../dist/formats/electra-config.js'
import { textClassification } from '../../dist/tasks/text-classification.js'
import { golden, outputsOf, readInputs } from '../electra/golden-data.js'
import { needsSharedData } from '../helpers/shared.js'
import {
  decoded,
  device,
  examplesOf,
  fileOf,
  learn,
  modelFor,
  predict,
  smallConfig,
  tokenizer,
  wordsOf,
} from './small-task.js'

const options = { maxLength: 32, training: true }

t.test('a file of labelled texts: labels in order, targets, rows as the model takes them', async (t) => {
  const kind = textClassification()
  const { examples, skipped } = await kind.read(
    fileOf('a.tsv', 'text\tlabel\na good film\tpos\nbad\tneg\nx\nno\tneg\n'),
    {},
  )
  t.match(skipped, [{ place: 'line 4', problem: /1 columns/ }])
  const task = kind.learn(examples)
  t.match(task.config, {
    problemType: 'single_label_classification',
    numLabels: 2,
    id2label: { 0: 'neg', 1: 'pos' },
    label2id: { neg: 0, pos: 1 },
  })
  t.equal(task.metric, 'accuracy')
  const features = task.features(examples, tokenizer, options)
  t.same(features.map(wordsOf), ['[CLS] a good film [SEP]', '[CLS] bad [SEP]', '[CLS] no [SEP]'])
  t.same(
    features.map(({ example, target }) => [example, target]),
    [
      [0, 1],
      [1, 0],
      [2, 0],
    ],
  )
  const cut = task.features(examplesOf(['a b c d e', 'pos']), tokenizer, { maxLength: 4, training: false })
  t.same(cut.map(wordsOf), ['[CLS] a b [SEP]'])
  t.notOk('target' in cut[0]!)
})

t.test('numbers as labels keep their order', async (t) => {
  const task = textClassification().learn(examplesOf(['a', '10'], ['b', '9'], ['c', '2']))
  t.same(task.config.id2label, { 0: '2', 1: '9', 2: '10' })
})

t.test('pairs: types, and both orders where they may be swapped', async (t) => {
  const examples = examplesOf(['a b', 'x', 'c'], ['d', 'y', 'e f'])
  const plain = textClassification().learn(examples).features(examples, tokenizer, options)
  t.same(plain.map(wordsOf), ['[CLS] a b [SEP] c [SEP]', '[CLS] d [SEP] e f [SEP]'])
  t.same(Array.from(plain[0]!.tokenTypeIds), [0, 0, 0, 0, 1, 1])
  const task = textClassification({ unordered: true }).learn(examples)
  const doubled = task.features(examples, tokenizer, options)
  t.same(doubled.slice(2).map(wordsOf), ['[CLS] c [SEP] a b [SEP]', '[CLS] e f [SEP] d [SEP]'])
  t.same(
    doubled.map(({ example, target }) => [example, target]),
    [
      [0, 0],
      [1, 1],
      [0, 0],
      [1, 1],
    ],
  )
  t.equal(task.features(examples, tokenizer, { ...options, training: false }).length, 2)
})

t.test('the loss and logits are those of the reference', needsSharedData, async (t) => {
  const folder = golden('sequence_classification')
  const inputs = readInputs(folder)
  const labels = inputs.file.int32('labels')
  const model = await ElectraForSequenceClassification.fromPretrained(folder, { device })
  const task = textClassification().restore(model.config)
  const [inputIds, tokenTypeIds] = [inputs.ragged('input_ids'), inputs.ragged('token_type_ids')]
  const features = inputIds.map((row, at) => ({
    example: at,
    inputIds: row,
    tokenTypeIds: tokenTypeIds[at]!,
    target: labels[at]!,
  }))
  // float32 sums in another order; the golden data's own rule.
  const isClose = (found: number, expected: number) =>
    Math.abs(found - expected) <= 1e-4 * Math.abs(expected) + 1e-6
  const expected = outputsOf(folder)
  t.ok(isClose(task.loss(model, features).dataSync()[0]!, expected.float32('loss')[0]!))
  const logits = (await task.outputs(model, features)).flatMap(({ logits }) => [...logits!])
  t.equal(logits.length, 3 * inputs.rows)
  t.ok(logits.every((logit, at) => isClose(logit, expected.float32('logits')[at]!)))
})

t.test('a model learns a small set, and its configuration restores the task', async (t) => {
  const kind = textClassification()
  const examples = examplesOf(
    ['the film is good', 'pos'],
    ['a very good film', 'pos'],
    ['warm', 'pos'],
    ['the film is bad', 'neg'],
    ['bad', 'neg'],
    ['no, very cold', 'neg'],
  )
  const task = kind.learn(examples)
  const model = modelFor(task)
  const losses = await learn(task, model, task.features(examples, tokenizer, options), 60)
  t.ok(Math.abs(losses[0]! - Math.log(2)) < 0.2, 'starts at chance')
  t.ok(losses.at(-1)! < 0.1, `ends at ${losses.at(-1)}`)
  const restored = kind.restore(model.config)
  const predictions = await predict(restored, model, examples)
  t.same(
    predictions.map(({ label }) => label),
    examples.map(({ label }) => label),
  )
  t.same(restored.metrics(examples, predictions).accuracy, 1)
  model.dispose()
})

t.test('predictions, metrics, report and record', async (t) => {
  const examples = examplesOf(['a', 'x'], ['b', 'x'], ['c', 'y'], ['d', 'y'])
  const task = textClassification().learn(examples)
  const predictions = decoded(task, examples, [
    [2, 0],
    [0, 1],
    [0, Math.log(3)],
    [0, 5],
  ])
  t.same(
    predictions.map(({ label }) => label),
    ['x', 'y', 'y', 'y'],
  )
  // float32 logits: 1e-7 of them.
  t.ok(Math.abs(predictions[2]!.score - 0.75) < 1e-6)
  t.ok(Math.abs(predictions[2]!.scores[0]! - 0.25) < 1e-6)
  const metrics = task.metrics(examples, predictions)
  // x: precision 1, recall 1/2, F1 2/3; y: precision 2/3, recall 1, F1 4/5.
  const expected = {
    accuracy: 3 / 4,
    macroF1: 11 / 15,
    macroPrecision: 5 / 6,
    macroRecall: 3 / 4,
    weightedF1: 11 / 15,
    matthewsCorrelation: 1 / Math.sqrt(3),
  }
  t.same(Object.keys(metrics), Object.keys(expected))
  for (const [name, value] of Object.entries(expected)) {
    // A few roundings.
    t.ok(Math.abs(metrics[name]! - value) < 1e-12, `${name} is ${metrics[name]}, expected ${value}`)
  }
  t.equal(
    task.report(examples, predictions),
    [
      '                  precision  recall     F1  examples',
      'x                     1.000   0.500  0.667         2',
      'y                     0.667   1.000  0.800         2',
      '',
      'macro average         0.833   0.750  0.733         4',
      'weighted average      0.833   0.750  0.733         4',
      '',
      'rows: labels; columns: predictions',
      '     1  2',
      '1 x  1  1',
      '2 y  0  2',
    ].join('\n'),
  )
  t.match(task.record(examples[1]!, predictions[1]!), {
    line: 3,
    text: 'b',
    label: 'x',
    prediction: 'y',
    score: predictions[1]!.score,
  })
})

t.test('any names: through config.json and back they are the same classes', async (t) => {
  const name = fc.oneof(
    fc.string({ unit: 'grapheme', minLength: 1 }).filter((text) => text.trim() === text && text !== ''),
    fc.constantFrom('__proto__', 'constructor', '0', '10', '9', 'LABEL_1'),
  )
  fc.assert(
    fc.property(fc.uniqueArray(name, { minLength: 2, maxLength: 6 }), fc.boolean(), (names, areSeveral) => {
      const kind = textClassification()
      const examples = names.map((label, line) => ({ text: 'a', label: areSeveral ? [label] : label, line }))
      const task = kind.learn(examples)
      const saved = formatElectraConfig(smallConfig(task.config))
      const restored = kind.restore(parseElectraConfig(JSON.parse(saved), 'test'))
      const targets = (of: typeof task) =>
        of.features(examples, tokenizer, options).map(({ target }) => JSON.stringify(target))
      t.strictSame(targets(restored), targets(task))
      t.equal(new Set(targets(task)).size, names.length)
    }),
    { numRuns: 50 },
  )
})
