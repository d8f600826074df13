/** A fine-tuning run that is stopped and started again is the run that was never stopped, to the bit. */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { type FinetuneEvent, type FinetuneRun, finetune, taskKind, VoltaicError } from 'voltaic'
import { changedKind, leftBy, smallFiles, smallRun, tune } from '../helpers/finetuning.js'
import { contentOf, leftovers, snapshot } from '../helpers/training.js'

t.setTimeout(300_000)
const folder = t.testdir()
const files = await smallFiles(folder)
let count = 0
const options = (changes: Partial<FinetuneRun> = {}): FinetuneRun => ({
  ...smallRun,
  epochs: 2,
  saveEvery: 10,
  ...files,
  output: join(folder, `run-${count++}`),
  ...changes,
})

async function abortAt(options: FinetuneRun, step: number): Promise<unknown> {
  const stop = new AbortController()
  try {
    for await (const done of finetune({ ...options, signal: stop.signal }))
      if (done.step === step) stop.abort()
  } catch (error) {
    return error
  }
  return undefined
}

async function leaveAt(options: FinetuneRun, step: number): Promise<void> {
  for await (const done of finetune(options)) if (done.step === step) break
}

const reference = options()
await tune(reference)
const expected = leftBy(reference.output)

t.test('an abort saves, throws ERR_ABORTED, and the run goes on bit for bit', async (t) => {
  // Before a row, at a row, at a checkpoint, at an evaluation, as late as a step can be left out.
  for (const at of [1, 5, 10, 13, 24]) {
    const given = options()
    const error = await abortAt(given, at)
    t.ok(error instanceof VoltaicError && error.code === 'ERR_ABORTED', `at ${at}: ${error}`)
    const saved = Number(/after step (\d+), which is saved/.exec((error as Error).message)?.[1])
    t.ok(saved === at || saved === at + 1, `aborted at ${at}, stopped after ${saved}`)
    t.notOk(existsSync(join(given.output, 'model.safetensors')))
    const { steps } = await tune(given)
    t.equal(steps[0]?.step, saved + 1)
    t.same(leftBy(given.output), expected)
    t.same(leftovers(given.output), [])
  }
})

t.test('so does a consumer that leaves its loop, again and again', async (t) => {
  const given = options()
  for (const at of [2, 12, 13, 26]) await leaveAt(given, at)
  await tune(given)
  t.same(leftBy(given.output), expected)
})

t.test('an abort in the middle of an evaluation, or of the last predictions, loses neither', async (t) => {
  for (const evaluation of [1, 2, 3]) {
    const stop = new AbortController()
    let seen = 0
    let last: unknown
    // One batch of outputs an evaluation: the abort comes while it is under way.
    const kind = changedKind(taskKind('text-classification'), (task) => ({
      outputs: (model, batch) => {
        if (++seen === evaluation) stop.abort()
        last = batch.length
        return task.outputs(model, batch)
      },
    }))
    const given = options()
    await t.rejects(
      tune({ ...given, task: kind, signal: stop.signal }),
      { code: 'ERR_ABORTED' },
      `${evaluation}`,
    )
    t.equal(last, 60, 'the evaluation was under way')
    t.notOk(existsSync(join(given.output, 'metrics.json')))
    await tune(given)
    t.same(leftBy(given.output), expected, `interrupted in evaluation ${evaluation}`)
  }
})

t.test('two threads give the bits of one; bf16 resumes bit for bit, too', async (t) => {
  const given = options({ threads: 2 })
  await tune(given)
  t.same(leftBy(given.output), expected)
  const whole = options({ precision: 'bf16' })
  await tune(whole)
  const parts = options({ precision: 'bf16', threads: 2 })
  await leaveAt(parts, 17)
  await t.rejects(tune({ ...parts, precision: 'fp32' }), { code: 'ERR_CONFIG', message: /run in bf16/ })
  await tune(parts)
  t.same(leftBy(parts.output), leftBy(whole.output))
  t.notSame(leftBy(whole.output), expected, 'and differs from fp32')
})

t.test('another form of optimizer and schedule resumes bit for bit', async (t) => {
  const form = { optimizer: 'pytorch', schedule: 'linear', weightDecay: 0.01, patience: 1 } as const
  const whole = options(form)
  await tune(whole)
  const parts = options(form)
  for (const at of [3, 13]) await leaveAt(parts, at)
  await tune(parts)
  t.same(leftBy(parts.output), leftBy(whole.output))
})

t.test('several seeds go on in the one that was interrupted', async (t) => {
  const whole = options({ seeds: 2, epochs: 1 })
  await tune(whole)
  const parts = options({ seeds: 2, epochs: 1 })
  await abortAt(parts, 4)
  let steps = 0
  for await (const { seed } of finetune(parts)) if (seed === 2 && ++steps === 4) break
  const rest = await tune(parts)
  t.same([...new Set(rest.steps.map(({ seed }) => seed))], [2], 'the first seed is finished')
  for (const name of ['seed-1', 'seed-2'])
    t.same(leftBy(join(parts.output, name)), leftBy(join(whole.output, name)), name)
  for (const name of ['model.safetensors', 'metrics.json'])
    t.ok(readFileSync(join(parts.output, name)).equals(readFileSync(join(whole.output, name))), name)
})

t.test('a finished run says so and touches nothing', async (t) => {
  const before = snapshot(reference.output)
  const events: FinetuneEvent[] = []
  const { steps, result } = await tune({ ...reference, onEvent: (event) => events.push(event) })
  t.same(steps, [])
  t.same(snapshot(reference.output), before)
  t.match(events.at(-1), { kind: 'complete' })
  const { output: _, report: __, ...metrics } = result
  t.same(metrics, JSON.parse(readFileSync(join(reference.output, 'metrics.json'), 'utf8')))
  t.match(result.report, /good/)
})

t.test('another run in the same folder is refused, the difference named, and nothing is lost', async (t) => {
  const before = contentOf(reference.output)
  const other = join(folder, 'other.tsv')
  writeFileSync(other, `${readFileSync(files.train, 'utf8')}the film was good\tgood\n`)
  const second = options({ epochs: 0.1 })
  await tune(second)
  const others: [Partial<FinetuneRun>, RegExp][] = [
    [{ train: other }, /training file was [0-9a-f]{12}, is/],
    [{ validation: other }, /validation file was/],
    [{ validation: undefined }, /validation file was .* is 0\.1 of the training file/],
    [{ model: second.output }, /model was weights [0-9a-f]{8}, is weights/],
    [
      { task: 'text-regression', train: numbered(), validation: undefined },
      /task was text-classification, is text-regression/,
    ],
    [{ seed: 2 }, /seed was 1, is 2/],
    [{ seeds: 2 }, /first of several seeds was undefined, is 1/],
    [{ epochs: 5 }, /epochs was 2, is 5/],
    [{ batchSize: 8 }, /batch size was 16, is 8/],
    [{ learningRate: 1e-3 }, /learning rate was 0\.005, is 0\.001/],
    [{ maxLength: 16 }, /sequence length was 32, is 16/],
    [{ labels: 'single' }, /task options was/],
  ]
  for (const [change, message] of others) {
    const error = await tune({ ...reference, ...change }).catch((error) => error)
    t.match(error, { code: 'ERR_CONFIG', message }, JSON.stringify(change))
    t.match(error.message, /--fresh/)
  }
  t.same(contentOf(reference.output), before)
})

/** A training file of numbers. */
function numbered(): string {
  const file = join(folder, 'numbers.tsv')
  writeFileSync(file, 'text\tlabel\nthe film\t1\na story\t2\nold music\t3\n')
  return file
}

t.test('fresh starts over, but not before the new run can begin', async (t) => {
  const given = options({ epochs: 1, seeds: 2 })
  await tune(given)
  const before = contentOf(given.output)
  await t.rejects(tune({ ...given, fresh: true, train: join(folder, 'missing.tsv') }), { code: 'ERR_IO' })
  await t.rejects(tune({ ...given, fresh: true, maxLength: 100 }), { code: 'ERR_CONFIG' })
  t.same(contentOf(given.output), before, 'a slip in the new command costs nothing')
  await tune({ ...reference, output: given.output, fresh: true })
  t.same(leftBy(given.output), expected)
  t.notOk(readdirSync(given.output).some((name) => name.startsWith('seed-')))
})

t.test('a run with its record, model or checkpoint gone', async (t) => {
  const given = options()
  await tune(given)
  rmSync(join(given.output, 'model.safetensors'))
  await t.rejects(tune(given), { code: 'ERR_FORMAT', message: /no checkpoint to go on from.*--fresh/ })
  const stopped = options()
  await leaveAt(stopped, 4)
  rmSync(join(stopped.output, 'run.json'))
  await t.rejects(tune(stopped), { code: 'ERR_FORMAT', message: /no run\.json/ })
})
