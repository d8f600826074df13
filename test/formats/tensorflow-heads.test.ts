/** Checkpoints of the original code that were fine-tuned on question answering. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  defineElectraConfig,
  ElectraForJointQuestionAnswering,
  ElectraForPreTraining,
  openModelSource,
  readModelFolder,
} from 'voltaic'
import { answerHeadNames } from '../../dist/formats/tensorflow-heads.js'
import { originalVariables } from '../helpers/formats/original-names.js'
import { type Variable, writeCheckpoint } from '../helpers/formats/tensorflow.js'

const config = defineElectraConfig({
  ...{ vocabSize: 9, embeddingSize: 4, hiddenSize: 64, numHiddenLayers: 1, numAttentionHeads: 1 },
  ...{ intermediateSize: 8, maxPositionEmbeddings: 12 },
})
const scopes: readonly [string, string][] = [
  ['start_predictions', 'dense'],
  ['end_predictions/dense', 'qa_hidden'],
  ['end_predictions/dense_prediction', 'dense_1'],
  ['answerability_predictions/dense', 'dense_2'],
  ['answerability_predictions/dense_prediction', 'dense_3'],
]

/** Variables of a fine-tuned checkpoint. */
function fineTuned(variables: readonly Variable[], task: string): Variable[] {
  return variables.map((variable) => {
    const [, module = '', rest = ''] = /^(.+?)\/((?:kernel|bias)(?:\/adam_[mv])?)$/.exec(variable.name) ?? []
    const scope = scopes.find(([ours]) => ours === module)?.[1]
    return scope === undefined ? variable : { ...variable, name: `task_specific/${task}/${scope}/${rest}` }
  })
}

t.test('the head is found with its body, and gives the same answers', async (t) => {
  const folder = t.testdir()
  const model = new ElectraForJointQuestionAnswering(config, { seed: 1 }).eval()
  await model.savePretrained(join(folder, 'saved'))
  using saved = readModelFolder(join(folder, 'saved'))
  const variables = fineTuned(originalVariables(saved.tensors, 'electra'), 'squad')
  t.equal(variables.filter(({ name }) => /^task_specific\/.*(kernel|bias)$/.test(name)).length, 10)
  mkdirSync(join(folder, 'original'))
  const prefix = join(folder, 'original', 'model.ckpt-7')
  writeCheckpoint(prefix, variables)
  using source = await openModelSource(prefix)
  t.same(source.config.architectures, ['ElectraForJointQuestionAnswering'])
  t.same([...source.tensors.names].sort(), [...saved.tensors.names].sort())
  for (const name of saved.tensors.names) {
    t.same(source.tensors.info(name).shape, saved.tensors.info(name).shape, name)
    t.same(source.tensors.float32(name), saved.tensors.float32(name), name)
  }
})

t.test('what is not all of one such head is left out', async (t) => {
  const layers = ['dense', 'qa_hidden', 'dense_1', 'dense_2', 'dense_3']
  const head = (task: string) =>
    layers.flatMap((layer) => ['kernel', 'bias'].map((part) => `task_specific/${task}/${layer}/${part}`))
  t.equal(answerHeadNames(head('squad')).size, 10)
  t.equal(answerHeadNames(head('squad').slice(1)).size, 0, 'a variable is missing')
  t.equal(answerHeadNames([...head('squad'), ...head('newsqa')]).size, 0, 'two tasks')
  t.equal(answerHeadNames([...head('squad'), 'task_specific/mnli/dense/kernel']).size, 10)
  t.equal(answerHeadNames(['task_specific/mnli/dense/kernel', 'task_specific/mnli/dense/bias']).size, 0)
  const folder = t.testdir()
  await new ElectraForPreTraining(config, { seed: 1 }).savePretrained(join(folder, 'saved'))
  using saved = readModelFolder(join(folder, 'saved'))
  mkdirSync(join(folder, 'original'))
  const odd = { name: 'task_specific/mnli/dense/bias', shape: [1], data: Buffer.alloc(4) }
  writeCheckpoint(join(folder, 'original', 'm'), [...originalVariables(saved.tensors, 'electra'), odd])
  using source = await openModelSource(join(folder, 'original', 'm'))
  t.same(source.config.architectures, ['ElectraForPreTraining'])
  t.same([...source.tensors.names].sort(), [...saved.tensors.names].sort())
})
