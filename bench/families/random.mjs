// Philox: uniform and normal numbers, dropout.
import { run } from '../../dist/runtime/index.js'
import { arena } from '../harness.mjs'

const [rows, width] = [4096, 1024]
const elements = rows * width

export function* benchmarks() {
  const memory = arena()
  const [x, y] = [0, 1].map(() => memory.tensor('float32', [rows, width], 0.3))
  const state = memory.tensor('int32', [4], 1)
  const all = [
    ['uniform', () => run('uniform', [state, y], [0, 1, 2]), 4 * elements],
    ['normal', () => run('normal', [state, y], [0, 1, 2]), 4 * elements],
    ['truncated normal', () => run('truncated_normal', [state, y], [0, 1, 2]), 4 * elements],
    ['dropout', () => run('dropout', [x, state, y], [0.1, 2]), 8 * elements],
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
