// Sums and maxima over rows and columns.
import { run } from '../../dist/runtime/index.js'

export function* benchmarks({ plain: [rows, width] }) {
  const shape = [rows, width]
  const all = [
    ['sum of each row', 'sum', [rows], 'float32', [2]],
    ['sum of each column', 'sum', [width], 'float32', [1]],
    ['max of each row', 'max', [rows], 'float32', [2]],
    ['argmax of each row', 'argmax', [rows], 'int32', []],
  ]
  for (const [name, op, result, dtype, attributes] of all) {
    yield {
      name: `${name} ${rows}x${width} float32`,
      make(memory) {
        const [x, y] = [memory.random('float32', shape), memory.tensor(dtype, result)]
        return () => run(op, [x, y], attributes)
      },
      work: { bytes: 4 * rows * width },
    }
  }
}
