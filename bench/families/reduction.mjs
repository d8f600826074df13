// Sums and maxima over rows and columns.
import { run } from '../../dist/runtime/index.js'
import { arena } from '../harness.mjs'

const [rows, width] = [4096, 1024]
const elements = rows * width

export function* benchmarks() {
  const memory = arena()
  const x = memory.tensor('float32', [rows, width], 0.3)
  const line = memory.tensor('float32', [width])
  const column = memory.tensor('float32', [rows])
  const indices = memory.tensor('int32', [rows])
  const all = [
    ['sum of each row', () => run('sum', [x, column], [2]), 4 * elements],
    ['sum of each column', () => run('sum', [x, line], [1]), 4 * elements],
    ['max of each row', () => run('max', [x, column], [2]), 4 * elements],
    ['argmax of each row', () => run('argmax', [x, indices]), 4 * elements],
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
