/** Runs that go on from trained models: what is kept, what is refused, and that they resume like any other. */
import { cpSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  ElectraForPreTraining,
  ElectraForSequenceClassification,
  loadTokenizer,
  type PretrainEvent,
  type PretrainRun,
  pretrain,
  readModelFolder,
  readSafetensors,
} from 'voltaic'
import { originalVariables } from '../helpers/formats/original-names.js'
import { writeCheckpoint } from '../helpers/formats/tensorflow.js'
import {
  corpusText,
  metricsOf,
  repeatable,
  smallRun,
  train,
  voltaic,
  weightsOf,
} from '../helpers/training.js'

t.setTimeout(230_000)
const folder = t.testdir({ 'corpus.txt': corpusText(), 'other.txt': corpusText(120, 7) })
const at = (...names: string[]): string => join(folder, ...names)
let count = 0
const { size, model, vocabSize, ...rest } = smallRun
const options = (changes: Partial<PretrainRun> = {}): PretrainRun => ({
  ...rest,
  corpus: [at('corpus.txt')],
  output: at(`run-${count++}`),
  ...changes,
})
const base = at('base')
const { steps: baseSteps } = await train({
  ...options({ steps: 120, warmupSteps: 12 }),
  ...{ size, model, vocabSize, output: base },
})

const words = 'electra.embeddings.word_embeddings.weight'
const positions = 'electra.embeddings.position_embeddings.weight'
const mean = (numbers: readonly number[]): number =>
  numbers.reduce((sum, number) => sum + number, 0) / numbers.length

/** The first checkpoint holds what the run began with: its learning rate is 0 all along. */
const still = { steps: 1, learningRate: 0, warmupSteps: 0 } as const

t.test(
  'without a step, the models of a run that goes on are those it went on from, bit for bit',
  async (t) => {
    const given = options({ from: base, ...still })
    await train(given)
    t.same(weightsOf(given.output), weightsOf(base))
    const pair = options({
      from: { discriminator: join(base, 'discriminator'), generator: join(base, 'generator') },
      ...still,
    })
    await train(pair)
    t.same(weightsOf(pair.output), weightsOf(base), 'named one by one, too')
  },
)

t.test('a run that goes on begins at the loss where the old one ended', async (t) => {
  const last = baseSteps.slice(-10).map(({ loss }) => loss)
  const { steps } = await train(options({ from: base, steps: 10 }))
  const first = steps.slice(0, 3).map(({ loss }) => loss)
  const fresh = baseSteps[0]?.loss as number
  // Single steps differ by their masks, by about 1.5 here; a tenth of what the old run learned is less than the 5 % of the loss
  // that three of them average to.
  t.ok(
    Math.abs(mean(first) - mean(last)) < 0.1 * (fresh - mean(last)),
    `${mean(first)} after ${mean(last)} from ${fresh}`,
  )
})

t.test('it resumes bit for bit, without reading the weights again', async (t) => {
  const whole = options({ from: base })
  await train(whole)
  const parts = options({ from: base })
  for (const stop of [4, 11]) for await (const { step } of pretrain(parts)) if (step === stop) break
  const events: PretrainEvent[] = []
  await train({ ...parts, onEvent: (event) => events.push(event) })
  t.same(weightsOf(parts.output), weightsOf(whole.output))
  t.same(repeatable(metricsOf(parts.output)), repeatable(metricsOf(whole.output)))
  t.ok(events.some(({ kind }) => kind === 'resumed'))

  await t.rejects(train({ ...parts, ...{ from: undefined, size, model, vocabSize } }), {
    code: 'ERR_CONFIG',
    message: /holds another run: .*initial models was /,
  })
  await t.rejects(train({ ...parts, from: join(base, 'discriminator') }), {
    code: 'ERR_CONFIG',
    message: /initial models was \S+ and \S+, is \S+ and a new generator/,
  })
  // The same weights elsewhere are the same run.
  cpSync(base, at('moved'), { recursive: true })
  rmSync(at('moved', 'checkpoints'), { recursive: true })
  const complete: PretrainEvent[] = []
  await train({ ...parts, from: at('moved'), onEvent: (event) => complete.push(event) })
  t.ok(complete.some(({ kind }) => kind === 'complete'))
})

t.test('a discriminator alone gets a new generator, which says so and shares its embeddings', async (t) => {
  const notes: string[] = []
  const given = options({
    from: join(base, 'discriminator'),
    ...still,
    generatorSize: 0.25,
    onEvent: (event) => event.kind === 'note' && notes.push(event.text),
  })
  await train(given)
  t.match(notes.join('\n'), /no generator is given: a new one begins/)
  t.equal(weightsOf(given.output).discriminator, weightsOf(base).discriminator)
  using generator = readModelFolder(join(given.output, 'generator'))
  using discriminator = readModelFolder(join(base, 'discriminator'))
  t.equal(generator.config.hiddenSize, 8)
  t.same(generator.tensors.float32(words), discriminator.tensors.float32(words))
})

t.test(
  "a generator with embeddings of its own goes on with the discriminator's, and that is said",
  async (t) => {
    const other = at('other-base')
    await train({
      ...options({ steps: 2 }),
      ...{ size, model, vocabSize, seed: 9, generatorSize: 1, output: other },
    })
    const notes: string[] = []
    const given = options({
      from: { discriminator: join(base, 'discriminator'), generator: join(other, 'generator') },
      ...still,
      onEvent: (event) => event.kind === 'note' && notes.push(event.text),
    })
    await train(given)
    t.match(notes.join('\n'), /the generator's embeddings are not the discriminator's/)
    t.match(notes.join('\n'), /the generator is as wide as the discriminator/)
    using mixed = readSafetensors(join(given.output, 'generator', 'model.safetensors'))
    using first = readSafetensors(join(base, 'discriminator', 'model.safetensors'))
    using second = readSafetensors(join(other, 'generator', 'model.safetensors'))
    for (const name of mixed.names) {
      const source = name.startsWith('electra.embeddings.') ? first : second
      t.same(mixed.float32(name), source.float32(name), name)
    }
  },
)

t.test('another vocabulary keeps the embeddings of shared pieces', async (t) => {
  const events: PretrainEvent[] = []
  const given = options({
    from: base,
    ...still,
    corpus: [at('other.txt')],
    vocabSize: 150,
    onEvent: (event) => events.push(event),
  })
  await train(given)
  const before = await loadTokenizer(join(base, 'discriminator'))
  const after = await loadTokenizer(join(given.output, 'discriminator'))
  t.not(after.vocabularySize, before.vocabularySize)
  using old = readSafetensors(join(base, 'generator', 'model.safetensors'))
  using now = readSafetensors(join(given.output, 'generator', 'model.safetensors'))
  const width = model.embeddingSize
  let shared = 0
  after.vocabulary.forEach((token, id) => {
    const was = before.tokenToId(token)
    if (was === undefined) return
    shared += 1
    t.same(
      now.float32(words).subarray(id * width, (id + 1) * width),
      old.float32(words).subarray(was * width, (was + 1) * width),
      token,
    )
    t.equal(now.float32('generator_lm_head.bias')[id], old.float32('generator_lm_head.bias')[was], token)
  })
  const transfer = events.find((event) => event.kind === 'transfer')
  t.equal(transfer?.kind === 'transfer' && transfer.special + transfer.shared, shared)
  t.ok(shared > 75, `${shared} of 150`)
  for (const name of now.names.filter((name) => name !== words && name !== 'generator_lm_head.bias'))
    t.same(now.float32(name), old.float32(name), name)
})

t.test('positions grow on request, and short inputs give the same numbers as before', async (t) => {
  const given = options({ from: base, ...still, positions: 100, sequenceLength: 80, batchSize: 4 })
  await train(given)
  using old = readSafetensors(join(base, 'discriminator', 'model.safetensors'))
  using now = readModelFolder(join(given.output, 'discriminator'))
  t.equal(now.config.maxPositionEmbeddings, 100)
  t.same(now.tensors.float32(positions).subarray(0, 64 * 16), old.float32(positions))
  const inputIds = [[2, 20, 30, 40, 50, 3]]
  const logits = async (place: string): Promise<unknown> => {
    const model = await ElectraForPreTraining.fromPretrained(place, { device: 'cpu' })
    const values = await model.forward({ inputIds }).logits.data()
    model.dispose()
    return values
  }
  t.same(await logits(join(given.output, 'discriminator')), await logits(join(base, 'discriminator')))
})

t.test('a checkpoint of the original code gives both models, with its vocabulary beside it', async (t) => {
  const place = at('original')
  mkdirSync(place)
  {
    using discriminator = readModelFolder(join(base, 'discriminator'))
    using generator = readModelFolder(join(base, 'generator'))
    const variables = [
      ...originalVariables(discriminator.tensors, 'electra'),
      ...originalVariables(generator.tensors, 'generator'),
    ]
    const byName = new Map(variables.map((variable) => [variable.name, variable]))
    writeCheckpoint(join(place, 'model.ckpt-120'), [...byName.values()])
  }
  const vocab = join(base, 'discriminator', 'vocab.txt')
  const given = options({ from: join(place, 'model.ckpt-120'), vocab, ...still })
  await train(given)
  // A tensor's bytes: the files differ in their configurations, because the original's rule gives one head for a width of 32.
  using now = readSafetensors(join(given.output, 'generator', 'model.safetensors'))
  using old = readSafetensors(join(base, 'generator', 'model.safetensors'))
  for (const name of old.names) t.same(now.float32(name), old.float32(name), name)
  await t.rejects(train(options({ from: place, vocabSize: 150 })), {
    code: 'ERR_CONFIG',
    message: /has no tokenizer beside the weights/,
  })
})

t.test('a fine-tuned model gives its body', async (t) => {
  const tuned = at('tuned')
  const classifier = await ElectraForSequenceClassification.fromPretrained(join(base, 'discriminator'), {
    config: { numLabels: 3 },
    seed: 1,
  })
  await classifier.savePretrained(tuned)
  classifier.dispose()
  cpSync(join(base, 'discriminator', 'vocab.txt'), join(tuned, 'vocab.txt'))
  const notes: string[] = []
  const given = options({
    from: tuned,
    ...still,
    onEvent: (event) => event.kind === 'note' && notes.push(event.text),
  })
  await train(given)
  t.match(notes.join('\n'), /not in the files, so new: discriminator_predictions/)
  t.match(notes.join('\n'), /in the files, but not in the models: classifier/)
  using body = readModelFolder(join(given.output, 'discriminator'))
  t.equal(body.config.numLabels, 2, 'without the labels of its task')
})

t.test('what cannot go together is refused before anything is done', async (t) => {
  const refuse = async (changes: Partial<PretrainRun>, message: RegExp): Promise<void> => {
    await t.rejects(train(options({ from: base, ...changes })), { code: 'ERR_CONFIG', message })
  }
  await refuse({ from: { generator: base } as never }, /from is \{"generator".*expected the name of a model/)
  await refuse({ from: 3 as never }, /from is 3, expected the name of a model/)
  await refuse({ size: 'base' }, /size is "base", expected nothing with from/)
  await refuse({ model: { numHiddenLayers: 2 } }, /model\.numHiddenLayers is 2/)
  await refuse({ generatorSize: 0.5 }, /generatorSize is 0\.5/)
  await refuse({ training: 'two-stage' }, /training is "two-stage"/)
  await refuse({ output: base }, /lies in the run's own folder/)
  await refuse({ initialization: 'sinusoidal' }, /initialization is "sinusoidal", expected nothing with from/)
  await refuse({ trainedPositions: 8 }, /expected positions beside it/)
  await refuse({ sequenceLength: 65 }, /at most the 64 positions/)
  await t.rejects(train(options({ from: join(base, 'generator') })), {
    code: 'ERR_ARGUMENT',
    message: /holds the generator \(ElectraForMaskedLM\), not the discriminator/,
  })
  await t.rejects(train(options({ from: at('nowhere') })), { code: 'ERR_IO' })
})

t.test('on the command line: --from, --from-generator', async (t) => {
  const args = ['pretrain', at('corpus.txt'), '--output', at('cli'), '--device', 'cpu', '--precision', 'fp32']
  const small = ['--steps', '2', '--batch-size', '4', '--sequence-length', '32', '--threads', '1']
  const { code, stderr } = await voltaic([...args, ...small, '--from', base, '--vocab-size', '150'])
  t.equal(code, 0, stderr)
  t.match(stderr, /tokens keep their embeddings, \d+ start as the mean of old pieces, \d+ anew/)
  const pair = await voltaic([
    ...[...args, ...small, '--fresh', '--json'],
    ...['--from', join(base, 'discriminator'), '--from-generator', join(base, 'generator')],
  ])
  t.equal(pair.code, 0, pair.stderr)
  t.notMatch(pair.stdout, /"no generator/)
  t.ok(readFileSync(at('cli', 'run.json'), 'utf8').includes('"initial models"'))
  const alone = await voltaic([...args, '--from-generator', base])
  t.equal(alone.code, 2)
  t.match(alone.stderr, /--from-generator goes with --from/)
})
