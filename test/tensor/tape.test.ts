/** The tape: accumulation, sharing, repeated use, errors. */
import t from 'tap'
import * as v from '../../dist/tensor/index.js'
import { device } from './gradient-check.js'

const leaf = (values: v.NestedArray): v.Tensor => v.tensor(values, { device, requiresGrad: true })

t.test('gradients accumulate over uses and over calls of backward', async (t) => {
  const x = leaf([1, 2])
  x.mul(3).add(x).sum().backward()
  t.same(x.grad.toArray(), [4, 4])
  x.sum().backward()
  t.same(x.grad.toArray(), [5, 5])
  x.zeroGrad()
  t.notOk(x.hasGrad)
  x.sum().backward()
  t.same(x.grad.toArray(), [1, 1])
})

t.test('a diamond passes each gradient once, when it is complete', async (t) => {
  const x = leaf([2])
  const a = x.mul(3)
  const b = a.mul(a)
  a.add(b).sum().backward()
  t.same(x.grad.toArray(), [3 + 2 * 6 * 3])
})

t.test('a gradient that two inputs share is never written to', async (t) => {
  const a = leaf([1, 2])
  const b = leaf([[3], [4]])
  // add hands one gradient to `first` and, through a view of it, to `second`, whose other gradient must not reach first's.
  const first = a.mul(1)
  const second = b.mul(1)
  const other = second.mul(10)
  const sum = first.add(second.reshape([2]))
  sum
    .add(other.reshape([2]))
    .sum()
    .backward()
  t.same(a.grad.toArray(), [1, 1])
  t.same(b.grad.toArray(), [[11], [11]])
  const c = leaf([1, 2])
  const d = c.mul(1)
  d.add(d).sum().backward()
  t.same(c.grad.toArray(), [2, 2])
  const seed = v.tensor([1, 1], { device })
  const e = leaf([1, 2])
  e.backward(seed)
  e.backward(seed)
  t.same(seed.toArray(), [1, 1], "backward's own gradient argument stays as it is")
  t.same(e.grad.toArray(), [2, 2])
})

t.test('backward takes a gradient, and needs one for tensors of several elements', async (t) => {
  const x = leaf([
    [1, 2],
    [3, 4],
  ])
  t.throws(() => x.mul(2).backward(), { code: 'ERR_GRADIENT', message: /one element/ })
  x.mul(2).backward(
    v.tensor(
      [
        [1, 0],
        [0, -1],
      ],
      { device },
    ),
  )
  t.same(x.grad.toArray(), [
    [2, 0],
    [0, -2],
  ])
  t.throws(() => x.mul(2).backward(v.ones([2], { device })), { code: 'ERR_SHAPE' })
  t.throws(() => x.mul(2).backward(v.ones([2, 2], { device, dtype: 'int32' })), { code: 'ERR_DTYPE' })
})

t.test('a tape is used once, unless it is kept', async (t) => {
  const x = leaf([1, 2])
  const once = x.exp().sum()
  once.backward()
  t.throws(() => once.backward(), { code: 'ERR_GRADIENT', message: /retainGraph/ })
  const branch = x.exp()
  branch.sum().backward()
  t.throws(
    () => branch.mul(2).sum().backward(),
    { code: 'ERR_GRADIENT', message: /exp/ },
    'a part used up, too',
  )
  x.zeroGrad()
  const kept = x.mul(x).sum()
  kept.backward(null, { retainGraph: true })
  kept.backward()
  t.same(x.grad.toArray(), [4, 8])
})

t.test('asking for a gradient that does not exist throws', async (t) => {
  const plain = v.tensor([1, 2], { device })
  t.throws(() => plain.grad, { code: 'ERR_GRADIENT', message: /requiresGrad: true/ })
  t.throws(() => plain.sum().backward(), { code: 'ERR_GRADIENT', message: /depends on nothing/ })
  const x = leaf([1, 2])
  t.throws(() => x.grad, { code: 'ERR_GRADIENT', message: /no backward/ })
  const y = x.mul(2)
  y.sum().backward()
  t.throws(() => y.grad, { code: 'ERR_GRADIENT', message: /retainGrad/ })
  t.throws(() => x.argmax().backward(), { code: 'ERR_GRADIENT' }, 'argmax ends the tape')
  t.notOk(x.greater(0).requiresGrad, 'comparisons end the tape')
  t.notOk(x.to('int32').requiresGrad, 'integer casts end the tape')
  t.notOk(x.detach().requiresGrad)
  t.throws(() => v.tensor([1], { device, dtype: 'int32', requiresGrad: true }), { code: 'ERR_GRADIENT' })
})

t.test('a kept intermediate gradient can be read', async (t) => {
  const x = leaf([1, 2])
  const y = x.mul(3).retainGrad()
  y.mul(y).sum().backward()
  t.same(y.grad.toArray(), [6, 12])
})

t.test('noGrad records nothing and refuses async functions', async (t) => {
  const x = leaf([1, 2])
  const y = v.noGrad(() => x.mul(2))
  t.notOk(y.requiresGrad)
  t.throws(
    () =>
      v.noGrad(() => {
        throw new Error('inside')
      }),
    /inside/,
  )
  t.ok(x.mul(2).requiresGrad, 'recording goes on afterwards, also after an error')
  t.throws(() => v.noGrad(async () => x.mul(2)), { code: 'ERR_ARGUMENT' })
  t.same([...(await v.noGrad(() => x.mul(2).data()))], [2, 4], 'a promise of data may leave')
})

t.test('disposing inputs and results does not break backward', async (t) => {
  const x = leaf([1, 2])
  const a = x.mul(2)
  const b = a.mul(a)
  const loss = b.sum()
  a.dispose()
  b.dispose()
  loss.backward()
  t.same(x.grad.toArray(), [8, 16])
})

t.test('gradients of bfloat16 tensors are float32 at leaves', async (t) => {
  const x = v.tensor([1, 2], { device, dtype: 'bfloat16', requiresGrad: true })
  x.mul(x).sum().backward()
  t.equal(x.grad.dtype, 'float32')
  t.same(x.grad.toArray(), [2, 4])
  const y = leaf([1, 2])
  y.to('bfloat16').mul(3).to('float32').sum().backward()
  t.same(y.grad.toArray(), [3, 3])
})

t.test('wrong arguments throw where they are given, and say what was expected', async (t) => {
  const x = leaf([[1, 2, 3]])
  t.throws(() => x.add(v.ones([2], { device })), { code: 'ERR_SHAPE', message: /add.*\[1, 3\].*\[2\]/ })
  t.throws(() => x.add(v.ones([3], { device, dtype: 'bfloat16' })), {
    code: 'ERR_DTYPE',
    message: /to\('float32'\)/,
  })
  t.throws(() => x.matmul(x), { code: 'ERR_SHAPE', message: /matmul/ })
  t.throws(() => x.reshape([2, 2]), { code: 'ERR_SHAPE', message: /reshape/ })
  t.throws(() => x.sum(2), { code: 'ERR_ARGUMENT', message: /axis 2/ })
  t.throws(() => x.sum([0, 0]), { code: 'ERR_ARGUMENT', message: /twice/ })
  t.throws(() => x.permute([0, 0]), { code: 'ERR_ARGUMENT' })
  t.throws(() => x.narrow(1, 2, 2), { code: 'ERR_ARGUMENT' })
  t.throws(() => v.concat([]), { code: 'ERR_ARGUMENT' })
  t.throws(() => v.tensor([[1, 2], [3]], { device }), { code: 'ERR_SHAPE', message: /different lengths/ })
  t.throws(() => v.linear(x, v.ones([4, 2], { device })), { code: 'ERR_SHAPE', message: /linear/ })
  t.throws(() => v.exp(v.ones([2], { device, dtype: 'int32' })), { code: 'ERR_DTYPE' })
  t.throws(() => v.dropout(x, 1), { code: 'ERR_ARGUMENT', message: /probability/ })
  t.throws(() => v.ones([1, 1, 1, 1, 1, 1, 1], { device }), { code: 'ERR_SHAPE' })
  t.throws(() => x.assign(new Float32Array(3)), { code: 'ERR_GRADIENT' })
  t.throws(() => x.item(), { code: 'ERR_SHAPE' })
  x.dispose()
  t.throws(() => x.add(1), { code: 'ERR_DISPOSED', message: /scope/ })
})

t.test('an index out of range is reported when the result is read', async (t) => {
  const rows = v.ones([3, 2], { device }).indexSelect(v.tensor([0, 3], { device, dtype: 'int32' }))
  await t.rejects(rows.data(), { code: 'ERR_ARGUMENT', message: /gather_rows/ })
})

t.test('a tape of a hundred thousand ops unwinds without recursion', async (t) => {
  const x = leaf([1])
  const deep = (): v.Tensor => {
    let y = x.add(0)
    for (let i = 0; i < 100_000; i++) {
      const next = y.add(0)
      y.dispose()
      y = next
    }
    return y
  }
  deep().dispose()
  deep().backward()
  t.same(x.grad.toArray(), [1])
})
