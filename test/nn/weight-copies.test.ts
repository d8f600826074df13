/** What products on the CPU keep of a parameter: the bits are those without, never stale, and all is freed. */
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { Embedding, Parameter, ParameterArena, ParameterPart } from '../../dist/nn/index.js'
import { AdamW } from '../../dist/optim/index.js'
import { deviceOf, emptyCache, memoryStats, setMemoryLimit } from '../../dist/runtime/index.js'
import * as v from '../../dist/tensor/index.js'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

const rows = 5
const outer = 37
const inner = 51
type Precision = 'float32' | 'bfloat16'
const precisions: readonly Precision[] = ['float32', 'bfloat16']

/** Numbers that follow from their place and `seed`. */
const numbers = (count: number, seed: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(i * 1.7 + seed * 31.3) * 0.5)

function parameter(seed = 2): Parameter {
  const weight = new Parameter([outer, inner], { parts: Array.from({ length: outer }, (_, i) => `row.${i}`) })
  weight.assign(numbers(outer * inner, seed))
  return weight
}

const input = (dtype: Precision): v.Tensor =>
  v.tensor(numbers(rows * inner, 1), { shape: [rows, inner] }).to(dtype)

const forward = (weight: Parameter | v.Tensor, dtype: Precision): number[] =>
  v.scope(() => v.noGrad(() => [...v.linear(input(dtype), weight).dataSync()]))

/** Output and input gradient of the weight's product twice, the first time with an activation. */
function step(weight: Parameter | v.Tensor, dtype: Precision): number[][] {
  return v.scope(() => {
    const x = input(dtype).requireGrad()
    const wide = v.linear(x, weight, null, { activation: 'gelu' })
    const back = v.linear(wide, v.tensor(numbers(inner * outer, 3), { shape: [inner, outer] }))
    const again = v.linear(back, weight)
    again.to('float32').sum().backward()
    return [[...again.dataSync()], [...x.grad.dataSync()]]
  })
}

/** Tensors and bytes that `body` leaves behind. */
function left(body: () => void): { tensors: number; bytes: number } {
  const before = memoryStats()
  body()
  const after = memoryStats()
  return { tensors: after.tensors - before.tensors, bytes: after.allocatedBytes - before.allocatedBytes }
}

t.test('every product of a parameter has the bits of one without copies', async (t) => {
  for (const dtype of precisions) {
    const weight = parameter()
    const plain = weight.value.detach()
    const wanted = forward(plain, dtype)
    for (let turn = 0; turn < 4; turn++) t.same(forward(weight, dtype), wanted, `${dtype}, turn ${turn}`)
    const wantedStep = step(plain, dtype)
    for (let turn = 0; turn < 4; turn++) t.same(step(weight, dtype), wantedStep, `${dtype}, step ${turn}`)
    plain.dispose()
    weight.dispose()
  }
})

t.test('whoever writes to a parameter, no product reads its old values', async (t) => {
  const writes: Readonly<Record<string, (weight: Parameter) => void>> = {
    assign: (weight) => weight.assign(numbers(outer * inner, 7)),
    'assign of a part': (weight) => new ParameterPart(weight, 1).assign(numbers(inner, 7)),
    copyFrom: (weight) => {
      const other = parameter(8)
      weight.copyFrom(other)
      other.dispose()
    },
    'assign of another tensor of its memory': (weight) => {
      v.scope(
        () =>
          void weight.value
            .detach()
            .reshape([inner, outer])
            .assign(numbers(outer * inner, 9)),
      )
    },
    'an arena, and its optimizer': (weight) => {
      const optimizer = new AdamW([weight])
      weight.value.mul(2).sum().backward()
      optimizer.step({ learningRate: 0.1 })
    },
    'an arena with a working copy': (weight) => {
      const optimizer = new AdamW(new ParameterArena([weight], { workingCopy: true }))
      for (let turn = 0; turn < 3; turn++) step(weight, 'bfloat16')
      optimizer.step({ learningRate: 0.1 })
    },
  }
  for (const dtype of precisions)
    for (const [name, write] of Object.entries(writes)) {
      const weight = parameter()
      for (let turn = 0; turn < 3; turn++) {
        forward(weight, dtype)
        step(weight, dtype)
      }
      write(weight)
      const plain = v.noGrad(() => weight.value.clone())
      for (const turn of ['at once', 'packed anew']) {
        t.same(forward(weight, dtype), forward(plain, dtype), `${name}, ${dtype}, ${turn}`)
        t.same(step(weight, dtype), step(plain, dtype), `${name}, ${dtype}, ${turn}, step`)
      }
      plain.dispose()
      weight.dispose()
    }
})

t.test('a backward reads the weight that its forward read', async (t) => {
  const weight = parameter()
  for (let turn = 0; turn < 3; turn++) step(weight, 'bfloat16')
  const [, wanted] = step(weight, 'bfloat16')
  const x = input('bfloat16').requireGrad()
  const wide = v.linear(x, weight, null, { activation: 'gelu' })
  const back = v.linear(wide, v.tensor(numbers(inner * outer, 3), { shape: [inner, outer] }))
  const loss = v.linear(back, weight).to('float32').sum()
  weight.assign(numbers(outer * inner, 5))
  forward(weight, 'bfloat16')
  forward(weight, 'bfloat16')
  loss.backward()
  t.same([...x.grad.dataSync()], wanted)
  weight.dispose()
})

t.test(
  'inference keeps one thing a weight, from the second pass on its panels; dispose frees it',
  async (t) => {
    for (const dtype of precisions) {
      const weight = parameter()
      const pass = (): void => void forward(weight, dtype)
      t.equal(left(pass).tensors, dtype === 'bfloat16' ? 1 : 0, `${dtype}: the rounded copy`)
      t.equal(left(pass).tensors, dtype === 'bfloat16' ? 0 : 1, `${dtype}: panels in its place`)
      t.same(left(pass), { tensors: 0, bytes: 0 })
      t.equal(left(() => weight.dispose()).tensors, -2)
    }
  },
)

t.test('a table is rounded once', async (t) => {
  const table = new Embedding({ rows: 100, width: 8 })
  const ids = v.tensor(Int32Array.of(3, 99), { dtype: 'int32' })
  const look = (): void => v.scope(() => void table.forward(ids, { dtype: 'bfloat16' }))
  v.noGrad(() => {
    t.equal(left(look).tensors, 1)
    const { allocations } = memoryStats()
    t.equal(left(look).tensors, 0)
    t.equal(memoryStats().allocations - allocations, 1, 'the rows alone are made')
  })
  table.dispose()
})

t.test('a step that uses a weight once packs nothing, accumulation does', async (t) => {
  const weight = parameter()
  const pass = (): void => {
    v.scope(() => {
      v.linear(input('float32').requireGrad(), weight).sum().backward()
    })
  }
  pass()
  for (let update = 0; update < 3; update++) {
    weight.assign(numbers(outer * inner, update))
    t.equal(left(pass).tensors, 0)
  }
  t.equal(left(pass).tensors, 2, 'panels for the product and for the gradient')
  t.equal(left(pass).tensors, 0)
  weight.assign(numbers(outer * inner, 4))
  t.equal(left(pass).tensors, -2, 'stale ones are freed at the next use')
  pass()
  const arena = left(() => void new ParameterArena([weight]))
  t.equal(arena.tensors, 0, 'an arena has two buffers and two views of them; value, gradient and panels went')
  weight.dispose()
})

t.test('when memory is short, panels are not made, or go first', async (t) => {
  const weight = new Parameter([1024, 1024])
  const x = v.ones([2, 1024])
  const use = (): number[] => v.scope(() => v.noGrad(() => [...v.linear(x, weight).dataSync()]))
  const wanted = use()
  emptyCache(deviceOf('cpu'))
  const { reservedBytes, limitBytes } = memoryStats()
  try {
    setMemoryLimit(deviceOf('cpu'), reservedBytes + (3 << 20))
    t.same(use(), wanted)
    t.same(use(), wanted, 'without panels')
    weight.value.detach().assign(await weight.data())
    use()
    setMemoryLimit(deviceOf('cpu'), reservedBytes + (10 << 20))
    t.ok(left(use).bytes >= 4 << 20, 'with panels')
    const large = v.zeros([2 << 20])
    t.same(use(), wanted, 'and without again: another tensor has their memory')
    large.dispose()
  } finally {
    setMemoryLimit(deviceOf('cpu'), limitBytes)
  }
  weight.dispose()
})

t.test('what a forgotten parameter kept is collected', async (t) => {
  const settle = async (): Promise<number> => {
    for (let round = 0; round < 5; round++) {
      collect()
      await sleep(2)
    }
    return memoryStats().tensors
  }
  const before = await settle()
  const forget = (): void => {
    for (let i = 0; i < 10; i++) {
      const weight = parameter()
      forward(weight, 'bfloat16')
      forward(weight, 'bfloat16')
    }
  }
  forget()
  t.ok(memoryStats().tensors >= before + 20)
  t.equal(await settle(), before)
})
