/** Results of the general ops against NumPy's rules written out in plain loops. */
import t from 'tap'
import * as v from '../../dist/tensor/index.js'
import { close, device, product, randomNumbers } from './gradient-check.js'

t.test('tensors are made from numbers, nested arrays, typed arrays and bytes', async (t) => {
  t.same(v.tensor(3, { device }).shape, [])
  t.same(
    v
      .tensor(
        [
          [1, 2],
          [3, 4],
        ],
        { device },
      )
      .toArray(),
    [
      [1, 2],
      [3, 4],
    ],
  )
  t.same(v.tensor([[], []], { device }).shape, [2, 0])
  const ints = v.tensor(Int32Array.of(1, -2, 3, 4), { device, shape: [2, -1] })
  t.same(
    [ints.dtype, ints.shape, ints.toArray()],
    [
      'int32',
      [2, 2],
      [
        [1, -2],
        [3, 4],
      ],
    ],
  )
  t.same(v.tensor(Uint8Array.of(1, 0), { device, dtype: 'float32' }).toArray(), [1, 0])
  t.same(
    v.tensor([1.00390625, 300.5], { device, dtype: 'bfloat16' }).toArray(),
    [1, 300],
    'rounds to nearest even',
  )
  t.same(v.tensor(Uint16Array.of(0x3f80, 0xc000), { device }).toArray(), [1, -2], 'bfloat16 bits')
  t.same(v.fromBuffer(Uint8Array.of(0, 0, 128, 63, 0, 0, 0, 192), [2], { device }).toArray(), [1, -2])
  t.throws(() => v.fromBuffer(new Uint8Array(7), [2], { device }), {
    code: 'ERR_SHAPE',
    message: /expected 8/,
  })
  t.same(v.arange(3, undefined, 1, { device }).toArray(), [0, 1, 2])
  t.same(v.arange(5, 0, -2, { device, dtype: 'int32' }).toArray(), [5, 3, 1])
  t.same(v.full([2], 7, { device, dtype: 'uint8' }).toArray(), [7, 7])
  t.same(v.zeros([2, 0, 3], { device }).add(1).toArray(), [[], []])
  t.same([...(await v.ones([2], { device }).data())], [1, 1])
})

t.test('binary ops broadcast as NumPy does', async (t) => {
  const next = randomNumbers(3, 0.5, 2)
  const shapes: readonly (readonly [readonly number[], readonly number[]])[] = [
    [[2, 3], [3]],
    [[4, 1], [3]],
    [[], [2, 2]],
    [
      [2, 1, 3],
      [1, 5, 1],
    ],
    [
      [7, 1, 2, 1],
      [3, 1, 4],
    ],
    [
      [0, 3],
      [1, 3],
    ],
  ]
  const ops: readonly (readonly [
    keyof v.Tensor & ('add' | 'sub' | 'mul' | 'div' | 'pow' | 'maximum' | 'minimum'),
    (a: number, b: number) => number,
  ])[] = [
    ['add', (a, b) => a + b],
    ['sub', (a, b) => a - b],
    ['mul', (a, b) => a * b],
    ['div', (a, b) => a / b],
    ['pow', (a, b) => a ** b],
    ['maximum', Math.max],
    ['minimum', Math.min],
  ]
  for (const [shapeA, shapeB] of shapes) {
    const a = Float32Array.from({ length: product(shapeA) }, next)
    const b = Float32Array.from({ length: product(shapeB) }, next)
    const rank = Math.max(shapeA.length, shapeB.length)
    const dimension = (shape: readonly number[], axis: number): number =>
      shape[axis - rank + shape.length] ?? 1
    const shape = Array.from({ length: rank }, (_, axis) =>
      dimension(shapeA, axis) === 1 ? dimension(shapeB, axis) : dimension(shapeA, axis),
    )
    const at = (from: readonly number[], flat: number): number => {
      let [rest, index, stride] = [flat, 0, 1]
      for (let axis = rank - 1; axis >= 0; axis--) {
        const place = rest % shape[axis]!
        rest = Math.floor(rest / shape[axis]!)
        if (dimension(from, axis) > 1) index += place * stride
        stride *= dimension(from, axis)
      }
      return index
    }
    for (const [op, reference] of ops) {
      const result = v.tensor(a, { device, shape: shapeA })[op](v.tensor(b, { device, shape: shapeB }))
      t.same(result.shape, shape, `${op} [${shapeA}] [${shapeB}]`)
      const expected = Array.from({ length: product(shape) }, (_, i) =>
        reference(a[at(shapeA, i)]!, b[at(shapeB, i)]!),
      )
      close(t, result, expected, 1e-5, `${op} [${shapeA}] [${shapeB}]`)
    }
  }
})

t.test('comparisons, where and casts', async (t) => {
  const a = v.tensor([1, 2, 3], { device })
  const b = v.tensor([2, 2, 2], { device })
  t.same(a.equal(b).toArray(), [0, 1, 0])
  t.same(a.notEqual(2).toArray(), [1, 0, 1])
  t.same(a.less(b).toArray(), [1, 0, 0])
  t.same(a.lessEqual(b).toArray(), [1, 1, 0])
  t.same(v.greater(2, a).toArray(), [1, 0, 0])
  t.same(a.greaterEqual(b).toArray(), [0, 1, 1])
  t.same(v.where(a.less(b), -1, a).toArray(), [-1, 2, 3])
  t.same(v.tensor([1, 2], { device, dtype: 'int32' }).add(3).toArray(), [4, 5], 'integers take numbers too')
  t.same(v.tensor([1.7, -1.7], { device }).to('int32').toArray(), [1, -1])
})

t.test('matmul follows NumPy for every pair of ranks', async (t) => {
  const next = randomNumbers(9)
  const shapes: readonly (readonly [readonly number[], readonly number[], readonly number[]])[] = [
    [[3], [3], []],
    [[3], [3, 2], [2]],
    [[2, 3], [3], [2]],
    [
      [2, 3],
      [3, 4],
      [2, 4],
    ],
    [
      [5, 2, 3],
      [3, 4],
      [5, 2, 4],
    ],
    [
      [2, 3],
      [5, 3, 4],
      [5, 2, 4],
    ],
    [
      [5, 1, 2, 3],
      [4, 3, 2],
      [5, 4, 2, 2],
    ],
    [
      [2, 0],
      [0, 3],
      [2, 3],
    ],
    [
      [0, 2],
      [2, 3],
      [0, 3],
    ],
  ]
  for (const [shapeA, shapeB, shape] of shapes) {
    const a = Float32Array.from({ length: product(shapeA) }, next)
    const b = Float32Array.from({ length: product(shapeB) }, next)
    const result = v.tensor(a, { device, shape: shapeA }).matmul(v.tensor(b, { device, shape: shapeB }))
    t.same(result.shape, shape, `[${shapeA}] [${shapeB}]`)
    const full = (given: readonly number[], column: boolean): readonly number[] =>
      given.length > 1 ? given : column ? [given[0]!, 1] : [1, given[0]!]
    const [sa, sb] = [full(shapeA, false), full(shapeB, true)]
    const [m, k, n] = [sa.at(-2)!, sa.at(-1)!, sb.at(-1)!]
    const [batchA, batchB] = [sa.slice(0, -2), sb.slice(0, -2)]
    const batch = shape.slice(0, Math.max(batchA.length, batchB.length))
    const item = (own: readonly number[], flat: number): number => {
      let [rest, index, stride] = [flat, 0, 1]
      for (let i = 1; i <= batch.length; i++) {
        const size = batch[batch.length - i]!
        const mine = own[own.length - i] ?? 1
        if (mine > 1) index += (rest % size) * stride
        stride *= mine
        rest = Math.floor(rest / size)
      }
      return index
    }
    const expected: number[] = []
    for (let index = 0; index < product(batch); index++)
      for (let row = 0; row < m; row++)
        for (let column = 0; column < n; column++) {
          let sum = 0
          for (let inner = 0; inner < k; inner++)
            sum +=
              a[(item(batchA, index) * m + row) * k + inner]! *
              b[(item(batchB, index) * k + inner) * n + column]!
          expected.push(sum)
        }
    close(t, result, expected, 1e-5, `[${shapeA}] [${shapeB}]`)
  }
})

t.test('reductions, argmax', async (t) => {
  const x = v.tensor(
    [
      [
        [1, 5],
        [3, 2],
      ],
      [
        [7, 0],
        [4, 4],
      ],
    ],
    { device },
  )
  t.equal(x.sum().item(), 26)
  t.same(x.sum(0).toArray(), [
    [8, 5],
    [7, 6],
  ])
  t.same(x.sum([0, 2]).toArray(), [13, 13])
  t.same(x.sum([0, 2], true).shape, [1, 2, 1])
  t.same(x.mean(-1).toArray(), [
    [3, 2.5],
    [3.5, 4],
  ])
  t.same(x.max(1).toArray(), [
    [3, 5],
    [7, 4],
  ])
  t.same(x.argmax().toArray(), [
    [1, 0],
    [0, 0],
  ])
  t.same(x.argmax(0).toArray(), [
    [1, 0],
    [1, 1],
  ])
  t.throws(() => v.zeros([2, 0], { device }).max(1), { code: 'ERR_SHAPE' })
  t.same(v.zeros([2, 0], { device }).sum(1).toArray(), [0, 0])
})

t.test('shapes change and parts are taken as in NumPy', async (t) => {
  const x = v.arange(24, undefined, 1, { device }).reshape([2, 3, 4])
  t.same(x.reshape([-1, 8]).shape, [3, 8])
  t.same(x.view([4, 6]).shape, [4, 6])
  t.same(x.flatten(1).shape, [2, 12])
  t.same(x.unsqueeze(0).unsqueeze(-1).shape, [1, 2, 3, 4, 1])
  t.same(x.unsqueeze(0).squeeze().shape, [2, 3, 4])
  t.throws(() => x.squeeze(1), { code: 'ERR_SHAPE' })
  t.same(x.permute([2, 0, 1]).slice([1, 2]).toArray(), [
    [
      [1, 5, 9],
      [13, 17, 21],
    ],
  ])
  t.same(x.transpose().shape, [2, 4, 3])
  t.same(x.slice([1], [0, -1], [-2]).toArray(), [
    [
      [14, 15],
      [18, 19],
    ],
  ])
  t.same(x.narrow(2, 1, 1).squeeze(2).toArray(), [
    [1, 5, 9],
    [13, 17, 21],
  ])
  const a = v.tensor([[1, 2]], { device })
  t.same(v.concat([a, a.add(2)], 0).toArray(), [
    [1, 2],
    [3, 4],
  ])
  t.same(v.concat([a, a.add(2)], -1).toArray(), [[1, 2, 3, 4]])
  t.same(v.stack([a, a.add(2)], 1).toArray(), [
    [
      [1, 2],
      [3, 4],
    ],
  ])
  t.same(v.stack([a, a.add(2)], -1).toArray(), [
    [
      [1, 3],
      [2, 4],
    ],
  ])
  const index = v.tensor([[2, 0]], { device, dtype: 'int32' })
  t.same(x.indexSelect(index, 1).shape, [2, 1, 2, 4])
  t.same(x.indexSelect(index, 1).slice([1, 2]).toArray(), [
    [
      [
        [20, 21, 22, 23],
        [12, 13, 14, 15],
      ],
    ],
  ])
  const offsets = v.tensor([0, 2, 3], { device, dtype: 'int32' })
  t.same(v.firstTokens(v.tensor([[1], [2], [3]], { device }), offsets).toArray(), [[1], [3]])
})

t.test('random numbers follow from the seed alone', async (t) => {
  const draw = (): unknown[] => {
    v.setSeed(5)
    return [
      v.uniform([9], { device, low: -1, high: 1 }).toArray(),
      v.normal([9], { device }).toArray(),
      v.truncatedNormal([9], { device }).toArray(),
      v.bernoulli([9], { device }).toArray(),
      v.permutation(9, { device }).toArray(),
    ]
  }
  const first = draw()
  t.same(draw(), first)
  t.same([...(first[4] as number[])].sort(), [0, 1, 2, 3, 4, 5, 6, 7, 8])
  const one = new v.Generator(8)
  const two = new v.Generator(8n)
  t.same(v.uniform([4], { device, from: one }).toArray(), v.uniform([4], { device, from: two }).toArray())
  t.notSame(
    v.uniform([4], { device, from: one }).toArray(),
    v.uniform([4], { device, from: new v.Generator(8) }).toArray(),
  )
  t.ok((v.truncatedNormal([500], { device }).toArray() as number[]).every((each) => Math.abs(each) <= 2))
  t.throws(() => v.setSeed(-1), { code: 'ERR_ARGUMENT' })
  t.throws(() => v.setSeed(0.5), { code: 'ERR_ARGUMENT' })
})
