import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  ElectraForMaskedLM,
  ElectraForPreTraining,
  type PretrainEvent,
  type PretrainRun,
  pretrain,
  readSafetensors,
} from 'voltaic'
import { maskedCrc32c } from '../../dist/formats/crc32c.js'
import { corpusText, eventFileOf, metricsOf, smallRun, train, weightsOf } from '../helpers/training.js'

t.setTimeout(230_000)
const folder = t.testdir({ 'corpus.txt': corpusText(), 'other.txt': corpusText(12, 9) })
const corpus = [join(folder, 'corpus.txt')]
let count = 0
const options = (changes: Partial<PretrainRun> = {}): PretrainRun => ({
  ...smallRun,
  corpus,
  output: join(folder, `run-${count++}`),
  ...changes,
})

const trainColumns = [
  'step',
  'loss',
  'generator_loss',
  'discriminator_loss',
  'masked_lm_accuracy',
  'disc_accuracy',
  'disc_auc',
  'disc_precision',
  'disc_recall',
  'learning_rate',
  'gradient_norm',
  'tokens',
  'tokens_per_second',
]

/** [step, tags] of each event of a TensorBoard file, every record's checksums verified. */
function eventsOf(path: string): { step: number; tags: string[] }[] {
  const file = readFileSync(path)
  const events: { step: number; tags: string[] }[] = []
  const varint = (bytes: Buffer, at: number): [value: number, next: number] => {
    let value = 0
    for (let shift = 1; ; shift *= 128) {
      const byte = bytes[at++] as number
      value += (byte & 0x7f) * shift
      if (byte < 0x80) return [value, at]
    }
  }
  for (let at = 0; at < file.length; ) {
    const length = Number(file.readBigUInt64LE(at))
    t.equal(file.readUInt32LE(at + 8), maskedCrc32c(file.subarray(at, at + 8)))
    const message = file.subarray(at + 12, at + 12 + length)
    t.equal(file.readUInt32LE(at + 12 + length), maskedCrc32c(message))
    at += 16 + length
    // Behind the wall time (9 bytes): the file version, or the step and the summary.
    if (message[9] !== 0x10) continue
    const [step, next] = varint(message, 10)
    let [, place] = varint(message, next + 1)
    const tags: string[] = []
    while (place < message.length) {
      const [size, begin] = varint(message, place + 1)
      const [tagLength, tagBegin] = varint(message, begin + 1)
      tags.push(message.toString('utf8', tagBegin, tagBegin + tagLength))
      place = begin + size
    }
    events.push({ step, tags })
  }
  return events
}

t.test('a run from text to models', async (t) => {
  const events: PretrainEvent[] = []
  const given = options({ onEvent: (event) => events.push(event) })
  const { steps, result } = await train(given)

  t.test('yields every step once, in order', async (t) => {
    t.same(
      steps.map(({ step }) => step),
      Array.from({ length: 20 }, (_, i) => i + 1),
    )
    for (const { step, tokens, steps: all } of steps) {
      t.equal(tokens, step * 256)
      t.equal(all, 20)
    }
    t.same(
      steps.filter(({ validation }) => validation !== undefined).map(({ step }) => step),
      [8, 16, 20],
      'validations come with the steps they follow',
    )
  })

  t.test('begins at the losses of a model that knows nothing: ln V and ln 2', async (t) => {
    const [first] = steps
    // Logits at initialization are sums of products of numbers around 0.02: a few hundredths.
    t.ok(
      Math.abs((first?.generatorLoss as number) - Math.log(smallRun.vocabSize)) < 0.1,
      `generator ${first?.generatorLoss}`,
    )
    t.ok(
      Math.abs((first?.discriminatorLoss as number) - Math.LN2) < 0.05,
      `discriminator ${first?.discriminatorLoss}`,
    )
    const last = steps.at(-1)
    t.ok((last?.loss as number) < (first?.loss as number) - 5, 'and learns')
    t.ok(
      steps.every(
        ({ loss, generatorLoss, discriminatorLoss }) =>
          Math.abs(loss - (generatorLoss + 50 * discriminatorLoss)) < 1e-4 * loss,
      ),
      'loss = generator loss + 50 discriminator loss',
    )
  })

  t.test('metrics.jsonl has the rows and names of the specification', async (t) => {
    const rows = metricsOf(given.output)
    t.same(
      rows.map(({ step, split }) => [step, split ?? 'train']),
      [
        [5, 'train'],
        [8, 'validation'],
        [10, 'train'],
        [15, 'train'],
        [16, 'validation'],
        [20, 'train'],
        [20, 'validation'],
      ],
    )
    for (const row of rows.filter(({ split }) => split === undefined)) t.same(Object.keys(row), trainColumns)
    for (const row of rows.filter(({ split }) => split === 'validation')) {
      for (const name of trainColumns.slice(1, 9)) t.ok(name in row, `validation ${name}`)
      t.ok((row.disc_auc as number) >= 0 && (row.disc_auc as number) <= 1)
    }
    const mean = steps.slice(0, 5).reduce((sum, { loss }) => sum + loss / 5, 0)
    t.ok(
      Math.abs((rows[0]?.loss as number) - mean) < 1e-9 * mean,
      'a row holds the mean since the row before',
    )
    t.same(
      events.flatMap((event) => (event.kind === 'row' ? [event.row] : [])),
      rows,
      'and each is an event',
    )
  })

  t.test('the TensorBoard file holds the same rows', async (t) => {
    const tensorboard = eventsOf(eventFileOf(given.output))
    t.same(
      tensorboard.map(({ step }) => step),
      metricsOf(given.output).map(({ step }) => step),
    )
    t.ok(tensorboard[0]?.tags.includes('train/generator_loss'))
    t.ok(tensorboard[1]?.tags.includes('validation/disc_auc'))
  })

  t.test('the plan comes before the first step and counts the models', async (t) => {
    const kinds = events.map(({ kind }) => kind)
    t.ok(kinds.indexOf('plan') < kinds.indexOf('row'))
    const plan = events.find((event) => event.kind === 'plan')
    t.ok(plan && plan.plan.expectedSeconds > 0 && plan.plan.memoryBytes > plan.plan.parameters * 16)
    t.ok(plan && plan.plan.parameters > plan.plan.discriminatorParameters)
  })

  t.test('both folders load as models, with the tokenizer beside them', async (t) => {
    const discriminator = await ElectraForPreTraining.fromPretrained(result.discriminator)
    const generator = await ElectraForMaskedLM.fromPretrained(result.generator)
    t.equal(discriminator.config.hiddenSize, 32)
    t.equal(generator.config.hiddenSize, 16)
    t.equal(
      readFileSync(join(result.generator, 'vocab.txt'), 'utf8').trimEnd().split('\n').length,
      smallRun.vocabSize,
    )
    discriminator.dispose()
    generator.dispose()
  })
})

t.test('the same seed gives the same bits, another seed others', async (t) => {
  const runs = [options(), options({ threads: 2 }), options({ seed: 2 })]
  for (const run of runs) await train(run)
  const [first, threaded, other] = runs.map(({ output }) => weightsOf(output))
  t.same(threaded, first, '1 and 2 threads')
  t.not(other?.discriminator, first?.discriminator)
})

t.test('micro-batches take the same tokens, and their gradients are averaged', async (t) => {
  const { steps } = await train(options({ accumulate: 4 }))
  t.equal(steps.length, 20)
  t.equal(steps.at(-1)?.tokens, 20 * 256)
  t.ok(Math.abs((steps[0]?.generatorLoss as number) - Math.log(smallRun.vocabSize)) < 0.1)
  t.ok((steps.at(-1)?.loss as number) < (steps[0]?.loss as number) - 5)
  // The mean of 4 micro-batches' gradients: not four times one's.
  const one = await train(options({ steps: 1 }))
  const four = await train(options({ steps: 1, accumulate: 4 }))
  const ratio = (four.steps[0]?.gradientNorm as number) / (one.steps[0]?.gradientNorm as number)
  t.ok(ratio > 0.7 && ratio < 1.4, `gradient norms: ratio ${ratio}`)
})

t.test('two-stage training trains the generator, then the discriminator from its weights', async (t) => {
  const rates = { learningRate: 1e-3, discriminatorLearningRate: 2.5e-4 }
  const given = options({ training: 'two-stage', ...rates, saveEvery: 10, keep: 9 })
  const { steps, result } = await train(given)
  for (const { step, generatorLoss, discriminatorLoss } of steps) {
    if (step <= 10) t.equal(discriminatorLoss, 0, `step ${step}: the discriminator waits`)
    else t.ok(discriminatorLoss > 0, `step ${step}: the discriminator learns`)
    if (step <= 10) t.ok(generatorLoss > 0)
  }
  const ratesOf = (stage: typeof steps) => stage.map(({ learningRate }) => learningRate)
  t.same(
    ratesOf(steps.slice(10)),
    ratesOf(steps.slice(0, 10)).map((rate) => rate / 4),
    'the second stage has the same schedule with its own peak',
  )
  const stateAt = (step: number) => {
    const path = join(given.output, 'checkpoints', `step-${String(step).padStart(9, '0')}`)
    const { layout } = JSON.parse(readFileSync(join(path, 'state.json'), 'utf8')) as {
      layout: { name: string; offset: number; shape: number[] }[]
    }
    const file = readSafetensors(join(path, 'tensors.safetensors'))
    const all = file.float32('parameters')
    return new Map(
      layout.map(({ name, offset, shape }) => [
        name,
        Buffer.from(
          Float32Array.from(all.subarray(offset, offset + shape.reduce((a, b) => a * b, 1))).buffer,
        ),
      ]),
    )
  }
  const [before, after] = [stateAt(10), stateAt(20)]
  let frozen = 0
  let moved = 0
  for (const [name, value] of after) {
    const same = value.equals(before.get(name) as Buffer)
    if (name.startsWith('generator.')) {
      frozen++
      t.ok(same, `${name} is frozen in the second stage`)
    } else if (!same) moved++
  }
  t.ok(frozen > 10 && moved > 10, `${frozen} frozen, ${moved} moved`)
  using generator = readSafetensors(join(result.generator, 'model.safetensors'))
  using discriminator = readSafetensors(join(result.discriminator, 'model.safetensors'))
  const name = 'electra.encoder.layer.0.attention.self.query.weight'
  t.same(discriminator.info(name).shape, generator.info(name).shape)
  await t.rejects(train(options({ training: 'two-stage', generatorSize: 0.5 })), {
    code: 'ERR_CONFIG',
    message: /two-stage.*same size/,
  })
  await t.rejects(train(options({ discriminatorLearningRate: 1e-3 })), {
    code: 'ERR_CONFIG',
    message: /discriminatorLearningRate is 0\.001, expected nothing without two-stage/,
  })
})

t.test('other forms run and differ from the defaults', async (t) => {
  const reference = options({ steps: 6 })
  await train(reference)
  const usual = weightsOf(reference.output)
  const forms: Partial<PretrainRun>[] = [
    { segments: 'pairs' },
    { optimizer: 'pytorch' },
    { schedule: 'linear' },
    { maskProbability: 0.3 },
    { temperature: 2 },
    { precision: 'bf16' },
  ]
  for (const form of forms) {
    const given = options({ steps: 6, ...form })
    const { steps } = await train(given)
    t.equal(steps.length, 6)
    t.ok(
      steps.every(({ loss }) => Number.isFinite(loss)),
      JSON.stringify(form),
    )
    t.not(weightsOf(given.output).discriminator, usual.discriminator, JSON.stringify(form))
  }
})

t.test('validation text of its own is not trained on, and the whole corpus is', async (t) => {
  const events: PretrainEvent[] = []
  const given = options({
    validation: [join(folder, 'other.txt')],
    steps: 4,
    onEvent: (event) => events.push(event),
  })
  await train(given)
  const data = events.find((event) => event.kind === 'data')
  t.equal(data?.statistics.train.documents, 120)
  t.equal(data?.statistics.validation?.documents, 12)
  t.ok(metricsOf(given.output).some(({ split }) => split === 'validation'))
  const without = options({ validationFraction: 0, steps: 4 })
  const { result } = await train(without)
  t.equal(result.validation, undefined)
  t.notOk(metricsOf(without.output).some(({ split }) => split === 'validation'))
})

t.test('a vocabulary that is given is used as it is', async (t) => {
  const words = new Set(
    corpusText()
      .toLowerCase()
      .match(/[a-z]+/g),
  )
  const vocab = join(folder, 'vocab.txt')
  writeFileSync(vocab, ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', ',', '"', ...words, ''].join('\n'))
  const events: PretrainEvent[] = []
  const { result } = await train(options({ vocab, steps: 2, onEvent: (event) => events.push(event) }))
  t.notOk(events.some(({ kind }) => kind === 'vocabulary'))
  t.equal(readFileSync(join(result.discriminator, 'vocab.txt'), 'utf8'), readFileSync(vocab, 'utf8'))
})

t.test('a consumer may read one step and stop', async (t) => {
  const given = options()
  for await (const { step } of pretrain(given)) {
    t.equal(step, 1)
    break
  }
  const { steps } = await train(given)
  t.ok((steps[0]?.step as number) > 1, 'the next run goes on')
  t.equal(steps.at(-1)?.step, 20)
})
