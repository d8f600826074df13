import { spawnSync } from 'node:child_process'
import t from 'tap'
import {
  allocate,
  contentVersion,
  type Device,
  download,
  downloadSync,
  emptyCache,
  type Handle,
  kernelTable,
  memoryStats,
  release,
  resolveDevice,
  run,
  setMemoryLimit,
  setThreads,
  synchronize,
  threads,
  upload,
  VoltaicError,
  view,
} from '../../dist/runtime/index.js'

const device: Device = resolveDevice('cpu')
const runtimeUrl = new URL('../../dist/runtime/index.js', import.meta.url).href

function floats(...values: number[]): Handle {
  const handle = allocate(device, 'float32', [values.length])
  upload(handle, Float32Array.from(values))
  return handle
}
function integers(...values: number[]): Handle {
  const handle = allocate(device, 'int32', [values.length])
  upload(handle, Int32Array.from(values))
  return handle
}
const valuesOf = async (handle: Handle): Promise<number[]> => [...new Float32Array(await download(handle))]

const thrown = (body: () => unknown): VoltaicError => {
  try {
    body()
  } catch (error) {
    if (error instanceof VoltaicError) return error
    throw error
  }
  throw new Error('nothing was thrown')
}

t.test('run names the op and the argument that does not fit', async (t) => {
  const a = floats(1, 2, 3, 4)
  const b = floats(1, 2, 3)
  const c = allocate(device, 'float32', [4])
  const matrix = allocate(device, 'float32', [2, 3])
  const width4 = allocate(device, 'float32', [4])
  const mean = allocate(device, 'float32', [2])
  const whole = integers(0, 1)
  const out = allocate(device, 'float32', [2, 3])
  const dead = floats(1)
  release(dead)
  const cases: [string, (Handle | null)[], number[], string, RegExp][] = [
    ['gather_rows', [matrix, whole, c], [], 'ERR_SHAPE', /^gather_rows: y\b/],
    [
      'layer_norm_forward',
      [matrix, width4, width4, out, mean, mean],
      [1e-12],
      'ERR_SHAPE',
      /^layer_norm_forward: weight\b/,
    ],
    ['negate', [a, b], [], 'ERR_SHAPE', /^negate: y\b/],
    ['gather_rows', [matrix, b, out], [], 'ERR_DTYPE', /^gather_rows: index\b/],
    ['add', [a, whole, c], [], 'ERR_DTYPE', /^add: b\b/],
    ['negate', [whole, whole], [], 'ERR_DTYPE', /^negate: x\b/],
    ['negate', [dead, c], [], 'ERR_DISPOSED', /^negate: x has been disposed/],
    ['negate', [c, 12345], [], 'ERR_DISPOSED', /^negate: y has been disposed/],
    ['negate', [c, Number.NaN], [], 'ERR_DISPOSED', /^negate: y/],
    ['negate', [c, c + 0.5], [], 'ERR_DISPOSED', /^negate: y/],
    ['negate', [null, c], [], 'ERR_ARGUMENT', /^negate: x\b/],
    ['negate', [c], [], 'ERR_ARGUMENT', /^negate: got 1 tensors and 0 attributes, expected 2 and 0/],
    ['negate', [], [], 'ERR_ARGUMENT', /^negate/],
    ['negate', [a, c], [1], 'ERR_ARGUMENT', /^negate\b.*attributes/],
    ['affine', [a, c], [1], 'ERR_ARGUMENT', /^affine: got 2 tensors and 1 attributes, expected 2 and 2/],
    ['negate', Array.from({ length: 63 }, () => a), [], 'ERR_ARGUMENT', /^negate: too many/],
    ['negat', [a, c], [], 'ERR_ARGUMENT', /no op negat/],
  ]
  for (const [op, tensors, attributes, code, message] of cases) {
    const error = thrown(() => run(op, tensors, attributes))
    t.equal(error.code, code, `${op}: ${error.message}`)
    t.match(error.message, message)
  }
  run('add', [a, a, c])
  t.same(await valuesOf(c), [2, 4, 6, 8], 'and what is right still works')
  for (const handle of [a, b, c, matrix, width4, mean, whole, out]) release(handle)
})

t.test('handles that are stale or foreign are refused, never followed', async (t) => {
  const first = floats(1, 2)
  release(first)
  const second = floats(3, 4)
  t.not(second, first, 'a slot that is used again has another handle')
  for (const body of [
    () => release(first),
    () => downloadSync(first, new Float32Array(2)),
    () => upload(first, new Float32Array(2)),
    () => view(first, 'float32', [1]),
  ])
    t.equal(thrown(body).code, 'ERR_DISPOSED')
  await t.rejects(download(first), { code: 'ERR_DISPOSED' })
  for (const never of [0, -1, 1, 2 ** 24 + 100_000, 2 ** 52, Number.NaN, Number.POSITIVE_INFINITY])
    t.equal(thrown(() => release(never)).code, 'ERR_DISPOSED', `release(${never})`)
  t.same(await valuesOf(second), [3, 4])
  release(second)
})

t.test('views share memory, live on their own and stay inside', async (t) => {
  const base = floats(0, 1, 2, 3, 4, 5)
  const tail = view(base, 'float32', [2, 2], 2)
  release(base)
  t.same(await valuesOf(tail), [2, 3, 4, 5])
  for (const [shape, offset] of [
    [[2, 2], 1],
    [[5], 0],
    [[1], 4],
    [[1], -1],
    [[1], 0.5],
    [[1], Number.NaN],
    [[1], 2 ** 62],
    [[1], 2 ** 63],
    [[2 ** 52], 0],
    [[-1], 0],
    [[1, 1, 1, 1, 1, 1, 1], 0],
  ] as const)
    t.equal(thrown(() => view(tail, 'float32', shape, offset)).code, 'ERR_SHAPE', `[${shape}] from ${offset}`)
  release(tail)
})

t.test('shapes and lengths are checked', async (t) => {
  for (const shape of [[-1], [1.5], [Number.NaN], [2 ** 30, 2 ** 30], [1, 1, 1, 1, 1, 1, 1]])
    t.equal(thrown(() => allocate(device, 'float32', shape)).code, 'ERR_SHAPE', `[${shape}]`)
  const three = floats(1, 2, 3)
  t.match(
    thrown(() => upload(three, new Float32Array(4))),
    { code: 'ERR_SHAPE', message: /16 bytes.* 12/ },
  )
  t.match(
    thrown(() => downloadSync(three, new Float32Array(2))),
    { code: 'ERR_SHAPE', message: /8 bytes.* 12/ },
  )
  const empty = allocate(device, 'float32', [0, 4])
  t.equal((await download(empty)).byteLength, 0)
  release(three)
  release(empty)
})

t.test(
  'what only the data shows is reported once, by the next download, and the device goes on',
  async (t) => {
    const table = allocate(device, 'float32', [3, 2])
    upload(table, Float32Array.of(0, 1, 2, 3, 4, 5))
    const rows = allocate(device, 'float32', [2, 2])
    const after = floats(0, 0)
    const bad = integers(1, 3)
    run('gather_rows', [table, bad, rows])
    run('fill', [after], [7])
    await t.rejects(download(rows), { code: 'ERR_ARGUMENT', message: /^gather_rows: .*3/ })
    upload(after, Float32Array.of(5, 6))
    t.same(await valuesOf(after), [5, 6], 'reported once')
    upload(bad, Int32Array.of(2, 0))
    run('gather_rows', [table, bad, rows])
    t.same(await valuesOf(rows), [4, 5, 0, 1], 'and the op works again')

    upload(bad, Int32Array.of(-1, 0))
    run('gather_rows', [table, bad, rows])
    t.match(
      thrown(() => downloadSync(rows, new Float32Array(4))),
      { code: 'ERR_ARGUMENT', message: /^gather_rows/ },
    )
    run('gather_rows', [table, bad, rows])
    await t.rejects(synchronize(device), { code: 'ERR_ARGUMENT', message: /^gather_rows/ })
    await synchronize(device)

    run('gather_rows', [table, bad, rows])
    emptyCache(device)
    await t.rejects(
      download(rows),
      { code: 'ERR_ARGUMENT' },
      'waiting for the cache does not swallow the error',
    )
    for (const handle of [table, rows, after, bad]) release(handle)
  },
)

t.test('memory that runs out is an error with advice, and then all works', async (t) => {
  emptyCache(device)
  const { reservedBytes, limitBytes } = memoryStats(device)
  setMemoryLimit(device, reservedBytes + (8 << 20))
  const held: Handle[] = []
  let failure: VoltaicError | undefined
  try {
    for (let i = 0; i < 64; i++) held.push(allocate(device, 'float32', [1 << 18]))
  } catch (error) {
    failure = error as VoltaicError
  }
  t.equal(failure?.code, 'ERR_OUT_OF_MEMORY')
  t.match(failure?.message, /1 MB asked.*limit.*`using`.*VOLTAIC_MEMORY_LIMIT/)
  t.ok(held.length >= 6 && held.length <= 8, `${held.length} of 1 MB fit in 8 MB`)
  const small = floats(1, 2)
  run('add', [small, small, small])
  t.same(await valuesOf(small), [2, 4], 'what is there goes on working')
  for (const handle of held) release(handle)
  // Another size than those cached: the cache is given up for it.
  const large = allocate(device, 'float32', [1 << 20])
  run('fill', [large], [3])
  t.equal((await valuesOf(large))[1 << 19], 3)
  release(large)
  release(small)
  for (const bytes of [-1, Number.NaN, Number.POSITIVE_INFINITY])
    t.equal(thrown(() => setMemoryLimit(device, bytes)).code, 'ERR_ARGUMENT')
  setMemoryLimit(device, limitBytes)
})

t.test(
  'a content version grows with every write, through whichever handle, and with nothing else',
  async (t) => {
    const a = floats(1, 2, 3, 4)
    const half = view(a, 'float32', [2], 2)
    const other = floats(5, 6)
    const grows = (body: () => void): boolean => {
      const before = contentVersion(a)
      body()
      t.equal(contentVersion(half), contentVersion(a))
      return contentVersion(a) > before
    }
    t.ok(grows(() => upload(a, new Float32Array(4))))
    t.ok(grows(() => upload(half, new Float32Array(2))))
    t.ok(grows(() => run('fill', [half], [1])))
    t.ok(grows(() => run('accumulate', [other, half])))
    t.notOk(grows(() => run('accumulate', [half, other])))
    t.notOk(grows(() => upload(other, new Float32Array(2))))
    t.notOk(grows(() => release(view(a, 'float32', [1]))))
    await download(a)
    release(half)
    const before = contentVersion(a)
    t.throws(() => run('fill', [half], [1]), { code: 'ERR_DISPOSED' })
    t.equal(contentVersion(a), before)
    release(a)
    t.throws(() => contentVersion(a), { code: 'ERR_DISPOSED' })
    release(other)
  },
)

t.test('an error is not lost when an allocation has to wait', async (t) => {
  emptyCache(device)
  const table = floats(1, 2, 3)
  const matrix = view(table, 'float32', [3, 1])
  const rows = allocate(device, 'float32', [1, 1])
  const bad = integers(9)
  const cached = allocate(device, 'float32', [1 << 20])
  release(cached)
  const { reservedBytes, limitBytes } = memoryStats(device)
  setMemoryLimit(device, reservedBytes)
  run('gather_rows', [matrix, bad, rows])
  const large = allocate(device, 'float32', [(1 << 19) + 100])
  setMemoryLimit(device, limitBytes)
  await t.rejects(download(rows), { code: 'ERR_ARGUMENT', message: /^gather_rows/ })
  for (const handle of [table, matrix, rows, bad, large]) release(handle)
})

t.test('memory is used again, and counted', async (t) => {
  const before = memoryStats(device)
  const a = allocate(device, 'float32', [1000])
  t.equal(memoryStats(device).tensors, before.tensors + 1)
  t.ok(memoryStats(device).allocatedBytes >= before.allocatedBytes + 4000)
  release(a)
  const between = memoryStats(device)
  t.equal(between.tensors, before.tensors)
  t.equal(between.allocatedBytes, before.allocatedBytes)
  for (let i = 0; i < 100; i++) release(allocate(device, 'float32', [1000]))
  t.equal(memoryStats(device).systemAllocations, between.systemAllocations)
})

t.test('thousands of queued ops keep their order', async (t) => {
  const sum = floats(0)
  const one = floats(1)
  for (let i = 0; i < 5000; i++) run('add', [sum, one, sum])
  t.same(await valuesOf(sum), [5000])
  release(sum)
  release(one)
})

t.test('uploads are read at once', async (t) => {
  const data = new Float32Array(4096).fill(1)
  const handle = allocate(device, 'float32', [4096])
  for (let i = 0; i < 50; i++) upload(handle, data)
  data.fill(2)
  t.ok((await valuesOf(handle)).every((value) => value === 1))
  release(handle)
})

t.test('threads are set, clamped and checked', async (t) => {
  const before = threads()
  for (const count of [0, -1, 1.5, Number.NaN]) t.equal(thrown(() => setThreads(count)).code, 'ERR_ARGUMENT')
  setThreads(3)
  t.equal(threads(), 3)
  const matrix = allocate(device, 'float32', [512, 512])
  const out = allocate(device, 'float32', [512, 512])
  run('fill', [matrix], [0.5])
  const product = async (): Promise<string> => {
    run('gemm', [matrix, matrix, null, null, null, out], [512, 512, 512, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0])
    return Buffer.from(await download(out)).toString('base64')
  }
  const three = await product()
  setThreads(1)
  t.equal(await product(), three, 'the bits do not depend on them')
  setThreads(2 ** 40)
  t.ok(threads() >= 1 && threads() <= 1024, `${threads()} threads at most`)
  setThreads(before)
  release(matrix)
  release(out)
})

t.test('the kernel table describes every op', async (t) => {
  const table = kernelTable()
  t.ok(table.length > 60)
  t.equal(new Set(table.map(({ name }) => name)).size, table.length)
  t.match(
    table.find(({ name }) => name === 'gather_rows'),
    {
      family: 'rows',
      tensors: [
        { name: 'x', role: 'in', optional: false },
        { name: 'index', dtype: 'i32' },
        { name: 'y', role: 'out' },
      ],
      attributes: [],
    },
  )
})

t.test('instruction sets', async (t) => {
  const script = `
    const { resolveDevice, deviceInfo } = await import(${JSON.stringify(runtimeUrl)})
    try {
      console.log(deviceInfo(resolveDevice('cpu')).instructionSet)
    } catch (error) {
      console.log(error.name, error.code, error.message)
    }`
  const tell = (setting: string): string =>
    spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      env: { ...process.env, VOLTAIC_CPU: setting },
      encoding: 'utf8',
    }).stdout.trim()
  t.equal(tell('portable'), 'portable')
  t.match(tell('sse9'), /^VoltaicError ERR_DEVICE VOLTAIC_CPU=sse9 does not run here.*portable/)
  t.equal(tell(''), tell('auto'))
})
