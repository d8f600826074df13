/** Classification of texts: what is read and learned, what the model gets, what comes out, and what is refused. */
import fc from 'fast-check'
import t from 'tap'
import { ElectraForSequenceClassification } from '../../dist/electra/index.js'
import {
  defineElectraConfig,
  formatElectraConfig,
  parseElectraConfig,
} from '../../dist/formats/electra-config.js'
import {
  kindOptionsOf,
  type TaskKindOptions,
  type TextExample,
  type TextPrediction,
  taskKind,
} from '../../dist/tasks/index.js'
import { textClassification } from '../../dist/tasks/text-classification.js'
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
  wordsOf,
} from './small-task.js'

const options = { maxLength: 32, training: true }

const examplesOf = (
  ...rows: (readonly [text: string, label: TextExample['label'], pair?: string])[]
): TextExample[] =>
  rows.map(([text, label, pair], at) => ({
    text,
    ...(label === undefined ? {} : { label }),
    ...(pair === undefined ? {} : { pair }),
    line: at + 2,
  }))

/** Predictions from made logits, a row an example. */
function decoded(
  task: ReturnType<ReturnType<typeof textClassification>['restore']>,
  examples: TextExample[],
  logits: number[][],
): TextPrediction[] {
  const features = task.features(examples, tokenizer, { maxLength: 32, training: false })
  return task.decode(examples, features, madeOutputs(logits))
}

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

t.test('MRPC and STS-B are learned in both orders, QQP is not', async (t) => {
  for (const [name, count] of [
    ['mrpc', 2],
    ['qqp', 1],
  ] as const) {
    const task = taskKind(name).learn([])
    t.equal(task.features(examplesOf(['a', '1', 'b']), tokenizer, options).length, count, name)
  }
  const similar = taskKind('sts-b').learn([])
  t.equal(similar.features([{ text: 'a', pair: 'b', label: 2.5, line: 1 }], tokenizer, options).length, 2)
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

t.test(
  'GLUE: fixed labels, its metrics, a model with the labels in another order or under no names',
  async (t) => {
    const task = taskKind('cola').learn([])
    t.same(task.config.id2label, { 0: '0', 1: '1' })
    t.equal(task.metric, 'matthewsCorrelation')
    t.equal(taskKind('rte').defaults.epochs, 10)
    t.equal(taskKind('mnli').defaults.epochs, 3)

    const names = ['entailment', 'NEUTRAL', 'contradiction']
    const other = defineElectraConfig({ id2label: Object.fromEntries(names.entries()) })
    const restored = taskKind('mnli').restore(other)
    const examples = examplesOf(['a', 'neutral', 'b'], ['c', 'entailment', 'd'])
    const features = restored.features(examples, tokenizer, options)
    t.same(
      features.map((feature) => (feature as { target?: number }).target),
      [1, 0],
    )
    const predictions = restored.decode(
      examples,
      features,
      madeOutputs([
        [0, 1, 0],
        [1, 0, 0],
      ]),
    )
    t.same(restored.metrics(examples, predictions), { accuracy: 1 })
    t.same(
      taskKind('mnli').restore(defineElectraConfig({ numLabels: 3 })).config.id2label,
      { 0: 'contradiction', 1: 'entailment', 2: 'neutral' },
      'LABEL_0 and so on are by number',
    )
    const sentiments = defineElectraConfig({ id2label: { 0: 'NEGATIVE', 1: 'POSITIVE' } })
    t.same(taskKind('sst-2').restore(sentiments).config.id2label, { 0: '0', 1: '1' })
    t.throws(() => taskKind('rte').restore(sentiments), {
      code: 'ERR_CONFIG',
      message: /NEGATIVE, POSITIVE.*rte has entailment, not_entailment/,
    })
    t.throws(() => taskKind('mnli').restore(sentiments), { code: 'ERR_CONFIG' })
  },
)

t.test('GLUE: F1 is that of class 1', async (t) => {
  const task = taskKind('mrpc').learn([])
  const examples = examplesOf(['a', '1', 'b'], ['a', '0', 'b'], ['a', '0', 'b'], ['a', '0', 'b'])
  const features = task.features(examples, tokenizer, { ...options, training: false })
  const predictions = task.decode(
    examples,
    features,
    madeOutputs([
      [0, 1],
      [0, 1],
      [1, 0],
      [1, 0],
    ]),
  )
  t.same(task.metrics(examples, predictions), { accuracy: 3 / 4, f1: 2 / 3 })
})

t.test('GLUE: files of the shared data', needsSharedData, async (t) => {
  const { examples, skipped } = await taskKind('sst2').read(`${sharedData}/glue/SST-2/dev.tsv`, {})
  t.same([examples.length, skipped.length], [872, 0])
  const pairs = await taskKind('rte').read(`${sharedData}/glue/RTE/train.tsv`, { split: 'train' })
  t.equal(pairs.examples.length, 2490)
})

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

t.test(
  'intents: what is out of scope sets the threshold, and is rejected by the restored task',
  async (t) => {
    const kind = textClassification({ outOfScope: 'oos' })
    const file = fileOf('i.tsv', 'text\tlabel\na\tx\nb\ty\nc\toos\nd\toos\n')
    const { examples } = await kind.read(file, { labelNames: ['x', 'y'] })
    t.equal(examples.length, 4, 'its name is among the known ones')
    const task = kind.learn(examples)
    t.same(task.config.id2label, { 0: 'x', 1: 'y' }, 'it is no class')
    t.equal(task.features(examples, tokenizer, options).length, 2, 'and not learned from')
    const features = task.features(examples, tokenizer, { ...options, training: false })
    // In scope 4 more and right, out of scope 1 and 0.5 more.
    const outputs = madeOutputs([
      [4, 0],
      [0, 4],
      [1, 0],
      [0, 0.5],
    ])
    const before = task.decode(examples, features, outputs)
    t.same(task.metrics(examples, before).accuracy, 0.5, 'nothing is rejected yet')
    const added = task.calibrate!(examples, features, outputs)
    // As the configuration of a pre-trained folder becomes that of the fine-tuned one.
    const config = smallConfig({ architectures: ['ElectraForPreTraining'], ...task.config, ...added })
    t.match(config.extra, { voltaic_calibration: { temperature: 0.05, out_of_scope_label: 'oos' } })
    t.same(kindOptionsOf(config), { outOfScope: 'oos' })
    const restored = textClassification(kindOptionsOf(config)).restore(config)
    const after = restored.decode(examples, features, outputs)
    t.same(
      after.map(({ label }) => label),
      ['x', 'y', 'oos', 'oos'],
    )
    t.ok(Math.abs(after[3]!.score - (1 - Math.max(...after[3]!.scores))) < 1e-15)
    t.match(restored.metrics(examples, after), {
      accuracy: 1,
      macroF1: 1,
      inScopeAccuracy: 1,
      inScopeRecall: 1,
      outOfScopeRecall: 1,
    })
    t.match(restored.report(examples, after), /\noos +1\.000 +1\.000 +1\.000 +2\n/)
  },
)

t.test('intents: without texts out of scope, the wanted part is kept', async (t) => {
  const kind = textClassification({ outOfScope: 'none of them', inScopeRecall: 0.75 })
  const examples = examplesOf(['a', 'x'], ['b', 'y'], ['c', 'x'], ['d', 'y'])
  const task = kind.learn(examples)
  const features = task.features(examples, tokenizer, { ...options, training: false })
  const outputs = madeOutputs([
    [3, 0],
    [0, 2],
    [0, 1],
    [0.5, 0],
  ])
  const config = smallConfig({ ...task.config, ...task.calibrate!(examples, features, outputs) })
  const restored = textClassification().restore(config)
  const predictions = restored.decode(examples, features, outputs)
  t.same(
    predictions.map(({ label }) => label),
    ['x', 'y', 'y', 'none of them'],
    'the least sure one of four goes',
  )
  const metrics = restored.metrics(examples, predictions)
  t.equal(metrics.inScopeRecall, 0.75)
  t.equal(metrics.inScopeAccuracy, 0.5)
  t.notOk('outOfScopeRecall' in metrics)
  t.equal(textClassification().learn(examples).calibrate, undefined, 'only where it is asked for')
  const outside = examplesOf(['a', 'none of them'])
  t.throws(() => task.calibrate!(outside, [features[0]!], outputs), {
    code: 'ERR_CONFIG',
    message: /in scope/,
  })
})

t.test('labels that do not match, files without examples, options that do not fit', async (t) => {
  const kind = textClassification()
  const file = fileOf('u.tsv', 'text\tlabel\na\tx\nb\tz\n')
  const read = await kind.read(file, { labelNames: ['x', 'y'] })
  t.match(read.skipped, [{ place: 'line 3', problem: "the label 'z' is unknown, expected one of x, y" }])
  await t.rejects(kind.read(file, { labelNames: ['x', 'y'], strict: true }), {
    code: 'ERR_FORMAT',
    message: /u\.tsv:3: the label 'z' is unknown, expected one of x, y/,
  })
  await t.rejects(kind.read(file, { labelNames: ['p', 'q'] }), {
    code: 'ERR_FORMAT',
    message: /none of its 2 rows can be used; line 2: the label 'x' is unknown/,
  })
  await t.rejects(kind.read(fileOf('e.tsv', ''), {}), { code: 'ERR_FORMAT', message: /e\.tsv: is empty/ })
  await t.rejects(kind.read(fileOf('h.tsv', 'text\tlabel\n'), {}), {
    code: 'ERR_FORMAT',
    message: /holds no rows/,
  })
  await t.rejects(kind.read(fileOf('n.tsv', 'text\tname\na\tx\n'), {}), {
    code: 'ERR_CONFIG',
    message: /no column 'label'/,
  })
  t.throws(() => kind.learn(examplesOf(['a', []])), {
    code: 'ERR_CONFIG',
    message: /no label; expected one or more/,
  })
  t.throws(() => kind.learn(examplesOf(['a', 'x'], ['b', 'x'])), {
    code: 'ERR_CONFIG',
    message: /one label only, 'x'; expected two or more/,
  })
  const task = kind.learn(examplesOf(['a', 'x'], ['b', 'y']))
  t.throws(() => task.features(examplesOf(['a', 'z']), tokenizer, options), {
    code: 'ERR_ARGUMENT',
    message: /line 2 has the label "z"; expected one of x, y/,
  })
  const unlabelled = examplesOf(['a', undefined])
  t.same(task.features(unlabelled, tokenizer, options), [], 'nothing to learn')
  t.throws(() => task.metrics(unlabelled, decoded(task, unlabelled, [[0, 1]])), {
    code: 'ERR_ARGUMENT',
    message: /line 2 has no label/,
  })
  t.throws(
    () => task.loss(modelFor(task), task.features(unlabelled, tokenizer, { ...options, training: false })),
    {
      code: 'ERR_ARGUMENT',
      message: /without a target/,
    },
  )
  t.throws(() => task.decode(unlabelled, [], []), { code: 'ERR_ARGUMENT', message: /no feature/ })
  for (const wrong of [
    { inScopeRecall: 0 },
    { inScopeRecall: 2 },
    { labels: 'multiple', outOfScope: 'oos' },
  ]) {
    t.throws(() => textClassification(wrong as TaskKindOptions), { code: 'ERR_ARGUMENT' })
  }
  t.throws(() => textClassification({ outOfScope: 'oos' }).learn(examplesOf(['a', ['x', 'y']])), {
    code: 'ERR_ARGUMENT',
    message: /outOfScope/,
  })
})

t.test('examples without labels, for predictions', async (t) => {
  const kind = textClassification()
  const texts = await kind.read(fileOf('t.tsv', 'text\na\nb\n'), { unlabelled: true })
  t.same(
    texts.examples.map(({ text, label }) => [text, label]),
    [
      ['a', undefined],
      ['b', undefined],
    ],
  )
  const some = await kind.read(fileOf('s.jsonl', '{"text":"a","label":"x"}\n{"text":"b"}\n'), {
    unlabelled: true,
  })
  t.same(
    some.examples.map(({ label }) => label),
    ['x', undefined],
  )
})

t.test('models of other tasks', async (t) => {
  const kind = textClassification()
  t.throws(() => kind.restore(smallConfig({ architectures: ['ElectraForTokenClassification'] })), {
    code: 'ERR_CONFIG',
    message: /ElectraForTokenClassification; text-classification needs an ElectraForSequenceClassification/,
  })
  t.throws(() => kind.restore(smallConfig({ numLabels: 1 })), {
    code: 'ERR_CONFIG',
    message: /text-regression/,
  })
  t.throws(() => kind.restore(smallConfig({ numLabels: 3, problemType: 'regression' })), {
    code: 'ERR_CONFIG',
  })
  t.throws(() => textClassification({ labels: 'multiple' }).restore(smallConfig({ numLabels: 3 })), {
    code: 'ERR_CONFIG',
    message: /one label a text/,
  })
})
