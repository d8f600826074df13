/** GLUE's tasks: labels in whatever order a model has them, metrics, pairs that may be swapped. */
import t from 'tap'
import { defineElectraConfig } from '../../dist/formats/electra-config.js'
import { taskKind } from '../../dist/tasks/index.js'
import { needsSharedData, sharedData } from '../helpers/shared.js'
import { examplesOf, madeOutputs, tokenizer } from './small-task.js'

const options = { maxLength: 32, training: true }

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
