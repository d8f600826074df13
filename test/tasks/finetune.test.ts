/** Fine-tuning: it learns, keeps the best model, stops when there is none better, and says what is wrong with its input. */
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  ElectraForSequenceClassification,
  type FinetuneEvent,
  type FinetuneRun,
  loadTokenizer,
  type Outputs,
  taskKind,
} from 'voltaic'
import { changedKind, smallFiles, smallRun, tune } from '../helpers/finetuning.js'

t.setTimeout(300_000)
const folder = t.testdir()
const files = await smallFiles(folder)
let count = 0
const options = (changes: Partial<FinetuneRun> = {}): FinetuneRun => ({
  ...smallRun,
  ...files,
  output: join(folder, `run-${count++}`),
  ...changes,
})
const readJson = (...path: string[]) => JSON.parse(readFileSync(join(...path), 'utf8'))

t.test('a task that one word decides is learned to 100 %, and its folder is an ordinary model', async (t) => {
  const events: FinetuneEvent[] = []
  const given = options({ onEvent: (event) => events.push(event) })
  const { steps, result } = await tune(given)
  t.equal(result.validation.accuracy, 1)
  t.equal(result.train.accuracy, 1)
  t.match(steps.at(-1), { step: 52, steps: 52, epoch: 4, sequences: 800, validation: { accuracy: 1 } })
  const { output, report, ...metrics } = result
  t.same(readJson(output, 'metrics.json'), metrics)
  t.match(metrics, { task: 'text-classification', metric: 'accuracy' })
  t.match(report, /good/)
  t.equal(readFileSync(join(output, 'report.txt'), 'utf8').trim(), report.trim())

  const config = readJson(output, 'config.json')
  t.match(config, {
    architectures: ['ElectraForSequenceClassification'],
    id2label: { 0: 'bad', 1: 'good' },
    finetuning_task: 'text-classification',
  })
  const model = await ElectraForSequenceClassification.fromPretrained(output)
  const tokenizer = await loadTokenizer(output)
  const logits = (await model
    .forward(tokenizer(['the awful film', 'a lovely story']))
    .logits.data()) as Float32Array
  const [first, second] = [Array.from(logits.subarray(0, 2)), Array.from(logits.subarray(2))] as [
    number[],
    number[],
  ]
  t.ok((first[0] as number) > (first[1] as number), 'awful is bad')
  t.ok((second[1] as number) > (second[0] as number), 'lovely is good')
  model.dispose()

  const predictions = readFileSync(join(output, 'predictions.jsonl'), 'utf8').trimEnd().split('\n')
  t.equal(predictions.length, 60)
  t.notOk(existsSync(join(output, 'checkpoints')), 'checkpoints of a finished run are gone')
  t.match(events[0], { kind: 'data', labels: ['bad', 'good'], train: { examples: 200, skipped: [] } })
  t.match(events.at(-1), { kind: 'finished', metrics })
})

t.test('without a validation file a part of the training file serves, the same for every seed', async (t) => {
  const events: FinetuneEvent[] = []
  const given = options({ validation: undefined, validationFraction: 0.2, onEvent: (e) => events.push(e) })
  const { result } = await tune(given)
  t.match(
    events.find(({ kind }) => kind === 'plan'),
    { sequences: 160, validationExamples: 40 },
  )
  t.equal(result.validation.accuracy, 1)
  const texts = (output: string): string[] =>
    readFileSync(join(output, 'predictions.jsonl'), 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line).text)
  const several = options({ validation: undefined, validationFraction: 0.2, seeds: 2, epochs: 1 })
  await tune(several)
  for (const seed of [1, 2]) t.same(texts(join(several.output, `seed-${seed}`)), texts(given.output))
})

t.test('random weights of a size, with a vocabulary', async (t) => {
  const { model, ...rest } = options({ epochs: 0.5, test: files.validation })
  const { result, steps } = await tune({ ...rest, fromScratch: 'tiny', vocab: model })
  t.equal(steps.at(-1)?.step, 7, 'half an epoch, rounded')
  t.equal(readJson(result.output, 'config.json').num_hidden_layers, 4)
  t.same(result.test, result.validation, 'the test file is the validation file here')
  t.ok(existsSync(join(result.output, 'test-predictions.jsonl')))
})

t.test('random weights like another model, with a dropout of their own', async (t) => {
  const { model, ...rest } = options({ epochs: 0.1, dropout: 0.25 })
  const { result } = await tune({ ...rest, fromScratch: model })
  const [found, given] = [result.output, model as string].map((folder) => readJson(folder, 'config.json'))
  t.equal(found.hidden_size, given.hidden_size)
  t.equal(found.vocab_size, given.vocab_size, 'its vocabulary serves, where no other is named')
  t.same(found.architectures, ['ElectraForSequenceClassification'])
  t.same([found.hidden_dropout_prob, found.attention_probs_dropout_prob], [0.25, 0.25])
  const { result: again } = await tune({
    ...rest,
    fromScratch: result.output,
    output: `${rest.output}-again`,
  })
  t.same(again.validation, result.validation, 'the same weights like a model that had a task')
})

t.test('another head in the folder gives way to the new one', async (t) => {
  const given = options({ epochs: 0.1 })
  await tune(given)
  const three = join(folder, 'three.tsv')
  writeFileSync(three, 'text\tlabel\nthe film\tx\na story\ty\nold music\tz\n')
  const again = options({ model: given.output, train: three, validation: three, epochs: 1 })
  await tune(again)
  t.same(readJson(again.output, 'config.json').id2label, { 0: 'x', 1: 'y', 2: 'z' })
})

/** A classification whose metric is written down before, evaluation by evaluation; keeps the outputs it was asked to decode. */
function scripted(values: readonly number[]) {
  const seen: (readonly Outputs[])[] = []
  const kind = changedKind(taskKind('text-classification'), (task) => ({
    metrics: () => ({ accuracy: values[Math.min(seen.length, values.length) - 1] as number }),
    decode: (examples, features, outputs) => {
      seen.push(outputs)
      return task.decode(examples, features, outputs)
    },
  }))
  return { kind, seen }
}

t.test(
  'the model of the best evaluation is kept; not a number is worse than any; the first of equals',
  async (t) => {
    const cases: [readonly number[], number][] = [
      [[0.5, 0.9, 0.7, 0.8], 2],
      [[Number.NaN, 0.1, Number.NaN, 0.05], 2],
      [[0.6, 0.6, 0.6, 0.6], 1],
      [[Number.NaN, Number.NaN, Number.NaN, Number.NaN], 1],
      [[0.1, 0.2, 0.3, 0.4], 4],
    ]
    for (const [values, best] of cases) {
      const { kind, seen } = scripted(values)
      const { result } = await tune(options({ task: kind }))
      t.same(result.best, { epoch: best, step: 13 * best }, `${values}`)
      // In fp32 a row's result does not depend on its batch: the same weights give the same outputs.
      t.same(seen[4], seen[best - 1], `the folder's predictions are those of evaluation ${best}`)
      const others = [0, 1, 2, 3].filter((at) => at !== best - 1)
      for (const at of others) t.notSame(seen[4], seen[at])
    }
  },
)

t.test('patience ends a run that gets no better', async (t) => {
  const { kind } = scripted([0.5, 0.9, 0.7, 0.8, 0.9, 0.9])
  const { steps, result } = await tune(options({ task: kind, epochs: 6, patience: 2 }))
  t.equal(steps.at(-1)?.step, 52, 'two evaluations after the second')
  t.equal(result.best.epoch, 2)
})

t.test('several seeds: a folder each, the median and the spread, the best model on top', async (t) => {
  const values = [0.5, 0.9, 0.8]
  let run = 0
  const kind = changedKind(taskKind('text-classification'), () => ({
    metrics: () => ({ accuracy: values[Math.floor(run++ / 3)] as number, other: run }),
  }))
  const given = options({ task: kind, epochs: 1, seed: 4, seeds: 3 })
  const { result, steps } = await tune(given)
  t.match(result.runs, {
    seeds: [4, 5, 6],
    best: 5,
    values: { accuracy: values },
    median: { accuracy: 0.8 },
    least: { accuracy: 0.5 },
    most: { accuracy: 0.9 },
  })
  t.same(readJson(given.output, 'metrics.json').runs, result.runs)
  for (const name of ['model.safetensors', 'config.json', 'predictions.jsonl', 'vocab.txt'])
    t.ok(
      readFileSync(join(given.output, name)).equals(readFileSync(join(given.output, 'seed-5', name))),
      `${name} is the best run's`,
    )
  t.notOk(
    readFileSync(join(given.output, 'seed-4', 'model.safetensors')).equals(
      readFileSync(join(given.output, 'seed-5', 'model.safetensors')),
    ),
  )
  t.same([...new Set(steps.map(({ seed }) => seed))], [4, 5, 6])
  const more = await tune({ ...given, task: 'text-classification', seeds: 4 })
  t.same(
    [...new Set(more.steps.map(({ seed }) => seed))],
    [7],
    'a fourth seed is added; the three are not run again',
  )
})

t.test('what is wrong with options, files and folders is said before anything is trained', async (t) => {
  const write = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text)
    return join(folder, name)
  }
  const broken = join(folder, 'a-file')
  writeFileSync(broken, '')
  const foreign = join(folder, 'foreign')
  mkdirSync(foreign)
  writeFileSync(join(foreign, 'config.json'), '{}')
  const cases: [Partial<FinetuneRun>, string, RegExp][] = [
    [{ train: join(folder, 'missing.tsv') }, 'ERR_IO', /missing\.tsv/],
    [{ train: write('empty.tsv', '') }, 'ERR_FORMAT', /empty\.tsv/],
    [{ train: write('rows.tsv', 'text\tlabel\n') }, 'ERR_FORMAT', /rows\.tsv: holds no rows/],
    [
      { train: write('columns.tsv', 'words\tclass\na\tb\n') },
      'ERR_CONFIG',
      /no column of texts.*words, class/,
    ],
    [
      { train: write('one.tsv', 'text\tlabel\na\tx\n'), validation: undefined },
      'ERR_CONFIG',
      /one label|one example/,
    ],
    [
      { validation: write('others.tsv', 'text\tlabel\nthe film\tneutral\n') },
      'ERR_FORMAT',
      /'neutral' is unknown.*bad, good/,
    ],
    [{ strict: true, train: write('bad.tsv', 'text\tlabel\na\tgood\nb\n') }, 'ERR_FORMAT', /bad\.tsv:3: /],
    [{ model: join(folder, 'nowhere') }, 'ERR_IO', /nowhere/],
    [{ output: broken }, 'ERR_IO', /a-file/],
    [{ output: join(broken, 'below') }, 'ERR_IO', /a-file/],
    [{ output: files.model }, 'ERR_CONFIG', /the model to start from/],
    [{ output: foreign }, 'ERR_CONFIG', /would be overwritten/],
    [{ output: foreign, fresh: true }, 'ERR_CONFIG', /would be overwritten/],
    [{ task: 'translation' }, 'ERR_CONFIG', /no task 'translation'; expected one of text-classification/],
    [{ maxLength: 65 }, 'ERR_CONFIG', /maxLength is 65, expected at most the model's 64 positions/],
    [{ steps: 3 }, 'ERR_CONFIG', /steps is 3, expected nothing beside epochs/],
    [{ fromScratch: 'tiny' }, 'ERR_CONFIG', /fromScratch is "tiny", expected nothing beside a model/],
    [{ fromScratch: 'tiny', model: undefined }, 'ERR_CONFIG', /vocab is undefined/],
    [
      { fromScratch: 'huge', model: undefined },
      'ERR_CONFIG',
      /fromScratch is "huge", expected tiny, small, base, large, a model folder/,
    ],
    [{ dropout: 1 }, 'ERR_CONFIG', /dropout is 1/],
    [{ model: undefined }, 'ERR_CONFIG', /model is undefined, expected a model folder/],
    [{ batchSize: 0 }, 'ERR_CONFIG', /batchSize is 0/],
    [{ seeds: 0 }, 'ERR_CONFIG', /seeds is 0/],
    [{ layerwiseDecay: 0 }, 'ERR_CONFIG', /layerwiseDecay is 0/],
    [{ validationFraction: 1, validation: undefined }, 'ERR_CONFIG', /validationFraction is 1/],
    [{ device: 'cuda:99' }, 'ERR_DEVICE', /cuda/],
  ]
  for (const [change, code, message] of cases) {
    const given = options(change)
    await t.rejects(tune(given), { code, message }, JSON.stringify({ ...change, message: String(message) }))
    if (change.output === undefined) t.notOk(existsSync(given.output), 'no folder is made')
  }
  t.equal(readFileSync(join(foreign, 'config.json'), 'utf8'), '{}')
})

t.test('an output folder that cannot be written', { skip: process.getuid?.() === 0 }, async (t) => {
  const locked = join(folder, 'locked')
  mkdirSync(locked)
  chmodSync(locked, 0o500)
  t.teardown(() => chmodSync(locked, 0o700))
  await t.rejects(tune(options({ output: join(locked, 'run') })), { code: 'ERR_IO', message: /locked/ })
})

t.test('skipped rows are reported, with their lines', async (t) => {
  const train = join(folder, 'skips.tsv')
  const rows = readFileSync(files.train, 'utf8').split('\n')
  rows.splice(3, 0, 'no label here')
  writeFileSync(train, rows.join('\n'))
  const events: FinetuneEvent[] = []
  await tune(options({ train, epochs: 0.1, onEvent: (event) => events.push(event) }))
  t.match(events[0], { kind: 'data', train: { examples: 200, skipped: [{ place: 'line 4' }] } })
})

t.test('a loss that is not finite stops the run', async (t) => {
  const given = options({ learningRate: 1, schedule: 'linear', maxGradientNorm: 0, layerwiseDecay: 1 })
  const kind = changedKind(taskKind('text-classification'), (task) => ({
    loss: (model, batch) => task.loss(model, batch).mul(Number.MAX_VALUE),
  }))
  await t.rejects(tune({ ...given, task: kind }), {
    code: 'ERR_NOT_FINITE',
    message: /^step 1: the loss is Infinity.*no checkpoint yet; try a lower --learning-rate/,
  })
  t.notOk(existsSync(join(given.output, 'model.safetensors')))
})
