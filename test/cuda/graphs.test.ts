/** Captured graphs: noted down once, launched as often as wanted, with memory that nobody else gets. */
import { spawnSync } from 'node:child_process'
import t from 'tap'
import {
  allocate,
  CapturedGraph,
  canCapture,
  capture,
  type Device,
  deviceSetting,
  download,
  downloadSync,
  emptyCache,
  type Handle,
  memoryStats,
  release,
  resolveDevice,
  run,
  setDeviceSetting,
  setMemoryLimit,
  synchronize,
  upload,
  VoltaicError,
} from '../../dist/runtime/index.js'
import { needsCuda } from '../helpers/cuda.js'

const runtimeUrl = new URL('../../dist/runtime/index.js', import.meta.url).href
const relu = 2
const cuda = (): Device => resolveDevice('cuda')
const elements = 50_000

function filled(device: Device, value: number, size = elements): Handle {
  const handle = allocate(device, 'float32', [size])
  upload(handle, new Float32Array(size).fill(value))
  return handle
}
const first = async (handle: Handle): Promise<number> => new Float32Array(await download(handle))[0] as number
const forward = (x: Handle, y: Handle): void => run('activation_forward', [x, y], [relu])

const thrown = (body: () => unknown): VoltaicError => {
  try {
    body()
  } catch (error) {
    if (error instanceof VoltaicError) return error
    throw error
  }
  throw new Error('nothing was thrown')
}

t.test('a graph is noted down, not done, and launched again and again', needsCuda, async (t) => {
  const device = cuda()
  t.ok(canCapture(device))
  const x = filled(device, 3)
  const y = filled(device, -1)
  const graph = capture(device, () => forward(x, y))
  t.ok(graph instanceof CapturedGraph)
  t.equal(await first(y), -1, 'capturing does nothing')
  graph.launch()
  t.equal(await first(y), 3)
  for (const value of [5, -2, 7]) {
    upload(x, new Float32Array(elements).fill(value))
    graph.launch()
    t.equal(await first(y), Math.max(0, value))
  }
  // Reads in a row see each launch's own results.
  const reads: Promise<number>[] = []
  for (let i = 1; i <= 20; i++) {
    upload(x, new Float32Array(elements).fill(i))
    graph.launch()
    reads.push(first(y))
  }
  t.same(
    await Promise.all(reads),
    Array.from({ length: 20 }, (_, i) => i + 1),
  )
  graph.dispose()
  graph.dispose()
  t.ok(graph.disposed)
  t.match(
    thrown(() => graph.launch()),
    { code: 'ERR_DISPOSED' },
  )
  release(x)
  release(y)
})

t.test('what is made inside keeps its memory, whatever comes after', needsCuda, async (t) => {
  const device = cuda()
  const x = filled(device, 4)
  let y: Handle = 0
  const live = memoryStats(device).allocatedBytes
  const graph = capture(device, () => {
    // Freed inside: its memory is the graph's, though nothing refers to it any more.
    const between = allocate(device, 'float32', [elements])
    y = allocate(device, 'float32', [elements])
    forward(x, between)
    forward(between, y)
    release(between)
  })
  t.ok(memoryStats(device).allocatedBytes > live)
  const strangers = Array.from({ length: 8 }, () => filled(device, 9))
  graph.launch()
  t.equal(await first(y), 4)
  for (const stranger of strangers) t.equal(await first(stranger), 9, 'no other tensor was written to')
  for (const stranger of strangers) release(stranger)
  emptyCache(device)
  graph.launch()
  t.equal(await first(y), 4, 'emptying the cache takes nothing from it')

  const { systemAllocations } = memoryStats(device)
  const other = capture(
    device,
    () => {
      const between = allocate(device, 'float32', [elements])
      forward(x, between)
      release(between)
    },
    { sharing: graph },
  )
  t.equal(memoryStats(device).systemAllocations, systemAllocations, 'a second graph may share it')
  other.launch()
  graph.launch()
  t.equal(await first(y), 4)
  graph.dispose()
  other.launch()
  await synchronize(device)
  other.dispose()
  t.equal(await first(y), 4, 'a tensor outlives its graph')
  release(y)
  t.equal(memoryStats(device).allocatedBytes, live)
  for (let i = 0; i < 2; i++) strangers[i] = allocate(device, 'float32', [elements])
  t.equal(memoryStats(device).systemAllocations, systemAllocations, 'then the memory is anybody’s')
  for (let i = 0; i < 2; i++) release(strangers[i] as Handle)
  release(x)
  const { reservedBytes } = memoryStats(device)
  emptyCache(device)
  t.ok(memoryStats(device).reservedBytes < reservedBytes)
})

t.test('what cannot be captured is refused and leaves nothing behind', needsCuda, async (t) => {
  const device = cuda()
  const x = filled(device, 2)
  const y = filled(device, 0)
  const before = memoryStats(device)
  const data = new Float32Array(elements)
  const cases: [string, () => unknown, RegExp][] = [
    ['upload', () => upload(x, data), /^an upload while a graph is being captured.*before/],
    ['downloadSync', () => downloadSync(x, data), /^reading a tensor while/],
    ['emptyCache', () => emptyCache(device), /^emptying the cache while/],
    ['capture', () => capture(device, () => undefined), /^another capture while/],
  ]
  for (const [name, body, message] of cases) {
    let inside: VoltaicError | undefined
    const error = thrown(() =>
      capture(device, () => {
        forward(x, allocate(device, 'float32', [elements]))
        inside = thrown(body)
        throw inside
      }),
    )
    t.match(error, { code: 'ERR_ARGUMENT', message }, name)
    t.equal(error, inside)
    // Swallowed inside, it fails the capture all the same.
    const swallowed = thrown(() => capture(device, () => void thrown(body)))
    t.match(swallowed, { code: 'ERR_ARGUMENT', message }, `${name}, swallowed`)
  }
  const rejections: Promise<unknown>[] = []
  for (const body of [
    () => download(x),
    () => synchronize(device),
    () => deviceSetting(device, 'matmul'),
    () => setDeviceSetting(device, 'matmul', 'tune'),
  ]) {
    const error = thrown(() => capture(device, () => void rejections.push(body().catch((error) => error))))
    t.match(error, { code: 'ERR_ARGUMENT', message: /while a graph is being captured/ })
  }
  for (const error of await Promise.all(rejections)) t.match(error, { code: 'ERR_ARGUMENT' })

  const graph = capture(device, () => forward(x, y))
  t.match(
    thrown(() => capture(device, () => graph.launch())),
    { code: 'ERR_ARGUMENT', message: /launch/ },
  )
  t.match(
    thrown(() => capture(device, (async () => undefined) as unknown as () => void)),
    { code: 'ERR_ARGUMENT', message: /asynchronous/ },
  )
  t.throws(() => capture(device, () => forward(x, x + 0.5)), { code: 'ERR_DISPOSED' })
  t.throws(
    () =>
      capture(device, () => {
        throw new RangeError('mine')
      }),
    RangeError,
  )
  graph.launch()
  t.equal(await first(y), 2, 'and graphs and captures go on working')
  graph.dispose()
  t.match(
    thrown(() => capture(device, () => forward(x, y), { sharing: graph })),
    { code: 'ERR_DISPOSED' },
  )
  await synchronize(device)
  for (const handle of [x, y]) release(handle)
  t.ok(memoryStats(device).allocatedBytes < before.allocatedBytes + 20 * elements * 4)
})

t.test('memory that runs out inside is an error, without waiting', needsCuda, async (t) => {
  const device = cuda()
  emptyCache(device)
  const x = filled(device, 1)
  const { reservedBytes, limitBytes } = memoryStats(device)
  // Both too large for the free rest of a segment of 16 MiB, and for each other.
  setMemoryLimit(device, reservedBytes + (24 << 20))
  release(allocate(device, 'float32', [17 << 18]))
  const made: Handle[] = []
  const body = (): void => {
    made.push(allocate(device, 'float32', [20 << 18]))
  }
  t.match(
    thrown(() => capture(device, body)),
    { code: 'ERR_OUT_OF_MEMORY' },
  )
  emptyCache(device)
  const graph = capture(device, body)
  graph.dispose()
  release(made[0] as Handle)
  setMemoryLimit(device, limitBytes)
  release(x)
})

t.test('a failed read is that read’s, and later ones are right', needsCuda, async (t) => {
  const device = cuda()
  const x = filled(device, 1, 3)
  // Long and short reads, and waiting, in one row.
  const long = filled(device, 6, 1 << 20)
  const reads = [first(x), first(long), first(x), synchronize(device), first(long)]
  t.same(await Promise.all(reads), [1, 6, 1, undefined, 6])
  const back = new Float32Array(3)
  downloadSync(x, back)
  t.same([...back], [1, 1, 1])
  for (const handle of [x, long]) release(handle)
})

t.test(
  'an index out of range inside of a graph is the next read’s error, and no launch’s after it',
  needsCuda,
  async (t) => {
    const device = cuda()
    const x = allocate(device, 'float32', [3, 2])
    upload(x, new Float32Array(6).fill(2))
    const index = allocate(device, 'int32', [2])
    const y = allocate(device, 'float32', [2, 2])
    const graph = capture(device, () => run('gather_rows', [x, index, y], []))
    const gathered = (second: number): Promise<ArrayBuffer> => {
      upload(index, Int32Array.of(0, second))
      graph.launch()
      return download(y)
    }
    const wrong = { code: 'ERR_ARGUMENT', message: /gather_rows.*\[1\] is 3; expected 0 to 2/ }
    const reads = [gathered(2), gathered(3), gathered(1), gathered(3)] as const
    // Queued in one go: each report is the read's that follows it, or where later launches run by then, an earlier one's.
    const answers = await Promise.allSettled(reads)
    t.ok(answers.filter(({ status }) => status === 'rejected').length >= 1)
    for (const answer of answers) if (answer.status === 'rejected') t.match(answer.reason, wrong)
    await synchronize(device).catch((error) => t.match(error, wrong))
    await t.rejects(gathered(3), wrong)
    t.same([...new Float32Array(await gathered(2))], [2, 2, 2, 2])
    graph.dispose()
    for (const handle of [x, index, y]) release(handle)
  },
)

t.test('settings are texts; the CPU has none', needsCuda, async (t) => {
  t.type(await deviceSetting(cuda(), 'matmul'), 'string')
  await t.rejects(deviceSetting(cuda(), 'colour'), { code: 'ERR_ARGUMENT', message: /colour.*matmul/ })
  const cpu = resolveDevice('cpu')
  t.equal(await deviceSetting(cpu, 'matmul'), '')
  await t.rejects(setDeviceSetting(cpu, 'matmul', 'tune'), { code: 'ERR_UNSUPPORTED', message: /cpu/ })
  t.equal(canCapture(cpu), false)
  t.throws(() => capture(cpu, () => undefined), { code: 'ERR_UNSUPPORTED' })
})

t.test('an environment that ends in the middle of it all ends', needsCuda, async (t) => {
  const script = (end: string): string => `
    const { allocate, capture, download, release, resolveDevice, run, upload } = await import(${JSON.stringify(runtimeUrl)})
    const { Worker, isMainThread } = await import('node:worker_threads')
    const device = resolveDevice('cuda')
    const x = allocate(device, 'float32', [1000])
    upload(x, new Float32Array(1000).fill(2))
    const y = allocate(device, 'float32', [1000])
    const graph = capture(device, () => run('activation_forward', [x, y], [2]))
    for (let i = 0; i < 100; i++) {
      graph.launch()
      download(y).catch(() => undefined)
    }
    ${end}`
  for (const end of [
    'process.exit(0)',
    'capture(device, () => process.exit(0))',
    'console.log(new Float32Array(await download(y))[0])',
  ]) {
    const { status, signal, stderr, stdout } = spawnSync(
      process.execPath,
      ['--input-type=module', '-e', script(end)],
      { encoding: 'utf8', timeout: 60_000 },
    )
    t.same({ status, signal, stderr }, { status: 0, signal: null, stderr: '' }, end)
    if (end.startsWith('console')) t.equal(stdout.trim(), '2')
  }
})

t.test('VOLTAIC_GRAPHS=off turns capture off', needsCuda, async (t) => {
  process.env.VOLTAIC_GRAPHS = 'off'
  t.teardown(() => {
    delete process.env.VOLTAIC_GRAPHS
  })
  t.equal(canCapture(cuda()), false)
  t.throws(() => capture(cuda(), () => undefined), { code: 'ERR_UNSUPPORTED' })
})
