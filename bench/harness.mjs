// What every benchmark uses: timing in rounds, ceilings measured in the same run, a table and JSON.
// A figure is the median of rounds, with the smallest and largest beside it; rounds of different rows are interleaved by
// the caller where rows are compared.
import { writeFileSync } from 'node:fs'
import {
  allocate,
  deviceInfo,
  release,
  resolveDevice,
  run,
  synchronize,
  threads,
} from '../dist/runtime/index.js'

export const device = resolveDevice(process.env.VOLTAIC_BENCH_DEVICE ?? 'cpu')

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1]

/** Seconds a call of `queue` takes (it queues work; the device is waited for): median, least and most of `rounds`. */
export async function time(queue, { rounds = 7, roundMs = 40 } = {}) {
  queue()
  await synchronize(device)
  let begin = performance.now()
  queue()
  await synchronize(device)
  const calls = Math.max(1, Math.round(roundMs / Math.max(0.001, performance.now() - begin)))
  const seconds = []
  for (let round = 0; round < rounds; round++) {
    begin = performance.now()
    for (let call = 0; call < calls; call++) queue()
    await synchronize(device)
    seconds.push((performance.now() - begin) / 1000 / calls)
  }
  return { median: median(seconds), least: Math.min(...seconds), most: Math.max(...seconds) }
}

/** Tensors that are freed together. */
export function arena() {
  const handles = []
  return {
    tensor(dtype, shape, fill = 0.01) {
      const handle = allocate(device, dtype, shape)
      run('fill', [handle], [fill])
      handles.push(handle)
      return handle
    },
    free() {
      for (const handle of handles.splice(0)) release(handle)
    },
  }
}

/** Bytes a second of a copy past all caches, and multiply-adds a second (times two) of a large product: this run's ceilings. */
export async function measureCeilings() {
  const memory = arena()
  const elements = 48 << 20
  const [from, to] = [memory.tensor('float32', [elements]), memory.tensor('float32', [elements])]
  const copy = await time(() => run('cast', [from, to]), { rounds: 5, roundMs: 1 })
  memory.free()
  const size = 2048
  const matrices = [0, 1, 2].map(() => memory.tensor('float32', [size, size]))
  const [a, b, c] = matrices
  const attributes = [size, size, size, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0]
  const product = await time(() => run('gemm', [a, b, null, null, null, c], attributes), {
    rounds: 5,
    roundMs: 1,
  })
  memory.free()
  return { copyBytesPerSecond: (8 * elements) / copy.least, productFlops: (2 * size ** 3) / product.least }
}

/** One row: name, seconds, and what it moved and computed against the ceilings. */
export function row(name, seconds, { bytes = 0, flops = 0 }, ceilings) {
  const result = {
    name,
    microseconds: seconds.median * 1e6,
    least: seconds.least * 1e6,
    most: seconds.most * 1e6,
  }
  if (flops > 0) {
    result.gflops = flops / seconds.median / 1e9
    result.percentOfProduct = (100 * flops) / seconds.median / ceilings.productFlops
  }
  if (bytes > 0) {
    result.gigabytes = bytes / seconds.median / 1e9
    result.percentOfCopy = (100 * bytes) / seconds.median / ceilings.copyBytesPerSecond
  }
  return result
}

export function printTable(rows, ceilings) {
  const info = deviceInfo(device)
  console.log(`${info.name}, ${info.instructionSet}, ${threads()} threads`)
  console.log(
    `ceilings of this run: copy ${(ceilings.copyBytesPerSecond / 1e9).toFixed(1)} GB/s, ` +
      `2048-cubed fp32 product ${(ceilings.productFlops / 1e9).toFixed(0)} GFLOP/s\n`,
  )
  const width = Math.max(...rows.map(({ name }) => name.length))
  for (const entry of rows) {
    const figures = []
    if (entry.gflops)
      figures.push(`${entry.gflops.toFixed(1)} GFLOP/s ${entry.percentOfProduct.toFixed(0)}% of the product`)
    if (entry.gigabytes)
      figures.push(`${entry.gigabytes.toFixed(1)} GB/s ${entry.percentOfCopy.toFixed(0)}% of the copy`)
    const spread = `(${entry.least.toFixed(0)}-${entry.most.toFixed(0)})`
    console.log(
      `${entry.name.padEnd(width)} ${entry.microseconds.toFixed(0).padStart(8)} us ${spread.padEnd(16)} ${figures.join(', ')}`,
    )
  }
}

/** Writes results where `--json FILE` says. */
export function writeJson(results) {
  const at = process.argv.indexOf('--json')
  if (at < 0) return
  const file = process.argv[at + 1]
  if (!file) throw new Error('--json needs a file name')
  writeFileSync(file, `${JSON.stringify(results, null, 1)}\n`)
}
