/**
 * The CUDA backend draws the CPU's random numbers: the same masks, the same dropped elements, and in float32 the same samples but where
 * rounding turns a near tie. Models computed on both agree, and a repeated computation has the same bits.
 */
import t from 'tap'
import {
  attention,
  bernoulli,
  corruptMask,
  type DeviceName,
  dropout,
  dropoutResidualLayerNorm,
  ElectraForJointPreTraining,
  ElectraForMaskedLM,
  ElectraForPreTraining,
  Generator,
  normal,
  permutation,
  RandomState,
  resolveDevice,
  scope,
  type Tensor,
  tensor,
  uniform,
  vocabularyCrossEntropy,
} from 'voltaic'
import { rowsOf, smallConfig, special, typesOf } from '../electra/helpers.js'
import { needsCuda } from '../helpers/cuda.js'

const seed = 20_261_126
const devices = ['cpu', 'cuda'] as const
type Devices = (typeof devices)[number]

/** What a computation gives on each device, as plain numbers; the second device's computed twice, with equal bits. */
function onBoth<T extends Record<string, Tensor>>(
  t: Tap,
  compute: (device: Devices, state: Tensor) => T,
): Record<Devices, Record<keyof T, number[]>> {
  const once = (device: Devices): Record<keyof T, number[]> =>
    scope(() => {
      const state = new RandomState(resolveDevice(device), { seed, step: 7, microBatch: 3 })
      const numbers = Object.fromEntries(
        Object.entries(compute(device, state.tensor)).map(([name, value]) => [
          name,
          Array.from(value.dataSync()),
        ]),
      )
      state.dispose()
      return numbers as Record<keyof T, number[]>
    })
  const [cpu, cuda, again] = [once('cpu'), once('cuda'), once('cuda')]
  t.same(again, cuda, 'the same bits again')
  return { cpu, cuda }
}
type Tap = Pick<typeof t, 'ok' | 'same'>

function largestDifference(a: readonly number[], b: readonly number[]): number {
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - (b[i] as number))), 0)
}

/** Numbers that look random and are the same everywhere. */
function values(count: number, salt: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => Math.sin(i * 12.9898 + salt * 78.233) * 2)
}

t.test('random numbers are the CPU’s', needsCuda, async (t) => {
  const { cpu, cuda } = onBoth(t, (device, state) => {
    const options = { device: device as DeviceName, from: { state, site: 5 } }
    return {
      uniform: uniform([3, 41], options),
      bernoulli: bernoulli([100], { ...options, probability: 0.3 }),
      permutation: permutation(257, options),
      dropout: dropout(tensor(values(123, 1), { device }), { state, site: 9, probability: 0.25 }),
      normal: normal([64], options),
    }
  })
  for (const name of ['uniform', 'bernoulli', 'permutation', 'dropout'] as const)
    t.same(cuda[name], cpu[name], name)
  t.ok(largestDifference(cuda.normal, cpu.normal) < 1e-5, 'normal, to rounding')
})

t.test('generators and seeds draw the same on both', needsCuda, async (t) => {
  const drawn = devices.map((device) =>
    scope(() => Array.from(uniform([17], { device, from: new Generator(seed) }).dataSync())),
  )
  t.same(drawn[1], drawn[0])
})

t.test('dropout inside fused kernels drops the same elements', needsCuda, async (t) => {
  const width = 40
  const { cpu, cuda } = onBoth(t, (device, state) => {
    const x = tensor(values(23 * width, 2), { device, shape: [23, width], requiresGrad: true })
    const residual = tensor(values(23 * width, 3), { device, shape: [23, width] })
    const weight = tensor(new Float32Array(width).fill(1), { device, requiresGrad: true })
    const bias = tensor(new Float32Array(width), { device, requiresGrad: true })
    const y = dropoutResidualLayerNorm(x, residual, weight, bias, {
      dropout: { state, site: 11, probability: 0.4 },
    })
    y.mul(y).mul(y).sum().backward()
    return { y, gradient: x.grad as Tensor }
  })
  t.ok(largestDifference(cuda.y, cpu.y) < 1e-5, 'values')
  const zeros = (numbers: readonly number[]): number[] =>
    numbers.flatMap((value, i) => (value === 0 ? [i] : []))
  t.same(zeros(cuda.gradient), zeros(cpu.gradient), 'exactly the same elements have no gradient')
  t.ok(zeros(cpu.gradient).length > 100)
})

t.test('attention drops the same probabilities', needsCuda, async (t) => {
  const bounds = Int32Array.of(0, 5, 5, 38, 55)
  for (const dtype of ['float32', 'bfloat16'] as const) {
    const { cpu, cuda } = onBoth(t, (device, state) => {
      const qkv = tensor(values(55 * 3 * 2 * 64, 4), {
        device,
        shape: [55, 3, 2, 64],
        dtype,
        requiresGrad: true,
      })
      const context = attention(qkv, tensor(bounds, { device }), {
        dropout: { state, site: 13, probability: 0.5 },
      })
      context.mul(context).sum().backward()
      return { context: context.to('float32'), gradient: qkv.grad as Tensor }
    })
    // One dropped probability more or less would show at the size of the values themselves.
    const tolerance = dtype === 'float32' ? 1e-5 : 0.05
    t.ok(largestDifference(cuda.context, cpu.context) < tolerance, `${dtype} values`)
    t.ok(largestDifference(cuda.gradient, cpu.gradient) < 20 * tolerance, `${dtype} gradients`)
  }
})

t.test('masks are the same, samples but for near ties', needsCuda, async (t) => {
  const rows = 40
  const classes = 333
  const { cpu, cuda } = onBoth(t, (device, state) => {
    const ids = tensor(
      Int32Array.from({ length: 120 }, (_, i) => (i % 30 === 0 ? 2 : 5 + i)),
      { device },
    )
    const masked = corruptMask(ids, tensor(Int32Array.of(0, 30, 60, 60, 90, 120), { device }), {
      state,
      site: 0,
      capacity: 30,
      probability: 0.15,
      replaceProbability: 0.85,
      limit: 20,
      cls: 2,
      sep: 3,
      mask: 4,
    })
    const head = vocabularyCrossEntropy(
      tensor(values(rows * classes, 5), { device, shape: [rows, classes] }),
      tensor(
        Int32Array.from({ length: rows }, (_, i) => (i % 7 === 0 ? -100 : (i * 31) % classes)),
        { device },
      ),
      { sampling: { state, site: 2 } },
    )
    return {
      masked: masked.masked,
      positions: masked.positions,
      targets: masked.targets,
      count: masked.count,
      samples: head.samples as Tensor,
      predictions: head.predictions,
      counts: head.counts,
      loss: head.loss,
    }
  })
  for (const name of ['masked', 'positions', 'targets', 'count', 'predictions', 'counts'] as const)
    t.same(cuda[name], cpu[name], name)
  const differing = cuda.samples.filter((sample, i) => sample !== cpu.samples[i]).length
  t.ok(differing <= 1, `${differing} of ${rows} samples differ`)
  t.ok(largestDifference(cuda.loss, cpu.loss) < 1e-5, 'loss')
})

t.test('a joint step with dropout agrees in float32', needsCuda, async (t) => {
  const config = smallConfig({ hiddenDropoutProb: 0.1, attentionProbsDropoutProb: 0.1 })
  const inputIds = rowsOf([9, 30, 17, 48])
  const step = (device: Devices) =>
    scope(() => {
      const joint = new ElectraForJointPreTraining(
        new ElectraForMaskedLM(config, { device, seed: 3 }),
        new ElectraForPreTraining(config, { device, seed: 4 }),
        { ...special, seed },
      )
      joint.train()
      const { gradients } = joint.arena
      const output = joint.forward({ inputIds, tokenTypeIds: typesOf(inputIds) })
      output.loss.backward()
      const numbers = {
        losses: [output.loss.item(), output.generatorLoss.item(), output.discriminatorLoss.item()],
        counts: Array.from(output.maskedCounts.dataSync()),
        replaced: Array.from(output.discriminator?.replacedIds.dataSync() ?? []),
        gradients: Float32Array.from(gradients.dataSync()),
      }
      joint.dispose()
      return numbers
    })
  const [cpu, cuda, again] = [step('cpu'), step('cuda'), step('cuda')]
  t.same(again, cuda, 'the same bits again')
  t.same(cuda.counts, cpu.counts)
  t.same(cuda.replaced, cpu.replaced, 'the same tokens masked, and the same samples')
  t.ok(largestDifference(cuda.losses, cpu.losses) < 1e-4, `losses ${cuda.losses}, ${cpu.losses}`)
  const norm = (numbers: Float32Array): number => Math.sqrt(numbers.reduce((sum, x) => sum + x * x, 0))
  const difference = norm(cuda.gradients.map((value, i) => value - (cpu.gradients[i] as number)))
  t.ok(difference < 1e-4 * norm(cpu.gradients), `gradients differ by ${difference} of ${norm(cpu.gradients)}`)
})

t.test('bad indices are errors that name op and place, and the next work is right', needsCuda, async (t) => {
  await t.rejects(
    scope(() =>
      tensor(values(12, 1), { device: 'cuda', shape: [3, 4] })
        .indexSelect(tensor(Int32Array.of(0, 3), { device: 'cuda' }))
        .data(),
    ),
    { code: 'ERR_ARGUMENT', message: /gather_rows.*\[1\] is 3; expected 0 to 2/ },
  )
  const fine = scope(() => tensor(Float32Array.of(1, 2), { device: 'cuda' }).add(1).dataSync())
  t.same(Array.from(fine), [2, 3])
})

t.test('not a number in, not a number out', needsCuda, async (t) => {
  scope(() => {
    const x = values(4 * 64, 6)
    x[70] = Number.NaN
    const rows = tensor(x, { device: 'cuda', shape: [4, 64] })
    for (const [name, y] of Object.entries({
      softmax: rows.softmax(1),
      gelu: rows.gelu(),
      sum: rows.sum(1),
    })) {
      const numbers = Array.from(y.dataSync())
      const each = numbers.length / 4
      t.ok(numbers.slice(each, 2 * each).some(Number.isNaN), `${name}: the row that has it`)
      t.notOk(
        [...numbers.slice(0, each), ...numbers.slice(2 * each)].some(Number.isNaN),
        `${name}: no other row`,
      )
    }
  })
})
