/** Gradients of the general ops against central differences. */
import t from 'tap'
import * as v from '../../dist/tensor/index.js'
import { checkGradients, device } from './gradient-check.js'

const pairs: readonly (readonly [readonly number[], readonly number[]])[] = [
  [
    [2, 3],
    [2, 3],
  ],
  [[2, 3], [3]],
  [
    [2, 1, 3],
    [4, 1],
  ],
  [[], [2, 2]],
  [[1, 1], [3]],
]

t.test('binary ops have right gradients, broadcast or not', async (t) => {
  for (const [a, b] of pairs) {
    const shapes = `[${a}] and [${b}]`
    const inputs = [{ shape: a }, { shape: b, low: 0.6, high: 1.6 }]
    checkGradients(t, `add ${shapes}`, v.add, inputs)
    checkGradients(t, `sub ${shapes}`, v.sub, inputs)
    checkGradients(t, `mul ${shapes}`, v.mul, inputs)
    checkGradients(t, `div ${shapes}`, v.div, inputs)
    checkGradients(t, `pow ${shapes}`, v.pow, [
      { shape: a, low: 0.6, high: 1.6 },
      { shape: b, low: 1, high: 3 },
    ])
    // Apart by more than the step of the differences, so that no kink lies between.
    const apart = [
      { shape: a, values: spread(a, 0) },
      { shape: b, values: spread(b, 0.05) },
    ]
    checkGradients(t, `maximum ${shapes}`, v.maximum, apart)
    checkGradients(t, `minimum ${shapes}`, v.minimum, apart)
    const condition = v.tensor([1, 0, 1], { device, dtype: 'uint8' })
    if (a.at(-1) === 3 && b.at(-1) === 3) {
      checkGradients(t, `where ${shapes}`, (x, y) => v.where(condition, x, y), inputs)
    }
  }
})

function spread(shape: readonly number[], shift: number): number[] {
  const size = shape.reduce((product, dimension) => product * dimension, 1)
  return Array.from({ length: size }, (_, i) => ((i * 7) % 5) * 0.1 + shift - 0.2)
}

t.test('ops with numbers have right gradients', async (t) => {
  const inputs = [{ shape: [5], low: 0.5, high: 2 }]
  checkGradients(t, 'x + 2', (x) => x.add(2), inputs)
  checkGradients(t, '2 - x', (x) => v.sub(2, x), inputs)
  checkGradients(t, 'x - 2', (x) => x.sub(2), inputs)
  checkGradients(t, 'x * -3', (x) => x.mul(-3), inputs)
  checkGradients(t, '3 / x', (x) => v.div(3, x), inputs)
  checkGradients(t, 'x / 3', (x) => x.div(3), inputs)
  checkGradients(t, 'x ^ 3', (x) => x.pow(3), inputs, { tolerance: 2e-3 })
  checkGradients(t, '2 ^ x', (x) => v.pow(2, x), inputs)
})

t.test('powers at 0 have finite gradients', async (t) => {
  const base = v.tensor([0, 2], { device, requiresGrad: true })
  const exponent = v.tensor([0, 0], { device, requiresGrad: true })
  base.pow(exponent).sum().backward()
  t.same(base.grad.toArray(), [0, 0])
  t.same((exponent.grad.toArray() as number[])[0], 0)
  t.ok(Math.abs((exponent.grad.toArray() as number[])[1]! - Math.LN2) < 1e-6)
})

t.test('unary ops have right gradients', async (t) => {
  const any = [{ shape: [3, 4], low: -2, high: 2 }]
  const positive = [{ shape: [3, 4], low: 0.5, high: 2 }]
  const awayFromZero = [{ shape: [6], values: [-2, -1, -0.1, 0.1, 1, 2] }]
  checkGradients(t, 'neg', v.neg, any)
  checkGradients(t, 'exp', v.exp, any)
  checkGradients(t, 'log', v.log, positive)
  checkGradients(t, 'sqrt', v.sqrt, positive)
  checkGradients(t, 'abs', v.abs, awayFromZero)
  checkGradients(t, 'relu', v.relu, awayFromZero)
  checkGradients(t, 'gelu', v.gelu, any)
  checkGradients(t, 'geluTanh', v.geluTanh, any)
  checkGradients(t, 'tanh', v.tanh, any)
  checkGradients(t, 'sigmoid', v.sigmoid, any)
  checkGradients(t, 'clone', v.clone, any)
  checkGradients(t, 'cast to the same dtype', (x) => v.cast(x, 'float32'), any)
})

t.test('reductions have right gradients', async (t) => {
  const shape = [2, 3, 4]
  const distinct = Array.from({ length: 24 }, (_, i) => ((i * 7) % 24) * 0.1)
  for (const axes of [undefined, 0, 1, -1, [0, 2], [0, 1, 2]]) {
    for (const keepDims of [false, true]) {
      const options = { axes, keepDims }
      const name = `over ${JSON.stringify(axes)}, keepDims ${keepDims}`
      checkGradients(t, `sum ${name}`, (x) => v.sum(x, options), [{ shape }])
      checkGradients(t, `mean ${name}`, (x) => v.mean(x, options), [{ shape }])
      checkGradients(t, `max ${name}`, (x) => v.max(x, options), [{ shape, values: distinct }])
    }
  }
  const ties = v.tensor([[1, 3, 3]], { device, requiresGrad: true })
  ties.max(1).sum().backward()
  t.same(ties.grad.toArray(), [[0, 0.5, 0.5]], 'equal maxima share the gradient')
})

t.test('moving data has right gradients', async (t) => {
  const x = [{ shape: [2, 3, 4] }]
  checkGradients(t, 'reshape', (a) => a.reshape([4, -1]), x)
  checkGradients(t, 'flatten', (a) => a.flatten(1), x)
  checkGradients(t, 'unsqueeze and squeeze', (a) => a.unsqueeze(1).squeeze(1), x)
  checkGradients(t, 'permute', (a) => a.permute([2, 0, 1]).mul(a.permute([2, 0, 1])), x)
  checkGradients(t, 'transpose', (a) => a.transpose(0, 2), x)
  checkGradients(t, 'narrow on axis 0', (a) => a.narrow(0, 1, 1), x)
  checkGradients(t, 'narrow on axis 1', (a) => a.narrow(1, 1, 2), x)
  checkGradients(t, 'slice', (a) => a.slice([0, 1], null, [1, -1]), x)
  checkGradients(t, 'broadcastTo', (a) => a.broadcastTo([2, 2, 3]), [{ shape: [2, 1, 3] }])
  const two = [{ shape: [2, 3] }, { shape: [2, 2] }]
  checkGradients(t, 'concat on axis 1', (a, b) => v.concat([a, b, a], 1), two)
  checkGradients(t, 'concat on axis 0', (a, b) => v.concat([a, b]), [{ shape: [2, 3] }, { shape: [1, 3] }])
  checkGradients(t, 'stack', (a, b) => v.stack([a, b], -1), [{ shape: [2, 3] }, { shape: [2, 3] }])
  const index = v.tensor(
    [
      [2, 0],
      [2, 2],
    ],
    { device, dtype: 'int32' },
  )
  checkGradients(t, 'indexSelect on axis 0', (a) => a.indexSelect(index), [{ shape: [3, 2] }])
  checkGradients(t, 'indexSelect on axis 1', (a) => a.indexSelect(index, 1), [{ shape: [2, 3, 2] }])
})

t.test('matmul has right gradients for every shape NumPy takes', async (t) => {
  const cases: readonly (readonly [readonly number[], readonly number[]])[] = [
    [
      [2, 3],
      [3, 4],
    ],
    [[3], [3]],
    [[3], [3, 2]],
    [[2, 3], [3]],
    [
      [2, 2, 3],
      [3, 2],
    ],
    [
      [2, 3],
      [2, 3, 2],
    ],
    [
      [2, 2, 3],
      [2, 3, 2],
    ],
    [
      [2, 1, 2, 3],
      [3, 3, 1],
    ],
    [
      [1, 2, 3],
      [2, 3, 2],
    ],
    [
      [2, 1, 3],
      [1, 3, 2],
    ],
    [[2, 2, 3], [3]],
  ]
  for (const [a, b] of cases) {
    checkGradients(t, `matmul [${a}] and [${b}]`, v.matmul, [{ shape: a }, { shape: b }])
  }
})

t.test('softmax, LayerNorm and losses have right gradients', async (t) => {
  const x = [{ shape: [3, 4], low: -2, high: 2 }]
  checkGradients(t, 'softmax', (a) => a.softmax(), x)
  checkGradients(t, 'logSoftmax', (a) => a.logSoftmax(), x)
  checkGradients(t, 'softmax along axis 0', (a) => a.softmax(0), x)
  checkGradients(t, 'logSoftmax along axis 1 of 3', (a) => a.logSoftmax(1), [{ shape: [2, 3, 2] }])
  const norm = [{ shape: [2, 2, 5], low: -2, high: 2 }, { shape: [5] }, { shape: [5] }]
  checkGradients(t, 'layerNorm', (a, w, b) => v.layerNorm(a, w, b), norm, { tolerance: 2e-3 })
  const targets = v.tensor([1, -100, 3], { device, dtype: 'int32' })
  checkGradients(t, 'crossEntropy', (a) => v.crossEntropy(a, targets), x)
  const labels = v.tensor([[1, 0, 1, 0.5]], { device }).broadcastTo([3, 4])
  const awayFromZero = [{ shape: [3, 4], values: [-2, -1, -0.1, 0.1, 1, 2, 3, -3, 0.2, -0.2, 0.5, -0.5] }]
  checkGradients(t, 'binary cross-entropy', (a) => v.binaryCrossEntropyWithLogits(a, labels), awayFromZero)
  checkGradients(t, 'mean squared error', (a) => v.meanSquaredError(a, labels), x)
  checkGradients(t, 'mean squared error towards targets', v.meanSquaredError, [
    { shape: [4] },
    { shape: [4] },
  ])
})

t.test('dropout passes gradients through its own mask', async (t) => {
  const random = new v.RandomState(v.zeros([1], { device }).device, { seed: 3 })
  const site = { probability: 0.3, site: 5, state: random.tensor }
  checkGradients(t, 'dropout', (a) => v.dropout(a, site), [{ shape: [4, 8] }])
  v.setSeed(1)
  const x = v.ones([1000], { device, requiresGrad: true })
  const y = v.dropout(x, 0.25)
  y.sum().backward()
  t.same(x.grad.toArray(), y.toArray(), 'the gradient of ones is the mask itself')
  const kept = (y.toArray() as number[]).filter((each) => each > 0)
  t.ok(
    kept.every((each) => Math.abs(each - 4 / 3) < 1e-6),
    'kept elements grow by 1 / (1 - p)',
  )
  t.ok(Math.abs(kept.length - 750) < 60, 'three of four are kept (four standard deviations are 55)')
})
