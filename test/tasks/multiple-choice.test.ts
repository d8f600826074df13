/** Multiple choice: the forms of its files, one feature a question, questions with more and fewer choices, what is refused. */
import t from 'tap'
import type { ElectraForMultipleChoice } from '../../dist/electra/index.js'
import { type ChoiceExample, readChoiceExamples } from '../../dist/tasks/index.js'
import { multipleChoice } from '../../dist/tasks/multiple-choice.js'
import {
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
const jsonLines = (...rows: unknown[]): string => rows.map((row) => `${JSON.stringify(row)}\n`).join('')

t.test('SWAG’s columns: the endings follow sent2', async (t) => {
  const file = fileOf(
    's.csv',
    'sent1,sent2,ending0,ending1,ending2,label\nthe film is good.,it,is warm,is cold,was bad,1\n',
  )
  const { examples } = await readChoiceExamples(file)
  t.same(examples, [
    { text: 'the film is good.', choices: ['it is warm', 'it is cold', 'it was bad'], label: 1, line: 2 },
  ])
})

t.test('a list of choices, and Hugging Face’s object of texts and keys', async (t) => {
  const file = fileOf(
    'l.jsonl',
    jsonLines(
      { question: 'a', choices: ['b', 'c'], answerKey: 'B' },
      { question: 'a', choices: { text: ['b', 'c', 'd'], label: ['1', '2', '3'] }, answerKey: '1' },
      { question: 'a', choices: ['b', 'c'], answerKey: 0 },
    ),
  )
  const { examples } = await readChoiceExamples(file)
  t.same(
    examples.map(({ choices, label }) => [choices.length, label]),
    [
      [2, 1],
      [3, 0],
      [2, 0],
    ],
  )
})

t.test('numbered columns, from 0 or 1; a question may leave the last ones empty', async (t) => {
  const file = fileOf('n.tsv', 'text\tchoice1\tchoice2\tchoice3\tlabel\na\tb\tc\t\t1\na\tb\tc\td\tC\n')
  const { examples } = await readChoiceExamples(file)
  t.same(
    examples.map(({ choices, label }) => [choices, label]),
    [
      [['b', 'c'], 1],
      [['b', 'c', 'd'], 2],
    ],
  )
})

t.test('rows that do not fit are named, and end a strict reading', async (t) => {
  const file = fileOf(
    'w.jsonl',
    jsonLines(
      { question: 'a', choices: ['b', 'c'], label: 2 },
      { question: 'a', choices: ['b'], label: 0 },
      { question: 'a', choices: ['b', ''], label: 0 },
      { question: 5, choices: ['b', 'c'], label: 0 },
      { question: 'a', choices: ['b', 'c'] },
      { question: 'a', choices: ['b', 'c'], label: 0 },
    ),
  )
  const { examples, skipped } = await multipleChoice().read(file, {})
  t.equal(examples.length, 1)
  t.same(skipped, [
    { place: 'line 1', problem: 'the label is 2, expected 0 to 1, or A to B' },
    { place: 'line 2', problem: 'expected two choices or more, none of them empty' },
    { place: 'line 3', problem: 'expected two choices or more, none of them empty' },
    { place: 'line 4', problem: "'question' is 5, expected a text" },
    { place: 'line 5', problem: 'the label is nothing, expected 0 to 1, or A to B' },
  ])
  await t.rejects(multipleChoice().read(file, { strict: true }), {
    code: 'ERR_FORMAT',
    message: /w\.jsonl:1/,
  })
  await t.rejects(readChoiceExamples(fileOf('c.tsv', 'question\tlabel\na\t1\n')), {
    code: 'ERR_CONFIG',
    message: /no choices; expected a column 'choices'/,
  })
  await t.rejects(readChoiceExamples(fileOf('q.tsv', 'choice0\tchoice1\tlabel\na\tb\t1\n')), {
    code: 'ERR_CONFIG',
    message: /no column 'question'/,
  })
  const unlabelled = fileOf('u.tsv', 'question\tchoice0\tchoice1\na\tb\tc\n')
  await t.rejects(readChoiceExamples(unlabelled), { code: 'ERR_CONFIG', message: /no column 'label'/ })
  const read = await multipleChoice().read(unlabelled, { unlabelled: true })
  t.same(read.examples, [{ text: 'a', choices: ['b', 'c'], line: 2 }])
})

const examples: ChoiceExample[] = [
  { text: 'the film is good', choices: ['warm', 'cold'], label: 0, line: 1 },
  { text: 'the film is bad', choices: ['a warm', 'cold', 'c d'], label: 1, line: 2 },
  { text: 'bad', choices: ['cold', 'warm'], label: 0, line: 3 },
  { text: 'good', choices: ['c', 'd', 'warm'], label: 2, line: 4 },
]

t.test('one feature a question: its choices one behind the other', async (t) => {
  const task = multipleChoice().learn(examples)
  const features = task.features(examples, tokenizer, options)
  t.equal(features.length, 4)
  t.equal(
    wordsOf(features[0]),
    '[CLS] the film is good [SEP] warm [SEP] [CLS] the film is good [SEP] cold [SEP]',
  )
  t.same(features[0]!.ends, [8, 16])
  t.same(Array.from(features[0]!.tokenTypeIds.subarray(0, 8)), [0, 0, 0, 0, 0, 0, 1, 1])
  t.same(
    features.map(({ target }) => target),
    [0, 1, 0, 2],
  )
  const cut = task.features(examples, tokenizer, { maxLength: 5, training: false })
  t.same(cut[0]!.ends, [5, 10], 'the length is that of a choice')
  t.notOk('target' in cut[0]!)
})

t.test(
  'the loss is the mean over questions, whatever their numbers of choices; outputs are the model’s logits',
  async (t) => {
    const task = multipleChoice().learn(examples)
    const model = modelFor(task) as ElectraForMultipleChoice
    const features = task.features(examples, tokenizer, options)
    model.eval()
    const single = features.map((feature) => task.loss(model, [feature]).dataSync()[0]!)
    const mean = single.reduce((sum, loss) => sum + loss, 0) / single.length
    const together = task.loss(model, features).dataSync()[0]!
    // float32 sums.
    t.ok(Math.abs(together - mean) < 1e-6, `${together}, expected ${mean}`)
    const outputs = await task.outputs(model, features)
    const rows = ['cold', 'warm'].map((choice) => tokenizer('bad', { textPair: choice }))
    const { logits } = model.forward({
      inputIds: [rows.map(({ inputIds }) => inputIds[0]!)],
      tokenTypeIds: [rows.map(({ tokenTypeIds }) => tokenTypeIds[0]!)],
    })
    t.same(outputs[2]!.logits, logits.dataSync(), 'to the bit: a row does not depend on its batch')
    t.same(
      outputs.map(({ logits }) => logits!.length),
      [2, 3, 2, 3],
    )
    model.dispose()
  },
)

t.test('a model learns the questions', async (t) => {
  const kind = multipleChoice()
  const task = kind.learn(examples)
  const model = modelFor(task)
  const losses = await learn(task, model, task.features(examples, tokenizer, options), 80)
  t.ok(losses.at(-1)! < 0.1, `ends at ${losses.at(-1)}`)
  const predictions = await predict(kind.restore(model.config), model, examples)
  t.same(task.metrics(examples, predictions), { accuracy: 1 })
  model.dispose()
})

t.test('predictions and records', async (t) => {
  const task = multipleChoice().learn(examples)
  const features = task.features(examples.slice(0, 2), tokenizer, { ...options, training: false })
  const predictions = task.decode(
    examples.slice(0, 2),
    features,
    madeOutputs([
      [Math.log(3), 0],
      [0, 0, 1],
    ]),
  )
  t.same(
    predictions.map(({ choice }) => choice),
    [0, 2],
  )
  // float32 logits.
  t.ok(Math.abs(predictions[0]!.score - 0.75) < 1e-6)
  t.same(task.metrics(examples.slice(0, 2), predictions), { accuracy: 0.5 })
  t.same(task.record(examples[1]!, predictions[1]!), {
    line: 2,
    text: 'the film is bad',
    choices: ['a warm', 'cold', 'c d'],
    label: 1,
    prediction: 2,
    scores: [...predictions[1]!.scores],
  })
  const [{ text, choices, line }] = examples as [ChoiceExample]
  const unlabelled = [{ text, choices, line }]
  t.same(task.features(unlabelled, tokenizer, options), [], 'nothing to learn')
  t.throws(() => task.metrics(unlabelled, predictions.slice(0, 1)), {
    code: 'ERR_ARGUMENT',
    message: /line 1/,
  })
})

t.test('models of other tasks', async (t) => {
  const config = smallConfig({ architectures: ['ElectraForSequenceClassification'] })
  t.throws(() => multipleChoice().restore(config), {
    code: 'ERR_CONFIG',
    message: /ElectraForMultipleChoice/,
  })
})
