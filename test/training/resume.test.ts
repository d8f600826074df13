/** A run that is stopped and started again is the run that was never stopped, to the bit; and the rules for running again. */
import { cpSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { type PretrainEvent, type PretrainRun, pretrain, VoltaicError } from 'voltaic'
import {
  contentOf,
  corpusText,
  leftovers,
  metricsOf,
  repeatable,
  smallRun,
  snapshot,
  train,
  weightsOf,
} from '../helpers/training.js'

t.setTimeout(230_000)
const folder = t.testdir({ 'corpus.txt': corpusText(), 'other.txt': corpusText(120, 5) })
const corpus = [join(folder, 'corpus.txt')]
let count = 0
const options = (changes: Partial<PretrainRun> = {}): PretrainRun => ({
  ...smallRun,
  corpus,
  output: join(folder, `run-${count++}`),
  ...changes,
})

/** Runs until a step, then aborts; gives the error. */
async function abortAt(options: PretrainRun, step: number): Promise<unknown> {
  const stop = new AbortController()
  try {
    for await (const done of pretrain({ ...options, signal: stop.signal }))
      if (done.step === step) stop.abort()
  } catch (error) {
    return error
  }
  return undefined
}

async function leaveAt(options: PretrainRun, step: number): Promise<void> {
  for await (const done of pretrain(options)) if (done.step === step) break
}

const reference = options()
await train(reference)
const expected = { weights: weightsOf(reference.output), rows: repeatable(metricsOf(reference.output)) }

t.test('an abort saves, throws ERR_ABORTED, and the run goes on bit for bit', async (t) => {
  // Before a row, at a row, at a checkpoint, at a validation, as late as a step can be left out.
  for (const at of [1, 4, 5, 6, 8, 18]) {
    const given = options()
    const error = await abortAt(given, at)
    t.ok(error instanceof VoltaicError && error.code === 'ERR_ABORTED', `at ${at}: ${error}`)
    const saved = Number(/after step (\d+), which is saved/.exec((error as Error).message)?.[1])
    t.ok(saved === at || saved === at + 1, `aborted at ${at}, stopped after ${saved}`)
    t.ok(
      readdirSync(join(given.output, 'checkpoints')).includes(`step-${String(saved).padStart(9, '0')}`),
      `and step ${saved} is there`,
    )
    const { steps } = await train(given)
    t.same(
      steps.map(({ step }) => step),
      Array.from({ length: 20 - saved }, (_, i) => saved + 1 + i),
    )
    t.same(weightsOf(given.output), expected.weights)
    t.same(repeatable(metricsOf(given.output)), expected.rows)
    t.same(leftovers(given.output), [])
  }
})

t.test('so does a consumer that leaves its loop, at any step', async (t) => {
  for (const at of [1, 3, 4, 5, 7, 9, 14, 15, 18, 19, 20]) {
    const given = options()
    await leaveAt(given, at)
    await train(given)
    t.same(weightsOf(given.output), expected.weights, `left at ${at}`)
    t.same(repeatable(metricsOf(given.output)), expected.rows, `left at ${at}`)
  }
  const given = options()
  for (let at = 2; at < 20; at += 3) await leaveAt(given, at)
  await train(given)
  t.same(weightsOf(given.output), expected.weights, 'and again and again')
  t.same(repeatable(metricsOf(given.output)), expected.rows)
})

t.test('a consumer that throws loses nothing either', async (t) => {
  const given = options()
  await t.rejects(async () => {
    for await (const { step } of pretrain(given)) if (step === 13) throw new Error('mine')
  }, /mine/)
  await train(given)
  t.same(weightsOf(given.output), expected.weights)
})

t.test('other precisions, forms and two stages resume bit for bit', async (t) => {
  const forms: Partial<PretrainRun>[] = [
    { precision: 'bf16', threads: 2 },
    { segments: 'pairs', optimizer: 'pytorch', schedule: 'linear' },
    { accumulate: 2 },
    { training: 'two-stage' },
  ]
  for (const form of forms) {
    const whole = options(form)
    await train(whole)
    const parts = options(form)
    // Around the stages' border at 10, too.
    for (const at of [3, 9, 10, 11, 15]) await leaveAt(parts, at)
    await train(parts)
    t.same(weightsOf(parts.output), weightsOf(whole.output), JSON.stringify(form))
    t.same(repeatable(metricsOf(parts.output)), repeatable(metricsOf(whole.output)), JSON.stringify(form))
  }
})

t.test(
  'an abort before the first step, or before there is a vocabulary, leaves a folder to go on in',
  async (t) => {
    const early = options()
    await t.rejects(train({ ...early, signal: AbortSignal.abort() }), { code: 'ERR_ABORTED' })
    await train(early)
    t.same(weightsOf(early.output), expected.weights)
    const planned = options()
    const stop = new AbortController()
    const onEvent = (event: PretrainEvent): void => {
      if (event.kind === 'plan') stop.abort()
    }
    await t.rejects(train({ ...planned, signal: stop.signal, onEvent }), {
      code: 'ERR_ABORTED',
      message: /after step 0/,
    })
    await train(planned)
    t.same(weightsOf(planned.output), expected.weights)
    t.same(repeatable(metricsOf(planned.output)), expected.rows)
  },
)

t.test('a complete run says so and touches nothing', async (t) => {
  const before = snapshot(reference.output)
  const events: PretrainEvent[] = []
  const { steps, result } = await train({ ...reference, onEvent: (event) => events.push(event) })
  t.same(steps, [])
  t.same(snapshot(reference.output), before)
  t.match(events.at(-1), { kind: 'complete', step: 20 })
  t.equal(result.step, 20)
  const row = metricsOf(reference.output).at(-1)
  t.equal(result.validation?.disc_auc, row?.disc_auc, 'its last validation is read from the metrics')
})

t.test('more steps go on, and say that the schedule changed', async (t) => {
  const given = options({ steps: 10 })
  await train(given)
  const events: PretrainEvent[] = []
  const { steps } = await train({ ...given, steps: 20, onEvent: (event) => events.push(event) })
  t.equal(steps[0]?.step, 11)
  t.equal(steps.at(-1)?.step, 20)
  const resumed = events.find((event) => event.kind === 'resumed')
  t.ok(resumed?.notes.includes('steps was 10, is 20'))
  t.ok(resumed?.notes.some((note) => note.includes('learning rate follows the schedule')))
  t.equal(steps[0]?.learningRate, (await train(options())).steps[10]?.learningRate, 'that of a run of 20')
  t.same(
    metricsOf(given.output).map(({ step }) => step),
    [5, 8, 10, 10, 15, 16, 20, 20],
  )
  await t.rejects(train({ ...given, steps: 5 }), { code: 'ERR_CONFIG', message: /20 steps already/ })
})

t.test('another run in the same folder is refused, the difference named, and nothing is lost', async (t) => {
  const before = contentOf(reference.output)
  const vocab = join(folder, 'vocab.txt')
  writeFileSync(
    vocab,
    ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', ...'abcdefghijklmnopqrstuvwxyz', ''].join('\n'),
  )
  const others: [Partial<PretrainRun>, RegExp][] = [
    [{ corpus: [join(folder, 'other.txt')] }, /corpus was [0-9a-f]+, is/],
    [{ vocab }, /vocabulary was 200 tokens.*is 31 tokens/],
    [{ vocabSize: 150 }, /vocabulary was 200 tokens.*is 150 tokens/],
    [{ model: { ...smallRun.model, numHiddenLayers: 2 } }, /layers was 1, is 2/],
    [{ model: { ...smallRun.model, hiddenSize: 64 } }, /hidden size was 32, is 64/],
    [{ model: { ...smallRun.model, hiddenAct: 'relu' } }, /architecture was/],
    [{ seed: 2 }, /seed was 1, is 2/],
    [{ segments: 'pairs' }, /segments was packed, is pairs/],
    [{ batchSize: 4 }, /batch size was 8, is 4/],
    [{ training: 'two-stage' }, /training was joint, is two-stage/],
    [{ validationFraction: 0.1 }, /corpus was/],
    [{ maskProbability: 0.2 }, /mask probability was 0.15, is 0.2/],
  ]
  for (const [change, message] of others) {
    const error = await train({ ...reference, ...change }).catch((error) => error)
    t.match(error, { code: 'ERR_CONFIG', message }, JSON.stringify(change))
    t.match(error.message, /--fresh/)
  }
  const after = contentOf(reference.output)
  for (const [path, content] of Object.entries(before)) t.equal(after[path], content, path)
  const { steps } = await train(reference)
  t.same(steps, [], 'the run that was there is still complete')
})

t.test('a run in another precision is refused', async (t) => {
  const given = options()
  await leaveAt(given, 8)
  await t.rejects(train({ ...given, precision: 'bf16' }), {
    code: 'ERR_CONFIG',
    message: /run in fp32, bf16 was asked for/,
  })
  await train({ ...given, precision: 'fp32' })
  t.same(weightsOf(given.output), expected.weights)
})

t.test('fresh starts over, but not before the new run can begin', async (t) => {
  const given = options()
  cpSync(reference.output, given.output, { recursive: true, preserveTimestamps: true })
  const before = contentOf(given.output)
  await t.rejects(train({ ...given, fresh: true, vocab: join(folder, 'missing.txt') }), { code: 'ERR_IO' })
  await t.rejects(train({ ...given, fresh: true, sequenceLength: 100 }), { code: 'ERR_CONFIG' })
  t.same(contentOf(given.output), before, 'a slip in the new command costs nothing')
  const { steps } = await train({ ...given, fresh: true, seed: 7 })
  t.equal(steps[0]?.step, 1)
  t.not(weightsOf(given.output).discriminator, expected.weights.discriminator)
  t.equal(metricsOf(given.output).length, expected.rows.length)
})

t.test('record and checkpoints belong together', async (t) => {
  const given = options()
  cpSync(reference.output, given.output, { recursive: true, preserveTimestamps: true })
  const record = join(given.output, 'run.json')
  rmSync(join(given.output, 'checkpoints'), { recursive: true })
  await t.rejects(train({ ...given, steps: 30 }), { code: 'ERR_FORMAT', message: /no checkpoint/ })
  t.same(weightsOf(given.output), expected.weights, 'the finished models are still there')
  cpSync(join(reference.output, 'checkpoints'), join(given.output, 'checkpoints'), { recursive: true })
  rmSync(record)
  await t.rejects(train(given), { code: 'ERR_FORMAT', message: /no run\.json/ })
})

t.test('a corpus that was only touched, or moved, is the same corpus', async (t) => {
  const given = options()
  await leaveAt(given, 7)
  const moved = join(folder, 'moved.txt')
  writeFileSync(moved, corpusText())
  await train({ ...given, corpus: [moved] })
  t.same(weightsOf(given.output), expected.weights)
})
