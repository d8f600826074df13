/** Evaluation of a fine-tuned folder: the same metrics as at the end of its run, from the task that the folder names. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  defineElectraConfig,
  ElectraForQuestionAnswering,
  evaluate,
  loadTokenizer,
  taskKind,
  taskNameOf,
} from 'voltaic'
import { changedKind, smallFiles, smallRun, tune } from '../helpers/finetuning.js'

t.setTimeout(120_000)
const folder = t.testdir()
const files = await smallFiles(folder)
const model = join(folder, 'tuned')
const { result } = await tune({ ...smallRun, ...files, epochs: 2, learningRate: 1e-3, output: model })
const common = { model, data: files.validation, precision: 'fp32', device: 'cpu', maxLength: 32 } as const

t.test('it gives what the run gave, with the same predictions', async (t) => {
  const output = join(folder, 'new', 'predictions.jsonl')
  const progress: number[] = []
  const found = await evaluate({ ...common, output, onProgress: (done) => progress.push(done) })
  t.same(found.metrics, result.validation)
  t.match(found, { task: 'text-classification', metric: 'accuracy', examples: 60, skipped: [] })
  t.equal(found.report.trim(), result.report.trim())
  t.equal(progress.at(-1), 60)
  t.equal(readFileSync(output, 'utf8'), readFileSync(join(model, 'predictions.jsonl'), 'utf8'))
})

t.test("answers in the file that SQuAD's own scripts read", async (t) => {
  const answering = join(folder, 'answering')
  const random = await ElectraForQuestionAnswering.fromPretrained(files.model, { newHead: true, seed: 1 })
  await random.savePretrained(answering)
  random.dispose()
  await (await loadTokenizer(files.model)).save(answering)
  const context = 'a good film'
  const qas = [{ id: 'q1', question: 'what film', answers: [{ text: 'good', answer_start: 2 }] }]
  const data = join(folder, 'questions.json')
  writeFileSync(data, JSON.stringify({ data: [{ paragraphs: [{ context, qas }] }] }))
  const official = join(folder, 'new', 'official.json')
  await evaluate({ ...common, model: answering, data, official })
  const predictions = JSON.parse(readFileSync(official, 'utf8'))
  t.same(Object.keys(predictions), ['q1'])
  t.ok(predictions.q1 !== '' && context.includes(predictions.q1), `a part of the context: ${predictions.q1}`)
  await t.rejects(evaluate({ ...common, official }), {
    code: 'ERR_CONFIG',
    message: /nothing for text-classif/,
  })
})

t.test('labels that the model does not know are left out, or fatal', async (t) => {
  const data = join(folder, 'mixed.tsv')
  writeFileSync(data, 'text\tlabel\na good film\tgood\na film\tneutral\n')
  const { examples, skipped } = await evaluate({ ...common, data })
  t.equal(examples, 1)
  t.match(skipped, [{ place: 'line 3', problem: /'neutral' is unknown, expected one of bad, good/ }])
  await t.rejects(evaluate({ ...common, data, strict: true }), {
    code: 'ERR_FORMAT',
    message: /mixed\.tsv:3/,
  })
  writeFileSync(data, 'text\tlabel\na film\tneutral\n')
  await t.rejects(evaluate({ ...common, data }), {
    code: 'ERR_FORMAT',
    message: /none of its 1 rows can be used/,
  })
})

t.test('a model for another task, or for none, is refused', async (t) => {
  await t.rejects(evaluate({ ...common, task: 'token-classification' }), { code: 'ERR_CONFIG' })
  await t.rejects(evaluate({ ...common, task: 'mnli' }), { code: 'ERR_CONFIG' })
  await t.rejects(evaluate({ ...common, model: files.model }), {
    code: 'ERR_CONFIG',
    message: /ElectraForPreTraining, which has no head for a task; fine-tune it first/,
  })
  await t.rejects(evaluate({ ...common, data: join(folder, 'nothing.tsv') }), { code: 'ERR_IO' })
})

t.test('a task of your own, and a signal', async (t) => {
  const kind = changedKind(taskKind('text-classification'), () => ({ metrics: () => ({ accuracy: 0.125 }) }))
  t.same((await evaluate({ ...common, task: kind })).metrics, { accuracy: 0.125 })
  await t.rejects(evaluate({ ...common, signal: AbortSignal.abort() }), { code: 'ERR_ABORTED' })
})

t.test('the task that a configuration names', async (t) => {
  const named = (architecture: string, changes = {}): string =>
    taskNameOf(defineElectraConfig({ architectures: [architecture], ...changes }))
  const cases: [string, object, string][] = [
    ['ElectraForSequenceClassification', {}, 'text-classification'],
    ['ElectraForSequenceClassification', { numLabels: 1 }, 'text-regression'],
    ['ElectraForSequenceClassification', { problemType: 'regression' }, 'text-regression'],
    ['ElectraForSequenceClassification', { extra: { finetuning_task: 'sst-2' } }, 'sst-2'],
    ['ElectraForSequenceClassification', { extra: { finetuning_task: 'something' } }, 'text-classification'],
    ['ElectraForTokenClassification', {}, 'token-classification'],
    ['ElectraForQuestionAnswering', {}, 'question-answering'],
    ['ElectraForJointQuestionAnswering', {}, 'question-answering'],
    ['ElectraForMultipleChoice', {}, 'multiple-choice'],
  ]
  for (const [architecture, changes, task] of cases) t.equal(named(architecture, changes), task)
  t.throws(() => named('ElectraModel'), { code: 'ERR_CONFIG' })
})
