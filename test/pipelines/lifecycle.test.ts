/** Opening, sharing and ending a pipeline. */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  ElectraForJointQuestionAnswering,
  ElectraForMaskedLM,
  ElectraForMultipleChoice,
  ElectraForPreTraining,
  ElectraForQuestionAnswering,
  ElectraForSequenceClassification,
  ElectraForTokenClassification,
  ElectraModel,
  type ElectraPreTrainedModel,
  type InfilledText,
  type ModelClass,
  memoryStats,
  pipeline,
  pipelineTaskOf,
  resolveDevice,
  setThreads,
  type TextClassificationPipeline,
  threads,
} from 'voltaic'
import { startHub } from '../helpers/formats/hub-server.js'
import { folderOf, labels, saveModel, textOf, tokenizer, vocabulary } from './models.js'

const cpu = resolveDevice('cpu')
const classes: readonly [ModelClass<ElectraPreTrainedModel>, task: string][] = [
  [ElectraForSequenceClassification, 'text-classification'],
  [ElectraForTokenClassification, 'token-classification'],
  [ElectraForQuestionAnswering, 'question-answering'],
  [ElectraForJointQuestionAnswering, 'question-answering'],
  [ElectraForMaskedLM, 'fill-mask'],
  [ElectraForPreTraining, 'replaced-token-detection'],
  [ElectraForMultipleChoice, 'text-ranking'],
  [ElectraModel, 'feature-extraction'],
]

t.test('the task follows from the folder where none is given', async (t) => {
  for (const [Class, task] of classes) {
    const folder = await saveModel(t, Class)
    t.equal(await pipelineTaskOf(folder), task)
    await using opened = await pipeline(folder, { device: 'cpu' })
    t.equal(opened.task, task)
    t.ok(opened.model instanceof Class)
    t.same(opened.tokenizer.vocabulary, vocabulary)
  }
})

t.test('64 calls at once give what 64 calls one by one give, of any lengths, in a few passes', async (t) => {
  const folder = await saveModel(t, ElectraForSequenceClassification, labels('a', 'b', 'c'))
  const texts = Array.from({ length: 64 }, (_, i) => textOf(1 + ((i * 11) % 60), i))
  for (const batchTokens of [undefined, 50]) {
    await using classify = await pipeline('text-classification', folder, { device: 'cpu', batchTokens })
    const single: object[] = []
    for (const text of texts) single.push(await classify(text, { top_k: null }))
    let passes = 0
    const { forward } = classify.model as ElectraForSequenceClassification
    Object.assign(classify.model, {
      forward(this: ElectraForSequenceClassification, ...given: Parameters<typeof forward>) {
        passes++
        return forward.apply(this, given)
      },
    })
    const together = await Promise.all(texts.map((text) => classify(text, { top_k: null })))
    t.same(together, single, 'to the last bit')
    if (batchTokens === undefined) t.equal(passes, 1)
    else t.ok(passes > 20, 'a small budget makes many passes')
  }
})

t.test(
  'the event loop turns while a long list is worked on, and other calls are served meanwhile',
  async (t) => {
    const folder = await saveModel(t, ElectraForSequenceClassification)
    await using classify = await pipeline('text-classification', folder, { device: 'cpu', batchTokens: 512 })
    let turns = 0
    let isDone = false
    const count = (): void => {
      turns++
      if (!isDone) setImmediate(count)
    }
    setImmediate(count)
    const many = classify(Array.from({ length: 1500 }, (_, i) => textOf(6, i))).then((results) => {
      isDone = true
      return results
    })
    t.equal((await classify('the red boat')).length, 1)
    t.notOk(isDone, 'a short call does not wait for a long one')
    t.equal((await many).length, 1500)
    t.ok(turns > 20, `${turns} turns`)
  },
)

t.test('dispose waits for what runs, frees everything, and later calls are refused', async (t) => {
  const before = memoryStats(cpu).tensors
  const classifiers = classes.map(([, task]) => task)
  for (const [at, [Class]] of classes.entries()) {
    const folder = await saveModel(t, Class)
    const opened = (await pipeline(folder, { device: 'cpu' })) as TextClassificationPipeline
    const given: unknown[] = {
      'question-answering': ['what', 'a boat'],
      'text-ranking': ['what', ['a boat']],
    }[classifiers[at] as string] ?? ['a [MASK] boat']
    const call = opened as unknown as (...given: unknown[]) => Promise<unknown>
    const running = call(...given)
    const ended = opened.dispose()
    t.ok(await running, 'a call that runs is answered')
    await ended
    await opened.dispose()
    await t.rejects(call(...given), { code: 'ERR_DISPOSED', message: /was disposed; open a new one/ })
  }
  t.equal(memoryStats(cpu).tensors, before, 'no tensor is left')
})

t.test('calls leave no tensors', async (t) => {
  const folder = await saveModel(t, ElectraForMaskedLM)
  await using infill = await pipeline('text-infilling', folder, { device: 'cpu' })
  // Weights' copies for products are made with the second use.
  await infill('a [MASK] boat', { rounds: 2 })
  const before = memoryStats(cpu).tensors
  const results: InfilledText[][] = await infill(['a [MASK] boat', 'the [MASK] [MASK]'], { rounds: 2 })
  t.equal(results.length, 2)
  await t.rejects(infill('a boat'))
  t.equal(memoryStats(cpu).tensors, before)
})

t.test('what cannot be opened says why, and leaves nothing behind', async (t) => {
  const before = memoryStats(cpu).tensors
  const folder = await saveModel(t, ElectraForPreTraining)
  const open = (task: string, ...more: object[]): Promise<unknown> =>
    pipeline(task as 'fill-mask', folder, { device: 'cpu', ...more[0] })
  await t.rejects(open('translation'), {
    code: 'ERR_ARGUMENT',
    message: /no task 'translation'; expected one of text-classification/,
  })
  await t.rejects(open('constructor'), { code: 'ERR_ARGUMENT' })
  for (const [task, message] of [
    [
      'text-classification',
      /holds ElectraForPreTraining, expected ElectraForSequenceClassification; fine-tune/,
    ],
    ['fill-mask', /expected ElectraForMaskedLM; give the folder of a generator/],
    ['text-infilling', /expected ElectraForMaskedLM/],
  ] as const)
    await t.rejects(open(task), { code: 'ERR_CONFIG', message })
  await t.rejects(open('feature-extraction', { batchTokens: 0 }), { code: 'ERR_ARGUMENT' })
  await t.rejects(open('feature-extraction', { precision: 'fp8' }), { code: 'ERR_ARGUMENT' })
  await t.rejects(open('feature-extraction', { dtype: 'fp32' }), {
    code: 'ERR_ARGUMENT',
    message: /no option 'dtype'; the options are device, precision/,
  })
  await t.rejects(pipeline(join(folder, 'nowhere')), { code: 'ERR_IO' })

  const config = join(folder, 'config.json')
  const text = readFileSync(config, 'utf8')
  writeFileSync(config, text.replace('ElectraForPreTraining', 'SomethingElse'))
  await t.rejects(pipeline(folder), { code: 'ERR_CONFIG', message: /SomethingElse; expected one of/ })
  writeFileSync(config, text.replace('"ElectraForPreTraining"', ''))
  await t.rejects(pipeline(folder), { code: 'ERR_CONFIG', message: /says no architecture; expected one of/ })
  await t.rejects(open('fill-mask'), { code: 'ERR_FORMAT', message: /the weights lack generator/ })
  await using detect = await pipeline('replaced-token-detection', folder, { device: 'cpu' })
  t.equal((await detect('the boat')).length, 2, 'with a task, its own class is tried')
  await detect.dispose()
  writeFileSync(config, text.replace('ElectraForPreTraining', 'ElectraForTokenClassification'))
  await t.rejects(pipeline(folder, { device: 'cpu' }), {
    code: 'ERR_FORMAT',
    message: /the weights lack classifier.*not trained yet/,
  })
  writeFileSync(config, text)
  const vocabularyFile = join(folder, 'vocab.txt')
  rmSync(join(folder, 'tokenizer.json'))
  writeFileSync(vocabularyFile, `${readFileSync(vocabularyFile, 'utf8')}extra\n`)
  await t.rejects(pipeline(folder, { device: 'cpu' }), {
    code: 'ERR_CONFIG',
    message: new RegExp(
      `the tokenizer has ${vocabulary.length + 1} tokens and the model ${vocabulary.length}`,
    ),
  })
  t.equal(memoryStats(cpu).tensors, before)
  t.equal(tokenizer.vocabularySize, vocabulary.length)
})

t.test('a model by its name on the hub', async (t) => {
  const folder = await saveModel(t, ElectraForPreTraining)
  const hub = await startHub()
  const endpoint = process.env.HF_ENDPOINT
  process.env.HF_ENDPOINT = hub.endpoint
  t.teardown(() => {
    if (endpoint === undefined) delete process.env.HF_ENDPOINT
    else process.env.HF_ENDPOINT = endpoint
    return hub.close()
  })
  for (const name of readdirSync(folder))
    hub.files.set(`someone/detector/${name}`, { content: readFileSync(join(folder, name)) })
  const cacheDir = join(folderOf(t), 'cache')
  await using named = await pipeline('someone/detector', { device: 'cpu', cacheDir })
  await using local = await pipeline('replaced-token-detection', folder, { device: 'cpu' })
  t.equal(named.task, 'replaced-token-detection')
  t.same(await (named as typeof local)('the red boat'), await local('the red boat'))
  await t.rejects(pipeline('ner', 'someone/other', { cacheDir, localFilesOnly: true }), { code: 'ERR_IO' })
})

t.test('threads are set, and change nothing', async (t) => {
  const folder = await saveModel(t, ElectraForPreTraining)
  const before = threads()
  await using one = await pipeline('replaced-token-detection', folder, { device: 'cpu', threads: 1 })
  t.equal(threads(), 1)
  const alone = await one('the red boat')
  setThreads(2)
  t.same(await one('the red boat'), alone)
  setThreads(before)
})
