// What every benchmark uses: memory, timing in rounds over rotating buffers, ceilings measured in the same run, a table and JSON.
// A figure is the median of rounds, with the smallest and largest beside it.
//
// A row is { name, make(memory), work: { bytes, flops }, peer }: make allocates one set of buffers and returns a function that
// queues the call over them. Bytes count each input and output once, FLOPs a multiply-add as two. peer says what PyTorch is to
// do for comparison (bench/gpu/peer_torch.py).
import { writeFileSync } from 'node:fs'
import {
  allocate,
  canCapture,
  capture,
  deviceInfo,
  emptyCache,
  release,
  resolveDevice,
  run,
  synchronize,
  threads,
  upload,
} from '../dist/runtime/index.js'

export const device = resolveDevice(process.env.VOLTAIC_BENCH_DEVICE ?? 'cpu')

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1]

export const summary = (seconds) => ({
  median: median(seconds),
  least: Math.min(...seconds),
  most: Math.max(...seconds),
})

/**
 * Seconds a call takes: median, least and most of `rounds`. `queues` is one function, or several over buffers of their own that
 * take turns. Calls are queued back to back and waited for once a round, so queueing hides behind the device's work.
 */
export async function time(queues, { rounds = 7, roundMs = 40, leastCalls = 1 } = {}) {
  const turns = [queues].flat()
  const round = async (calls) => {
    const begin = performance.now()
    for (let call = 0; call < calls; call++) turns[call % turns.length]()
    await synchronize(device)
    return (performance.now() - begin) / calls
  }
  await round(turns.length)
  const estimate = await round(leastCalls)
  const calls = Math.max(leastCalls, Math.round(roundMs / Math.max(0.0005, estimate)))
  const seconds = []
  for (let i = 0; i < rounds; i++) seconds.push((await round(calls)) / 1000)
  return summary(seconds)
}

// Normal numbers for tensors where the device cannot make its own; a prime length, so that rows differ.
let pattern
function uploadRandom(handle, dtype, elements, std) {
  pattern ??= Float32Array.from({ length: 8191 }, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - Math.random()))
    return radius * Math.cos(2 * Math.PI * Math.random())
  })
  const values = Float32Array.from({ length: elements }, (_, i) => std * pattern[i % pattern.length])
  if (dtype === 'float32') return upload(handle, values)
  const halves = new Uint16Array(values.buffer)
  upload(
    handle,
    Uint16Array.from({ length: elements }, (_, i) => halves[2 * i + 1]),
  )
}

function unsupported(error) {
  if (error.code !== 'ERR_UNSUPPORTED') throw error
}

const bytes = { float32: 4, bfloat16: 2, int32: 4, uint8: 1 }
let seed = 0

/** Tensors that are freed together. */
export function arena() {
  const handles = []
  let total = 0
  const take = (dtype, shape) => {
    const handle = allocate(device, dtype, shape)
    handles.push(handle)
    total += bytes[dtype] * shape.reduce((product, size) => product * size, 1)
    return handle
  }
  const ints = (values) => {
    const handle = take('int32', [values.length])
    upload(handle, Int32Array.from(values))
    return handle
  }
  /** Normal numbers: constants would let some hardware run faster than data does. */
  const random = (dtype, shape, std = 1) => {
    const handle = take(dtype, shape)
    const state = allocate(device, 'int32', [4])
    upload(state, Int32Array.from([++seed, 0, 0, 0]))
    const full = dtype === 'float32' ? handle : allocate(device, 'float32', shape)
    try {
      run('normal', [state, full], [0, std, 0])
      if (full !== handle) run('cast', [full, handle])
    } catch (error) {
      unsupported(error)
      uploadRandom(
        handle,
        dtype,
        shape.reduce((product, size) => product * size, 1),
        std,
      )
    }
    if (full !== handle) release(full)
    release(state)
    return handle
  }
  const tensor = (dtype, shape, fill = 0) => {
    const handle = take(dtype, shape)
    try {
      run('fill', [handle], [fill])
    } catch (error) {
      unsupported(error)
      const count = shape.reduce((product, size) => product * size, 1)
      if (dtype === 'int32') upload(handle, new Int32Array(count).fill(fill))
      else uploadRandom(handle, dtype, count, fill)
    }
    return handle
  }
  return {
    tensor,
    random,
    ints,
    /** Where each of `count` sequences of `length` begins, and the end. */
    offsets: (count, length) => ints(Array.from({ length: count + 1 }, (_, i) => i * length)),
    get bytes() {
      return total
    },
    free() {
      for (const handle of handles.splice(0)) release(handle)
    },
  }
}

const mostRotatedBytes = 6e9

/**
 * Calls as one captured graph of ten at least, where the device captures: then the host does not set the pace, and a pause between
 * two launches weighs little. Undefined where it does not.
 */
async function captured(queues) {
  if (!canCapture(device)) return undefined
  // Libraries load their kernels and scratch memory grows before.
  for (const queue of queues) queue()
  await synchronize(device)
  const turns = Math.ceil(10 / queues.length)
  const graph = capture(device, () => {
    for (let turn = 0; turn < turns; turn++) for (const queue of queues) queue()
  })
  return { graph, calls: turns * queues.length }
}

const perCall = ({ median, least, most }, calls) => ({
  median: median / calls,
  least: least / calls,
  most: most / calls,
})

/**
 * Times a row over as many sets of buffers as it takes to move past `rotateBytes` of cache (0: one set), as a captured graph unless
 * `graph` is false.
 */
export async function timeRow({ make, work = {} }, { rotateBytes = 0, graph = true, ...options } = {}) {
  const memory = arena()
  let whole
  try {
    const queues = [make(memory)]
    // What a call touches, which may be less than its buffers hold.
    const each = Math.max(1, Math.min(memory.bytes, work.bytes ?? memory.bytes))
    if (rotateBytes > 0 && each < rotateBytes) {
      const fitting = Math.floor(mostRotatedBytes / memory.bytes)
      const sets = Math.min(64, 1 + Math.ceil(rotateBytes / each), fitting)
      while (queues.length < sets) queues.push(make(memory))
    }
    await synchronize(device)
    whole = graph ? await captured(queues) : undefined
    if (whole === undefined) return { ...(await time(queues, options)), sets: queues.length }
    const leastCalls = Math.ceil((options.leastCalls ?? 1) / whole.calls)
    const seconds = await time(() => whole.graph.launch(), { ...options, leastCalls })
    return { ...perCall(seconds, whole.calls), sets: queues.length, captured: true }
  } finally {
    whole?.graph.dispose()
    memory.free()
    emptyCache(device)
  }
}

/** Seconds of a row, the least of its rounds; Infinity where the device has no such kernel. */
async function leastOf(entry, options) {
  try {
    return (await timeRow(entry, options)).least
  } catch (error) {
    unsupported(error)
    return Number.POSITIVE_INFINITY
  }
}

/** This run's ceilings: bytes a second of a copy past all caches, and FLOP/s of a large product; 0 where there is none. */
export async function measureCeilings(scale, options = { rounds: 5, roundMs: 1 }) {
  const { copy: elements, product: size } = scale
  const dtype = scale.dtypes[0]
  const copy = {
    make(memory) {
      const [from, to] = [memory.random(dtype, [elements]), memory.tensor(dtype, [elements])]
      return () => run('cast', [from, to])
    },
  }
  const attributes = [size, size, size, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0]
  const product = {
    make(memory) {
      const [a, b, c] = [0, 1, 2].map(() => memory.random(dtype, [size, size]))
      return () => run('gemm', [a, b, null, null, null, c], attributes)
    },
  }
  return {
    copyBytesPerSecond: (2 * bytes[dtype] * elements) / (await leastOf(copy, options)),
    productFlops: (2 * size ** 3) / (await leastOf(product, options)),
    what: `copy of ${((bytes[dtype] * elements) / 1e6).toFixed(0)} MB, ${size}-cubed ${dtype} product`,
  }
}

/**
 * One row's figures: time, what it moved and computed, and its percent of the ceiling: the time that the slower of moving its bytes
 * at the copy's rate and computing at the product's would take, over the time it took.
 */
export function figures(seconds, { bytes = 0, flops = 0 }, ceilings) {
  const result = {
    microseconds: seconds.median * 1e6,
    least: seconds.least * 1e6,
    most: seconds.most * 1e6,
  }
  if (flops > 0) result.gflops = flops / seconds.median / 1e9
  if (bytes > 0) result.gigabytes = bytes / seconds.median / 1e9
  const moving = bytes / ceilings.copyBytesPerSecond
  const computing = flops / ceilings.productFlops
  const floor = Math.max(moving || 0, computing || 0)
  if (floor > 0 && Number.isFinite(floor)) {
    result.percent = (100 * floor) / seconds.median
    result.ceiling = floor === moving ? 'copy' : 'product'
  }
  return result
}

export function printTable(rows, ceilings) {
  const info = deviceInfo(device)
  console.log(`${info.name}, ${info.instructionSet}, ${threads()} threads`)
  console.log(
    `ceilings of this run (${ceilings.what}): ${(ceilings.copyBytesPerSecond / 1e9).toFixed(1)} GB/s, ` +
      `${(ceilings.productFlops / 1e9).toFixed(0)} GFLOP/s\n`,
  )
  const width = Math.max(...rows.map(({ name }) => name.length))
  for (const entry of rows) {
    if (entry.unsupported) {
      console.log(`${entry.name.padEnd(width)} not supported`)
      continue
    }
    const parts = []
    if (entry.gflops) parts.push(`${entry.gflops.toFixed(1)} GFLOP/s`)
    if (entry.gigabytes) parts.push(`${entry.gigabytes.toFixed(1)} GB/s`)
    if (entry.percent) parts.push(`${entry.percent.toFixed(0)}% of the ${entry.ceiling}`)
    const spread = `(${entry.least.toFixed(0)}-${entry.most.toFixed(0)})`
    console.log(
      `${entry.name.padEnd(width)} ${entry.microseconds.toFixed(0).padStart(8)} us ${spread.padEnd(16)} ${parts.join(', ')}`,
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
