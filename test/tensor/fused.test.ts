/** The fused functions: gradients against central differences, agreement with the general ops, bfloat16 beside float32. */
import t from 'tap'
import { Parameter, ParameterArena } from '../../dist/nn/index.js'
import * as v from '../../dist/tensor/index.js'
import { checkGradients, close, device, randomNumbers } from './gradient-check.js'

const actual = v.zeros([1], { device }).device
const random = new v.RandomState(actual, { seed: 11, step: 4 })
const site = (number: number, probability: number): v.Dropout => ({
  probability,
  site: number,
  state: random.tensor,
})
const ints = (values: readonly number[]): v.Tensor => v.tensor([...values], { device, dtype: 'int32' })

t.test('linear has right gradients, with and without bias and activation', async (t) => {
  const inputs = [{ shape: [2, 3, 4] }, { shape: [5, 4] }, { shape: [5] }]
  checkGradients(t, 'linear', (x, w, b) => v.linear(x, w, b), inputs)
  checkGradients(t, 'linear without bias', (x, w) => v.linear(x, w), inputs.slice(0, 2))
  for (const activation of ['gelu', 'geluTanh', 'tanh', 'sigmoid'] as const) {
    checkGradients(t, `linear with ${activation}`, (x, w, b) => v.linear(x, w, b, { activation }), inputs)
    checkGradients(
      t,
      `linear with ${activation}, no bias`,
      (x, w) => v.linear(x, w, null, { activation }),
      inputs.slice(0, 2),
    )
  }
})

t.test('two layers fuse the activation into the second product and give the same gradients', async (t) => {
  const inputs = [{ shape: [3, 4] }, { shape: [6, 4] }, { shape: [6] }, { shape: [2, 6] }, { shape: [2] }]
  checkGradients(
    t,
    'feed-forward',
    (x, w, b, w2, b2) => v.linear(v.linear(x, w, b, { activation: 'gelu' }), w2, b2),
    inputs,
  )
  for (const order of ['before', 'after']) {
    checkGradients(
      t,
      `hidden layer also used ${order} the second product`,
      (x, w, b, w2, b2) => {
        const hidden = v.linear(x, w, b, { activation: 'gelu' })
        const early = hidden.sum(1, true)
        const y = v.linear(hidden, w2, b2)
        return y.add(order === 'before' ? early : hidden.sum(1, true))
      },
      inputs,
    )
  }
  checkGradients(
    t,
    'no bias to give a gradient to',
    (x, w, w2) => v.linear(v.linear(x, w, null, { activation: 'tanh' }), w2),
    [inputs[0]!, inputs[1]!, inputs[3]!],
  )
  const leaves = [[3, 4], [6, 4], [6], [2, 6]].map((shape, i) =>
    v.normal(shape, { device, requiresGrad: true, from: { state: random.tensor, site: i } }),
  )
  const [x, w, b, w2] = leaves as [v.Tensor, v.Tensor, v.Tensor, v.Tensor]
  const hidden = v.linear(x, w, b, { activation: 'gelu' }).retainGrad()
  v.linear(hidden, w2).sum().backward()
  close(
    t,
    hidden.grad.sum(0),
    w2.sum(0).mul(3).dataSync(),
    1e-5,
    'a kept hidden gradient is that of the result',
  )
})

t.test('dropout + residual + LayerNorm has right gradients', async (t) => {
  const inputs = [{ shape: [3, 9], low: -2, high: 2 }, { shape: [3, 9] }, { shape: [9] }, { shape: [9] }]
  checkGradients(t, 'without dropout', (x, r, w, b) => v.dropoutResidualLayerNorm(x, r, w, b), inputs)
  checkGradients(
    t,
    'with dropout',
    (x, r, w, b) => v.dropoutResidualLayerNorm(x, r, w, b, { dropout: site(3, 0.4) }),
    inputs,
  )
  checkGradients(
    t,
    'of one tensor as both x and residual',
    (x, w, b) => v.dropoutResidualLayerNorm(x, x, w, b, { dropout: site(3, 0.4) }),
    [inputs[0]!, inputs[2]!, inputs[3]!],
  )
  const [x, r, w, b] = inputs.map((input, i) =>
    v.normal(input.shape, { device, from: { state: random.tensor, site: 20 + i } }),
  ) as [v.Tensor, v.Tensor, v.Tensor, v.Tensor]
  const apart = v.layerNorm(v.dropout(x, site(3, 0.4)).add(r), w, b)
  const fused = v.dropoutResidualLayerNorm(x, r, w, b, { dropout: site(3, 0.4) })
  close(t, fused, apart.dataSync(), 1e-5, 'the same as dropout, sum and LayerNorm apart')
})

t.test('the embedding block has right gradients for tables and LayerNorm', async (t) => {
  const indices = { ids: ints([4, 0, 4, 2]), types: ints([0, 1, 1, 0]), positions: ints([0, 1, 0, 1]) }
  const inputs = [{ shape: [5, 8] }, { shape: [3, 8] }, { shape: [2, 8] }, { shape: [8] }, { shape: [8] }]
  for (const probability of [0, 0.3]) {
    checkGradients(
      t,
      `dropout ${probability}`,
      (word, position, type, normWeight, normBias) =>
        v.embeddingBlock(
          indices,
          { word, position, type, normWeight, normBias },
          { dropout: site(1, probability) },
        ),
      inputs,
      { tolerance: 3e-3 },
    )
  }
  checkGradients(t, 'embedding', (table) => v.embedding(indices.ids, table), [{ shape: [5, 3] }])
})

t.test('attention has right gradients over ragged sequences', async (t) => {
  const offsets = ints([0, 3, 3, 7, 8])
  for (const dropout of [null, site(2, 0.3)]) {
    const what = dropout === null ? 'no dropout' : 'dropout'
    checkGradients(
      t,
      `packed in two axes, ${what}`,
      (qkv) => v.attention(qkv, offsets, { heads: 2, dropout, longest: 4 }),
      [{ shape: [8, 3 * 2 * 4] }],
    )
    checkGradients(t, `four axes, ${what}`, (qkv) => v.attention(qkv, offsets, { dropout }), [
      { shape: [8, 3, 2, 4] },
    ])
  }
})

t.test('attention is softmax(q kᵀ / √size) v in each sequence', async (t) => {
  const bounds = [0, 3, 7]
  const qkv = v.normal([7, 3, 2, 4], { device, from: { state: random.tensor, site: 30 } })
  const whole = v.attention(qkv, ints(bounds))
  for (let sequence = 0; sequence < 2; sequence++) {
    const [start, end] = [bounds[sequence]!, bounds[sequence + 1]!]
    const part = qkv.narrow(0, start, end - start).permute([1, 2, 0, 3])
    const [q, k, values] = [0, 1, 2].map((i) => part.narrow(0, i, 1).squeeze(0)) as [
      v.Tensor,
      v.Tensor,
      v.Tensor,
    ]
    const expected = q.matmul(k.transpose()).mul(0.5).softmax().matmul(values).permute([1, 0, 2])
    close(t, whole.narrow(0, start, end - start), expected.dataSync(), 1e-5, `sequence ${sequence}`)
  }
})

t.test('the vocabulary head gives loss, gradient, predictions, counts and samples', async (t) => {
  const targets = ints([1, -100, 3, 0])
  checkGradients(t, 'loss', (x) => v.vocabularyCrossEntropy(x, targets).loss, [
    { shape: [4, 5], low: -2, high: 2 },
  ])
  const logits = v.tensor(
    [
      [0, 9, 0, 0, 0],
      [1, 0, 0, 0, 0],
      [9, 0, 0, 0, 0],
      [9, 0, 0, 0, 0],
    ],
    { device },
  )
  const output = v.vocabularyCrossEntropy(logits, targets, {
    sampling: { state: random.tensor, site: 8, temperature: 0.1 },
  })
  t.same(output.loss.shape, [], 'the loss is a scalar')
  t.same(
    (output.predictions.toArray() as number[]).filter((_, i) => i !== 1),
    [1, 0, 0],
  )
  t.same(output.counts.toArray(), [3, 2])
  t.same(output.samples?.toArray(), [1, -1, 0, 0], 'a low temperature samples the largest')
  const others = v.vocabularyCrossEntropy(logits, targets, {
    sampling: { state: random.tensor, site: 8, temperature: 0.1, disallowTarget: true },
  })
  const samples = others.samples?.toArray() as number[]
  t.ok(samples[0] !== 1 && samples[3] !== 0, 'disallowTarget never draws the target')
  const reference = v.logSoftmax(logits).neg().dataSync()
  const expected = ((reference[1] as number) + (reference[13] as number) + (reference[15] as number)) / 3
  close(t, output.loss, [expected], 1e-5, 'mean over counted rows')
})

t.test('the vocabulary head in tiles gives what all logits at once give', async (t) => {
  const targets = ints([1, -100, 12, 0, 7])
  for (const tile of [4, 8, 16])
    checkGradients(
      t,
      `loss in tiles of ${tile}`,
      (x, w, b) => v.vocabularyHead(x, w, b, targets, { tile }).loss,
      [{ shape: [5, 6] }, { shape: [13, 6] }, { shape: [13] }],
    )
  const draw = (site: number) => ({ device, from: { state: random.tensor, site } })
  const x = v.normal([5, 6], draw(41))
  const w = v.normal([13, 6], draw(42))
  const b = v.normal([13], draw(43))
  for (const temperature of [1, 0.5]) {
    const sampling = { state: random.tensor, site: 8, temperature, disallowTarget: temperature < 1 }
    const whole = v.vocabularyCrossEntropy(v.linear(x, w, b), targets, { sampling })
    for (const tile of [4, 8, 16, undefined]) {
      const tiled = v.vocabularyHead(x, w, b, targets, { sampling, tile })
      close(t, tiled.loss, [whole.loss.item()], 1e-6, `loss in tiles of ${tile}`)
      for (const what of ['predictions', 'counts', 'samples'] as const)
        t.same(tiled[what]?.toArray(), whole[what]?.toArray(), `${what} in tiles of ${tile}`)
    }
  }
  for (const tile of [0, 6, 2.5, Number.NaN])
    t.throws(() => v.vocabularyHead(x, w, b, targets, { tile }), { code: 'ERR_ARGUMENT' })
  t.throws(() => v.vocabularyHead(x, w, v.zeros([12], { device }), targets), { code: 'ERR_SHAPE' })
})

t.test('the discriminator head gives loss, gradients, logits and metrics', async (t) => {
  const labels = ints([1, 0, -100, 1])
  checkGradients(t, 'loss', (x, w, b) => v.discriminatorLoss(x, w, b, labels).loss, [
    { shape: [4, 6] },
    { shape: [1, 6] },
    { shape: [1] },
  ])
  const metrics = v.zeros([v.discriminatorMetricsSize], { device, dtype: 'int32' })
  const hidden = v.tensor([[2], [3], [1], [-1]], { device })
  const weight = v.ones([1, 1], { device })
  const output = v.discriminatorLoss(hidden, weight, v.zeros([1], { device }), labels, { metrics })
  t.same(output.logits.toArray(), [2, 3, 1, -1])
  t.same(output.valid.toArray(), [3])
  t.same(
    [...metrics.dataSync().slice(0, 4)],
    [1, 1, 0, 1],
    'one true and one false positive, one false negative',
  )
  t.equal(metrics.to('float32').sum().item(), 6, 'three decisions and three logits in the histograms')
})

t.test('cross-entropy over the tokens of ragged sequences has right gradients', async (t) => {
  const offsets = ints([0, 3, 5, 9])
  const targets = ints([2, -100, 0])
  checkGradients(t, 'loss', (x) => v.raggedCrossEntropy(x, offsets, targets), [
    { shape: [9], low: -2, high: 2 },
  ])
  const logits = v.normal([9], { device, from: { state: random.tensor, site: 40 } })
  const first = v.logSoftmax(logits.narrow(0, 0, 3)).dataSync()[2] as number
  const last = v.logSoftmax(logits.narrow(0, 5, 4)).dataSync()[0] as number
  close(
    t,
    v.raggedCrossEntropy(logits, offsets, targets),
    [-(first + last) / 2],
    1e-5,
    'mean over counted sequences',
  )
})

t.test('corruption masks, replaces and labels', async (t) => {
  const ids = ints([2, 10, 11, 12, 13, 3, 2, 14, 15, 3])
  const mask = v.corruptMask(ids, ints([0, 6, 10]), {
    state: random.tensor,
    site: 50,
    capacity: 6,
    probability: 0.5,
    replaceProbability: 1,
    cls: 2,
    sep: 3,
    mask: 4,
  })
  const count = mask.count.item()
  const positions = (mask.positions.toArray() as number[]).slice(0, count)
  t.equal(count, 5, 'half of six and of four tokens')
  t.same(
    positions,
    [...positions].sort((a, b) => a - b),
    'positions ascend',
  )
  const original = ids.toArray() as number[]
  const masked = mask.masked.toArray() as number[]
  t.ok(
    positions.every((at) => masked[at] === 4 && original[at]! > 3),
    'only ordinary tokens are masked',
  )
  t.same(
    (mask.targets.toArray() as number[]).slice(0, count),
    positions.map((at) => original[at]),
  )
  const samples = ints([99, original[positions[1]!]!, 99, 99, 99, 0])
  const { replaced, labels } = v.corruptReplace(ids, mask.positions, samples, mask.count)
  t.equal((replaced.toArray() as number[])[positions[0]!], 99)
  t.equal(
    (labels.toArray() as number[])[positions[1]!],
    0,
    'a sample equal to the original counts as original',
  )
  t.equal((labels.toArray() as number[]).filter((label) => label === 1).length, 4)
})

t.test('bfloat16 uses working copies, and gives float32 gradients close to float32 ones', async (t) => {
  const next = randomNumbers(5)
  const make = (): Parameter[] =>
    [[16, 8], [16], [8, 16], [8], [8], [8]].map((shape) => new Parameter(shape, { device }))
  const values = make().map((parameter) => Float32Array.from({ length: parameter.size }, next))
  const gradients = (dtype: 'float32' | 'bfloat16'): Float32Array[] => {
    const parameters = make()
    const arena = new ParameterArena(parameters, { workingCopy: dtype === 'bfloat16' })
    parameters.forEach((parameter, i) => {
      parameter.assign(values[i]!)
    })
    const [w, b, w2, b2, scale, shift] = parameters as [
      Parameter,
      Parameter,
      Parameter,
      Parameter,
      Parameter,
      Parameter,
    ]
    const x = v.arange(0, 40, 1, { device }).reshape([5, 8]).mul(0.05).to(dtype)
    const hidden = v.linear(x, w, b, { activation: 'gelu' })
    const y = v.dropoutResidualLayerNorm(v.linear(hidden, w2, b2), x, scale, shift)
    t.equal(y.dtype, dtype, 'activations keep their dtype')
    const logits = v.linear(y, w2.value.transpose(), null, { outputDtype: 'float32' })
    const { loss } = v.vocabularyCrossEntropy(logits, ints([1, 2, 3, 4, 5]), { gradientDtype: dtype })
    loss.backward()
    t.ok(
      parameters.every((parameter) => parameter.grad.dtype === 'float32'),
      'gradients are float32',
    )
    const found = parameters.map((parameter) => Float32Array.from(parameter.grad.dataSync()))
    arena.dispose()
    return found
  }
  const exact = gradients('float32')
  const rounded = gradients('bfloat16')
  exact.forEach((reference, i) => {
    const size = Math.hypot(...reference)
    const off = Math.hypot(...reference.map((value, j) => value - rounded[i]![j]!))
    // Each of some ten roundings errs by up to 2^-9; their errors add up like a random walk.
    t.ok(off <= 0.03 * size, `gradient ${i} is off by ${(off / size).toExponential(2)} of its norm`)
  })
})
