/** Intents: a threshold for what is out of scope, from such texts or from the others alone. */
import t from 'tap'
import { kindOptionsOf } from '../../dist/tasks/index.js'
import { textClassification } from '../../dist/tasks/text-classification.js'
import { examplesOf, fileOf, madeOutputs, smallConfig, tokenizer } from './small-task.js'

const options = { maxLength: 32, training: true }

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
    t.equal(task.metric, 'openSetAuc')
    t.same(task.metrics(examples, before).openSetAuc, 1, 'but it can be')
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
  t.equal(metrics.openSetAuc, 0.5, 'without texts out of scope, the accuracy')
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
