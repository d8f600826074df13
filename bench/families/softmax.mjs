// Softmax along rows, forward and backward.
import { run } from '../../dist/runtime/index.js'
import { arena } from '../harness.mjs'

const [rows, width] = [4096, 1024]
const elements = rows * width

export function* benchmarks() {
  const memory = arena()
  const [x, y, z] = [0, 1, 2].map(() => memory.tensor('float32', [rows, width], 0.3))
  const all = [
    ['forward', () => run('softmax_forward', [x, y], [0]), 8 * elements],
    ['logarithm forward', () => run('softmax_forward', [x, y], [1]), 8 * elements],
    ['backward', () => run('softmax_backward', [y, x, z], [0]), 12 * elements],
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
