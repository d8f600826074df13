// Moving rows: gather, scatter-add, transposition, slices.
import { run, upload } from '../../dist/runtime/index.js'
import { arena } from '../harness.mjs'

const [rows, width] = [4096, 1024]
const elements = rows * width

export function* benchmarks() {
  const memory = arena()
  const [x, y] = [0, 1].map(() => memory.tensor('float32', [rows, width], 0.3))
  const transposed = memory.tensor('float32', [width, rows])
  const half = memory.tensor('float32', [rows, width / 2])
  const index = memory.tensor('int32', [rows])
  upload(
    index,
    Int32Array.from({ length: rows }, (_, i) => (i * 37) % rows),
  )
  const all = [
    ['gather rows', () => run('gather_rows', [x, index, y]), 8 * elements],
    ['scatter-add rows', () => run('scatter_add_rows', [x, index, y]), 12 * elements],
    ['transpose', () => run('permute', [x, transposed], [1, 0, 0, 0, 0, 0]), 8 * elements],
    ['slice of columns', () => run('slice', [x, half], [1, 256]), 4 * elements],
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
