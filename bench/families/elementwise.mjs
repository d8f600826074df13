// Elementwise ops with and without broadcasting, and casts.
import { run } from '../../dist/runtime/index.js'
import { arena } from '../harness.mjs'

const [rows, width] = [4096, 1024]
const elements = rows * width

export function* benchmarks() {
  const memory = arena()
  const [x, y, z] = [0, 1, 2].map(() => memory.tensor('float32', [rows, width], 0.3))
  const line = memory.tensor('float32', [width])
  const half = memory.tensor('bfloat16', [rows, width])
  const all = [
    ['add', () => run('add', [x, y, z]), 12 * elements],
    ['add a row', () => run('add', [x, line, z]), 8 * elements],
    ['absolute', () => run('absolute', [x, y]), 8 * elements],
    ['exp', () => run('exp', [x, y]), 8 * elements],
    ['log', () => run('log', [x, y]), 8 * elements],
    ['cast to bf16', () => run('cast', [x, half]), 6 * elements],
  ]
  for (const [i, [name, queue, bytes]] of all.entries()) {
    yield {
      name: `${name} ${rows}x${width} float32`,
      queue,
      work: { bytes },
      free: i === all.length - 1 ? memory.free : () => undefined,
    }
  }
}
