/** Checkpoints of the original code that were fine-tuned with one linear layer, and what convert says of what it leaves out. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  convertModel,
  defineElectraConfig,
  ElectraForPreTraining,
  ElectraForSequenceClassification,
  ElectraForTokenClassification,
  ElectraModel,
  type LeftOut,
  openModelSource,
  readModelFolder,
} from 'voltaic'
import { originalVariables } from '../helpers/formats/original-names.js'
import { type Variable, writeCheckpoint } from '../helpers/formats/tensorflow.js'
import { voltaic } from '../helpers/training.js'

t.setTimeout(120_000)

const hiddenSize = 64
const config = defineElectraConfig({
  ...{ vocabSize: 9, embeddingSize: 4, hiddenSize, numHiddenLayers: 2, numAttentionHeads: 1 },
  ...{ intermediateSize: 8, maxPositionEmbeddings: 12, initializerRange: 0.5 },
})
const rows = [Int32Array.of(2, 5, 6, 3), Int32Array.of(2, 8, 3)]

/** Numbers that stand for trained ones, up to 2 in size. */
const kernelOf = (classes: number): Float32Array =>
  Float32Array.from({ length: hiddenSize * classes }, (_, i) => 2 * Math.sin(1.7 * i + 0.3))
const biasOf = (classes: number): Float32Array => Float32Array.from({ length: classes }, (_, i) => i - 0.75)
const bytes = (values: Float32Array): Buffer => Buffer.from(values.buffer)

function linear(task: string, classes: number): Variable[] {
  const kernel = { shape: [hiddenSize, classes], data: bytes(kernelOf(classes)) }
  const bias = { shape: [classes], data: bytes(biasOf(classes)) }
  return [
    { name: `task_specific/${task}/dense/kernel`, ...kernel },
    { name: `task_specific/${task}/dense/kernel/adam_m`, ...kernel },
    { name: `task_specific/${task}/dense/bias`, ...bias },
  ]
}

/** A body's variables with the optimizer's, and a file of them with others. */
async function checkpoints(t: Test): Promise<(name: string, ...more: Variable[]) => string> {
  const folder = t.testdir()
  const model = new ElectraForPreTraining(config, { seed: 1 })
  await model.electra.savePretrained(join(folder, 'body'))
  model.dispose()
  const body = readModelFolder(join(folder, 'body'))
  const variables = originalVariables(body.tensors, 'electra')
  body.close()
  return (name, ...more) => {
    mkdirSync(join(folder, name))
    const prefix = join(folder, name, 'model.ckpt-7')
    writeCheckpoint(prefix, [...variables, ...more])
    return prefix
  }
}

/** hidden · kernel + bias in double precision, a row for each hidden vector. */
function expectedLogits(hidden: Float32Array, classes: number): number[] {
  const kernel = kernelOf(classes)
  const bias = biasOf(classes)
  const vectors = hidden.length / hiddenSize
  return Array.from({ length: vectors * classes }, (_, at) => {
    const [row, label] = [Math.floor(at / classes), at % classes]
    let sum = bias[label] as number
    for (let i = 0; i < hiddenSize; i++)
      sum += (hidden[row * hiddenSize + i] as number) * (kernel[i * classes + label] as number)
    return sum
  })
}

/** Sums of 64 products of size 1 in float32, and the difference of two GELUs: some 1e-6 of the largest. */
const rounding = 1e-5

function close(t: Test, found: Float32Array, expected: readonly number[], what: string): void {
  const most = Math.max(...expected.map(Math.abs))
  const errors = expected.map((value, at) => Math.abs(value - (found[at] ?? Number.NaN)))
  t.equal(found.length, expected.length)
  t.ok(Math.max(...errors) <= rounding * most, `${what}: differs by ${Math.max(...errors)} of ${most}`)
}

async function hiddenOf(folder: string): Promise<Float32Array> {
  const model = await ElectraModel.fromPretrained(folder)
  const hidden = (await model.forward({ inputIds: rows }).lastHiddenState.data()) as Float32Array
  return hidden.slice()
}
const first = (hidden: Float32Array): Float32Array =>
  Float32Array.of(...hidden.subarray(0, hiddenSize), ...hidden.subarray(4 * hiddenSize, 5 * hiddenSize))

t.test('classification gives the same logits in the class of today', async (t) => {
  const write = await checkpoints(t)
  for (const [task, classes, labels] of [
    ['mnli', 3, ['contradiction', 'entailment', 'neutral']],
    ['rte', 2, ['entailment', 'not_entailment']],
    ['own', hiddenSize / 2, undefined],
    ['sts', 1, undefined],
  ] as const) {
    const prefix = write(task, ...linear(task, classes))
    const folder = `${prefix}-converted`
    const { config: found, leftOut } = await convertModel(prefix, folder)
    t.same(found.architectures, ['ElectraForSequenceClassification'], task)
    t.equal(found.problemType, classes === 1 ? 'regression' : 'single_label_classification')
    t.equal(found.numLabels, classes)
    if (labels !== undefined) t.same(Object.values(found.id2label), labels)
    t.same(
      leftOut.map(({ reason }) => reason),
      ["the optimizer's state, which no model folder holds"],
    )
    const model = await ElectraForSequenceClassification.fromPretrained(folder)
    t.same(model.loadReport, { missing: [], unexpected: [] })
    const logits = (await model.forward({ inputIds: rows }).logits.data()) as Float32Array
    close(t, logits, expectedLogits(first(await hiddenOf(folder)), classes), task)
  }
})

t.test('chunking is token classification', async (t) => {
  const prefix = (await checkpoints(t))('chunk', ...linear('chunk', 40))
  const folder = `${prefix}-converted`
  await convertModel(prefix, folder)
  const model = await ElectraForTokenClassification.fromPretrained(folder)
  t.same(model.loadReport, { missing: [], unexpected: [] })
  const logits = (await model.forward({ inputIds: rows }).logits.data()) as Float32Array
  close(t, logits, expectedLogits(await hiddenOf(folder), 40), 'every token')
})

t.test('what has no place is said, with the reason', async (t) => {
  const write = await checkpoints(t)
  const tiny = (name: string): Variable => ({ name, shape: [1], data: Buffer.alloc(4) })
  const otherWidth: Variable[] = [
    { name: 'task_specific/x/dense/kernel', shape: [hiddenSize / 2, 1], data: Buffer.alloc(2 * hiddenSize) },
    tiny('task_specific/x/dense/bias'),
  ]
  for (const [name, variables, reason] of [
    ['wide', linear('wide', hiddenSize / 2 + 1), /at most half as many classes/],
    ['two', [...linear('sst', 2), ...linear('cola', 2)], /^heads of 2 tasks/],
    ['layers', [...linear('x', 2), tiny('task_specific/x/dense_1/bias')], /of other layers/],
    ['shapes', [...linear('x', 2).slice(0, 2), tiny('task_specific/x/dense/bias')], /of other layers/],
    ['other width', otherWidth, /of other layers/],
    ['electric', [tiny('generator_ltr/encoder/x'), tiny('cloze_predictions/dense/bias')], /^Electric's/],
    [
      'generator',
      [tiny('generator/encoder/x'), tiny('generator_predictions/output_bias')],
      /^the generator; /,
    ],
    ['strange', [tiny('bert/pooler/dense/bias')], /^no variable of the original/],
  ] as const) {
    using source = await openModelSource(write(name, ...variables))
    t.same(source.config.architectures, ['ElectraModel'], name)
    const isOptimizer = ({ reason }: LeftOut): boolean => /optimizer's state/.test(reason)
    t.equal(source.leftOut.filter(isOptimizer).length, 1)
    const [other, ...more] = source.leftOut.filter((group) => !isOptimizer(group))
    t.match(other?.reason, reason, name)
    t.same(more, [], name)
    t.same(
      [...(other?.names ?? [])].sort(),
      variables
        .map((v) => v.name)
        .filter((v) => !/adam/.test(v))
        .sort(),
    )
  }
  const both = write('both', tiny('generator/encoder/x'))
  await t.rejects(openModelSource(both, { part: 'generator' }), {
    code: 'ERR_FORMAT',
    message: /no generator/,
  })
  const { code, stderr } = await voltaic(['convert', both, `${both}-converted`])
  t.equal(code, 0, stderr)
  t.match(
    stderr,
    /left out: generator\/encoder\/x: the generator; to convert it, ask for the part generator\n/,
  )
  t.match(stderr, /left out: \S+adam_m, \S+adam_v and \d+ more: the optimizer's state/)
})
