/** Tasks by name, and what a configuration says of a task's files. */
import t from 'tap'
import { defineElectraConfig } from '../../dist/formats/electra-config.js'
import { glueTaskNames, kindOptionsOf, taskKind, taskNames } from '../../dist/tasks/index.js'

t.test('every name gives its kind', async (t) => {
  for (const name of glueTaskNames) {
    t.equal(taskKind(name).name, name === 'sts-b' ? 'text-regression' : 'text-classification', name)
  }
  for (const name of ['text-classification', 'text-regression', 'multiple-choice']) {
    t.equal(taskKind(name).name, name)
    t.ok(taskNames.includes(name))
  }
  t.equal(taskKind('SST2').name, 'text-classification', 'GLUE’s names without dash or case')
  t.throws(() => taskKind('translation'), {
    code: 'ERR_CONFIG',
    message: /no task 'translation'; expected one of text-classification, .*sst-2/,
  })
  t.throws(() => taskKind('constructor'), { code: 'ERR_CONFIG' })
})

t.test('what a model says of its files', async (t) => {
  t.same(kindOptionsOf(defineElectraConfig()), {})
  t.same(kindOptionsOf(defineElectraConfig({ problemType: 'multi_label_classification' })), {
    labels: 'multiple',
  })
  const calibration = { temperature: 1, threshold: 0.5, out_of_scope_label: 'oos' }
  t.same(kindOptionsOf(defineElectraConfig({ extra: { voltaic_calibration: calibration } })), {
    outOfScope: 'oos',
  })
})
