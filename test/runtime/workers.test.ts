/** Several JavaScript threads, each with devices of its own, in one process; and how processes end. */
import { spawnSync } from 'node:child_process'
import { Worker } from 'node:worker_threads'
import t from 'tap'

t.setTimeout(120_000)
const runtimeUrl = JSON.stringify(new URL('../../dist/runtime/index.js', import.meta.url).href)

/** Products of 128 x 128 in a chain, posted back as a number every few. `forever`: until terminated. */
const chain = `
  import { parentPort, workerData } from 'node:worker_threads'
  const { allocate, download, release, resolveDevice, run } = await import(${runtimeUrl})
  const device = resolveDevice('cpu')
  const matrix = () => allocate(device, 'float32', [128, 128])
  const a = matrix(), b = matrix(), c = matrix()
  run('fill', [a], [workerData.value])
  run('fill', [b], [1 / 128])
  const product = (from, to) => run('gemm', [from, b, null, null, null, to], [128, 128, 128, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0])
  for (let round = 0; round < workerData.rounds; round++) {
    for (let i = 0; i < 10; i++) {
      product(a, c)
      product(c, a)
    }
    const data = new Float32Array(await download(a))
    parentPort.postMessage({ first: data[0], last: data[data.length - 1] })
  }
  for (const handle of [a, b, c]) release(handle)`

const worker = (source: string, workerData: object): Worker =>
  new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), { workerData })

interface Outcome {
  readonly messages: { first: number; last: number }[]
  readonly code: number
}
const outcomeOf = (thread: Worker): Promise<Outcome> =>
  new Promise((resolve, reject) => {
    const messages: { first: number; last: number }[] = []
    thread.on('message', (message) => messages.push(message))
    thread.on('error', reject)
    thread.on('exit', (code) => resolve({ messages, code }))
  })

t.test('several threads compute at once, each on its own', async (t) => {
  const outcomes = await Promise.all(
    [1, 2, 3, 4].map((value) => outcomeOf(worker(chain, { value, rounds: 20 }))),
  )
  outcomes.forEach(({ messages, code }, at) => {
    t.equal(code, 0)
    t.equal(messages.length, 20)
    // Rows of one number times a column that sums to 1: the number again, but for rounding of exact powers of two.
    t.ok(messages.every(({ first, last }) => first === at + 1 && last === at + 1))
  })
})

t.test('threads that are terminated in their work leave the process and the others alone', async (t) => {
  const steady = outcomeOf(worker(chain, { value: 3, rounds: 60 }))
  for (let i = 0; i < 6; i++) {
    const doomed = worker(chain, { value: 5, rounds: 1e9 })
    const ended = outcomeOf(doomed)
    await new Promise((resolve) => doomed.once('message', resolve))
    // Not only right behind a download: anywhere in the round.
    await new Promise((resolve) => setTimeout(resolve, i))
    await doomed.terminate()
    t.ok((await ended).messages.length > 0)
  }
  const { messages, code } = await steady
  t.equal(code, 0)
  t.equal(messages.length, 60)
  t.ok(messages.every(({ first }) => first === 3))
})

t.test('the addon stays when the last thread that used it ends', async (t) => {
  // The worker pool's threads live in it, and outlive every environment.
  const source = `
    import { readFileSync } from 'node:fs'
    import { Worker } from 'node:worker_threads'
    const thread = new Worker(new URL('data:text/javascript,' + encodeURIComponent('await import(' + ${JSON.stringify(runtimeUrl)} + ')')))
    await new Promise((resolve, reject) => thread.on('exit', resolve).on('error', reject))
    console.log(readFileSync('/proc/self/maps', 'utf8').includes('voltaic.node'))`
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', source], {
    encoding: 'utf8',
    timeout: 60_000,
  })
  t.equal(stdout, 'true\n', stderr)
})

t.test('a handle of another thread is refused', async (t) => {
  const { allocate, resolveDevice } = await import('../../dist/runtime/index.js')
  const handles = Array.from({ length: 5 }, () => allocate(resolveDevice('cpu'), 'float32', [2]))
  const source = `
    import { parentPort, workerData } from 'node:worker_threads'
    const { resolveDevice, release } = await import(${runtimeUrl})
    resolveDevice('cpu')
    try { release(workerData.handle); parentPort.postMessage('released') } catch (error) { parentPort.postMessage(error.code) }`
  const thread = worker(source, { handle: handles[4] })
  t.equal(await new Promise((resolve) => thread.once('message', resolve)), 'ERR_DISPOSED')
})

t.test('a process ends cleanly with work in the queue', async (t) => {
  const prelude = `
    const { allocate, download, resolveDevice, run } = await import(${runtimeUrl})
    const device = resolveDevice('cpu')
    const a = allocate(device, 'float32', [512, 512]), c = allocate(device, 'float32', [512, 512])
    run('fill', [a], [1])
    const product = () => run('gemm', [a, a, null, null, null, c], [512, 512, 512, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0])
    for (let i = 0; i < 300; i++) product()`
  const endings: [string, string, number][] = [
    ['process.exit', 'process.exit(7)', 7],
    [
      'falling off the end with a download that nobody awaits',
      'download(c).then(() => console.log("delivered"))',
      0,
    ],
    ['process.exit with a download under way', 'download(c).catch(() => {}); process.exit(3)', 3],
    ['an uncaught error', 'setTimeout(() => { throw new Error("mine") })', 1],
  ]
  for (const [name, ending, code] of endings) {
    const begin = performance.now()
    const { status, signal, stderr, stdout } = spawnSync(
      process.execPath,
      ['--input-type=module', '-e', `${prelude}\n${ending}`],
      { encoding: 'utf8', timeout: 60_000 },
    )
    t.equal(signal, null, `${name}: ${stderr}`)
    t.equal(status, code, name)
    if (name.startsWith('falling')) t.equal(stdout, 'delivered\n', 'what was asked for still comes')
    t.comment(`${name}: ${Math.round(performance.now() - begin)} ms`)
  }
})
