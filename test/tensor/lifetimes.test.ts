/** Who frees what: dispose, using, scopes, the tape, finalizers. Counted by memoryStats. */
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { memoryStats } from '../../dist/runtime/index.js'
import * as v from '../../dist/tensor/index.js'
import { device } from './gradient-check.js'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

const live = (): number => memoryStats(v.zeros([0], { device }).device).tensors
/** Lets the finalizer free what earlier tests forgot. */
async function settle(): Promise<void> {
  for (let round = 0; round < 5; round++) {
    collect()
    await sleep(2)
  }
}

/** Tensors still alive after `body`, beyond those before. */
function left(body: () => void): number {
  const before = v.scope(live)
  body()
  return v.scope(live) - before
}

t.test('dispose and using free at once', async (t) => {
  t.equal(
    left(() => {
      using a = v.ones([4], { device })
      using b = a.add(1)
      t.same(b.toArray(), [2, 2, 2, 2])
      const c = b.reshape([2, 2])
      c.dispose()
      c.dispose()
      t.ok(c.disposed)
    }),
    0,
  )
})

t.test('a scope frees what was made inside, but for what it returns', async (t) => {
  let kept: v.Tensor | undefined
  t.equal(
    left(() => {
      kept = v.scope(() => v.ones([2], { device }).add(1).mul(3))
    }),
    1,
  )
  t.same(kept?.toArray(), [6, 6])
  kept?.dispose()
  const parts = v.scope(() => {
    const a = v.ones([1], { device })
    return { list: [a, [a.add(1)]], map: new Map([['c', a.add(2)]]), number: 3 }
  })
  t.same((parts.list[0] as v.Tensor).item(), 1)
  t.same((parts.list[1] as v.Tensor[])[0]?.item(), 2)
  t.same(parts.map.get('c')?.item(), 3)
})

t.test('nested scopes hand what they return to the outer one', async (t) => {
  t.equal(
    left(() => {
      v.scope(() => {
        const inner = v.scope(() => v.ones([2], { device }).add(1))
        t.same(inner.toArray(), [2, 2])
        return null
      })
    }),
    0,
  )
})

t.test('a scope frees everything when its function throws, and refuses async functions', async (t) => {
  t.equal(
    left(() => {
      t.throws(
        () =>
          v.scope(() => {
            v.ones([2], { device }).add(1)
            throw new Error('inside')
          }),
        /inside/,
      )
    }),
    0,
  )
  t.throws(() => v.scope(async () => v.ones([2], { device })), {
    code: 'ERR_ARGUMENT',
    message: /TensorScope/,
  })
  const data = await v.scope(() => v.ones([2], { device }).add(1).data())
  t.same([...data], [2, 2], 'a promise of data may leave')
})

t.test('a training step in a scope leaves only the gradient of its leaf', async (t) => {
  const w = v.ones([3, 3], { device, requiresGrad: true })
  const step = (): void =>
    v.scope(() => {
      const x = v.ones([2, 3], { device })
      const hidden = v.linear(x, w, null, { activation: 'gelu' })
      v.linear(hidden, w).exp().mean().backward()
    })
  t.equal(left(step), 1, 'the gradient')
  t.equal(left(step), 0, 'the second step adds to it')
  const forward = (): void =>
    v.scope(() => {
      v.linear(v.ones([2, 3], { device }), w, null, { activation: 'gelu' }).exp()
    })
  t.equal(left(forward), 0, 'a tape without backward is freed with its results')
  t.equal(
    left(() =>
      v
        .linear(v.ones([2, 3], { device }), w)
        .exp()
        .dispose(),
    ),
    2,
    'outside of scopes the intermediate tensors stay until they are collected',
  )
})

t.test('the tape behind a returned tensor lives on', async (t) => {
  const w = v.ones([2], { device, requiresGrad: true })
  const loss = v.scope(() => w.mul(3).exp().sum())
  loss.backward()
  t.ok(Math.abs((w.grad.toArray() as number[])[0]! - 3 * Math.exp(3)) < 1e-3)
  t.equal(
    left(() => {
      v.scope(() => w.mul(3).exp().sum()).dispose()
    }),
    0,
    'and is freed with it',
  )
  t.equal(
    left(() => {
      v.scope(() => w.mul(3).exp().sum().backward())
    }),
    0,
  )
})

t.test('TensorScope frees at dispose, also across awaits', async (t) => {
  await settle()
  const before = v.scope(live)
  const step = new v.TensorScope()
  const a = step.run(() => v.ones([2], { device }).add(1))
  const data = await a.data()
  const kept = step.run(() => step.keep(a.mul(2)))
  t.same([...data], [2, 2])
  step.dispose()
  t.ok(a.disposed)
  t.same(kept.toArray(), [4, 4])
  t.equal(v.scope(live) - before, 1)
  kept.dispose()
  const again = step.run(() => v.ones([2], { device }))
  step.dispose()
  t.ok(again.disposed, 'it can be used again')
})

t.test('what is forgotten is freed by the finalizer, tapes too', async (t) => {
  const w = v.ones([2], { device, requiresGrad: true })
  await settle()
  const before = v.scope(live)
  const forget = (): void => {
    for (let i = 0; i < 50; i++) w.mul(3).exp().reshape([1, 2]).sum()
    const forgotten = new v.TensorScope()
    forgotten.run(() => v.ones([2], { device }).add(1))
    v.scope(() => w.exp().exp())
  }
  forget()
  t.ok(v.scope(live) > before + 50)
  for (let rounds = 0; rounds < 10 && v.scope(live) > before; rounds++) await settle()
  t.equal(v.scope(live), before)
})

t.test('a loop in scopes takes no new memory from the system', async (t) => {
  const w = v.ones([64, 64], { device, requiresGrad: true })
  const step = (): void =>
    v.scope(() => {
      const x = v.ones([16, 64], { device })
      v.layerNorm(v.linear(x, w), v.ones([64], { device }), v.zeros([64], { device }))
        .sum()
        .backward()
    })
  step()
  step()
  const before = memoryStats(w.device)
  for (let i = 0; i < 100; i++) step()
  const after = memoryStats(w.device)
  t.equal(after.systemAllocations, before.systemAllocations)
  t.equal(after.allocatedBytes, before.allocatedBytes)
  t.equal(after.tensors, before.tensors)
})
