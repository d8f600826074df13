/** Steps as captured graphs: when they are captured, that they compute the same, and what they do to memory. */
import t from 'tap'
import { memoryStats, relu, resolveDevice, sigmoid, synchronize, type Tensor, tensor } from 'voltaic'
import { StepRunner, type StepRunnerOptions } from '../../dist/training/step-runner.js'
import { smallConfig } from '../electra/helpers.js'
import { needsCuda } from '../helpers/cuda.js'

const sequenceLength = 8
const tokens = 16
const device = () => resolveDevice('cuda')

/** A batch of 16 tokens in so many sequences. */
function batch(sequences: number) {
  const offsets = Int32Array.from({ length: sequences + 1 }, (_, i) => Math.round((i * tokens) / sequences))
  const lengths = Array.from(offsets.subarray(1), (bound, i) => bound - (offsets[i] as number))
  return {
    ids: new Int32Array(tokens).fill(7),
    types: new Int32Array(tokens),
    positions: Int32Array.from(lengths.flatMap((length) => [...Array(length).keys()])),
    offsets,
    epoch: 0,
    longest: Math.max(...lengths),
  }
}

const runner = (changes: Partial<StepRunnerOptions> = {}): StepRunner =>
  new StepRunner({ device: device(), limits: smallConfig(), sequenceLength, ...changes })

/** A step's body over x: two results, and something in between. Counts its calls. */
function bodyOf(x: Tensor) {
  const seen: { calls: number; sequences: number[]; longest: number[] } = {
    calls: 0,
    sequences: [],
    longest: [],
  }
  const body: Parameters<StepRunner['run']>[1] = (inputs) => {
    seen.calls++
    for (const input of inputs) {
      if (!('sequences' in input)) throw new Error('the batch is not on the device')
      seen.sequences.push(input.sequences)
      seen.longest.push(input.longest)
    }
    const between = relu(x)
    return [sigmoid(between), between]
  }
  return { body, seen }
}

const numbers = async (reads: Promise<ArrayLike<number>>[]): Promise<number[]> =>
  (await Promise.all(reads)).map((values) => values[0] as number)

t.test('two plain steps of a shape, then a graph; the numbers are the same', needsCuda, async (t) => {
  const x = tensor(new Float32Array(3000).fill(1), { device: device() })
  const before = memoryStats(device())
  const { body, seen } = bodyOf(x)
  const steps = runner()
  const pending: Promise<number[]>[] = []
  for (let step = 0; step < 8; step++) {
    x.assign(new Float32Array(3000).fill(step / 4))
    pending.push(numbers(steps.run([batch(2 + (step % 2)), batch(3)], body)))
    t.equal(steps.graphs, step < 2 ? 0 : 1, `step ${step}`)
  }
  t.equal(seen.calls, 3, 'the third call was the capture')
  t.ok(
    seen.sequences.every((count) => count === 4),
    'sequences are rounded up to a power of two of full ones',
  )
  t.ok(seen.longest.every((longest) => longest === sequenceLength))
  const found = await Promise.all(pending)
  found.forEach(([first, second], step) => {
    t.equal(second, step / 4)
    t.equal(first, Math.fround(found[step]?.[0] as number))
    t.ok(Math.abs((first as number) - 1 / (1 + Math.exp(-step / 4))) < 1e-6)
  })

  // Another shape begins anew, and shares the memory.
  for (let step = 0; step < 2; step++) await numbers(steps.run([batch(5), batch(3)], body))
  t.equal(steps.graphs, 1)
  const { systemAllocations } = memoryStats(device())
  await numbers(steps.run([batch(5), batch(3)], body))
  await numbers(steps.run([batch(2), batch(3)], body))
  await numbers(steps.run([batch(5), batch(8)], body))
  t.equal(steps.graphs, 2)
  t.equal(memoryStats(device()).systemAllocations, systemAllocations)
  t.same(await numbers(steps.run([batch(4), batch(3)], body)), found.at(-1))
  steps.dispose()
  t.equal(steps.graphs, 0)
  t.same(await numbers(steps.run([batch(4), batch(3)], body)), found.at(-1), 'and it can go on')
  steps.dispose()
  t.equal(memoryStats(device()).tensors, before.tensors)
  t.equal(memoryStats(device()).allocatedBytes, before.allocatedBytes)
  x.dispose()
})

t.test('a body that cannot be captured runs plainly, and that is told once', needsCuda, async (t) => {
  const x = tensor([2], { device: device() })
  const notes: string[] = []
  const steps = runner({ onNote: (text) => notes.push(text) })
  for (let step = 0; step < 6; step++)
    t.same(await numbers(steps.run([batch(2)], () => [relu(x), tensor([step], { device: device() })])), [
      2,
      step,
    ])
  t.equal(steps.graphs, 0)
  t.equal(notes.length, 1)
  t.match(notes[0], /not captured.*an upload while a graph is being captured/)
  steps.dispose()
  x.dispose()
})

t.test('an error of the body itself comes out of the step', needsCuda, async (t) => {
  const steps = runner()
  const body = () => {
    throw new RangeError('mine')
  }
  for (let step = 0; step < 4; step++) t.throws(() => steps.run([batch(2)], body), RangeError)
  t.throws(() => steps.run([{ ...batch(2), ids: new Int32Array(tokens).fill(1e6) }], body), {
    code: 'ERR_ARGUMENT',
    message: /ids\[0\] is 1000000/,
  })
  steps.dispose()
  await synchronize(device())
})

t.test('VOLTAIC_GRAPHS=off, and the CPU: the plain way', needsCuda, async (t) => {
  process.env.VOLTAIC_GRAPHS = 'off'
  const steps = runner()
  delete process.env.VOLTAIC_GRAPHS
  const x = tensor([3], { device: device() })
  const { body, seen } = bodyOf(x)
  for (let step = 0; step < 4; step++) t.equal((await numbers(steps.run([batch(3)], body)))[1], 3)
  t.equal(steps.graphs, 0)
  t.same(seen.sequences, [4, 4, 4, 4], 'on the same padded batches, so that the bits are the same')
  steps.dispose()
  x.dispose()
  const onCpu = runner({ device: resolveDevice('cpu') })
  const given = batch(3)
  onCpu.run([given], ([input]) => {
    t.equal(input, given)
    return []
  })
  onCpu.dispose()
})
