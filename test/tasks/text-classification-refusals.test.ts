/** Classification: files, labels, models and options that do not fit; examples without labels. */
import t from 'tap'
import type { TaskKindOptions } from '../../dist/tasks/index.js'
import { textClassification } from '../../dist/tasks/text-classification.js'
import { decoded, examplesOf, fileOf, modelFor, smallConfig, tokenizer } from './small-task.js'

const options = { maxLength: 32, training: true }

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
  const learned = smallConfig({ id2label: { 0: 'x', 1: 'oos' } })
  t.throws(() => textClassification({ outOfScope: 'oos' }).restore(learned), {
    code: 'ERR_CONFIG',
    message: /the model has 'oos' as a label that it predicts/,
  })
})
