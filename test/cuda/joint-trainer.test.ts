/** Training steps as captured graphs: the bits of plain steps, over stages, validations and shapes that change. */
import t from 'tap'
import { memoryStats, resolveDevice } from 'voltaic'
import { JointTrainer, type StepNumbers } from '../../dist/training/joint-trainer.js'
import { resolvePretrainOptions } from '../../dist/training/options.js'
import { smallConfig, special } from '../electra/helpers.js'
import { needsCuda } from '../helpers/cuda.js'

t.setTimeout(230_000)
const sequenceLength = 12
const tokens = 2 * sequenceLength
const steps = 7

/** Sequences of 3 to 12 tokens that fill the budget: how many there are varies. */
function batch(seed: number) {
  let state = seed * 7919 + 17
  const next = (below: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  const lengths: number[] = []
  for (let left = tokens; left > 0; ) {
    const length = left <= 5 ? left : Math.min(left - 3, 3 + next(sequenceLength - 3))
    lengths.push(length)
    left -= length
  }
  const offsets = new Int32Array(lengths.length + 1)
  lengths.forEach((length, i) => {
    offsets[i + 1] = (offsets[i] as number) + length
  })
  return {
    ids: Int32Array.from({ length: tokens }, () => 10 + next(180)),
    types: Int32Array.from({ length: tokens }, () => next(2)),
    positions: Int32Array.from(lengths.flatMap((length) => [...Array(length).keys()])),
    offsets,
    epoch: 0,
    longest: Math.max(...lengths),
  }
}

interface Way {
  readonly graphs: boolean
  readonly accumulate?: number
  readonly training?: 'joint' | 'two-stage'
  readonly precision?: 'fp32' | 'bf16'
}

async function trainSteps({ graphs, accumulate = 1, training = 'joint', precision = 'fp32' }: Way) {
  const config = smallConfig({
    hiddenSize: 32,
    numHiddenLayers: 1,
    intermediateSize: 32,
    hiddenDropoutProb: 0.1,
    attentionProbsDropoutProb: 0.1,
  })
  const notes: string[] = []
  if (!graphs) process.env.VOLTAIC_GRAPHS = 'off'
  const trainer = new JointTrainer({
    settings: resolvePretrainOptions({
      output: 'unused',
      size: 'tiny',
      steps,
      batchSize: 2 * accumulate,
      accumulate,
      sequenceLength,
      training,
      optimizer: 'pytorch',
      warmupSteps: 2,
    }),
    discriminator: config,
    generator: config,
    special,
    device: resolveDevice('cuda'),
    precision,
    onNote: (text) => notes.push(text),
  })
  delete process.env.VOLTAIC_GRAPHS
  const numbers: Promise<StepNumbers>[] = []
  const captured: number[] = []
  const validations: unknown[] = []
  for (let step = 0; step < steps; step++) {
    const batches = Array.from({ length: accumulate }, (_, i) => batch(step * accumulate + i))
    numbers.push(trainer.queueStep(step, batches))
    captured.push(trainer.graphs)
    if (step === 4) validations.push(await trainer.validate([batch(100)]))
  }
  const result = {
    numbers: await Promise.all(numbers),
    validations,
    counts: Buffer.from((await trainer.takeDetectorCounts()).buffer).toString('base64'),
    weights: Buffer.from(await trainer.arena.export()).toString('base64'),
  }
  trainer.dispose()
  return { result, captured, notes }
}

const ways: [string, Omit<Way, 'graphs'>][] = [
  ['one batch a step', {}],
  ['bf16', { precision: 'bf16' }],
  ['micro-batches', { accumulate: 2 }],
  ['two stages', { training: 'two-stage' }],
]
for (const [name, way] of ways) {
  t.test(`${name}: the same bits with graphs and without`, needsCuda, async (t) => {
    const plain = await trainSteps({ ...way, graphs: false })
    t.ok(plain.captured.every((graphs) => graphs === 0))
    const before = memoryStats(resolveDevice('cuda'))
    const graphs = await trainSteps({ ...way, graphs: true })
    t.same(graphs.notes, [])
    t.ok(Math.max(...graphs.captured) > 0, `graphs after each step: ${graphs.captured}`)
    t.same(graphs.result, plain.result)
    t.equal(new Set(graphs.result.numbers.map(({ loss }) => loss)).size, steps, 'every step is its own')
    const after = memoryStats(resolveDevice('cuda'))
    t.equal(after.allocatedBytes, before.allocatedBytes, 'nothing is left in memory')
    t.equal(after.tensors, before.tensors)
  })
}
