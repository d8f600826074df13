// Philox: uniform and normal numbers, dropout.
import { run } from '../../dist/runtime/index.js'

export function* benchmarks({ plain: shape }) {
  const elements = shape[0] * shape[1]
  const state = (memory) => memory.ints([1, 0, 1, 0])
  for (const [name, op] of [
    ['uniform', 'uniform'],
    ['normal', 'normal'],
    ['truncated normal', 'truncated_normal'],
  ]) {
    yield {
      name: `${name} ${shape.join('x')} float32`,
      make(memory) {
        const [from, y] = [state(memory), memory.tensor('float32', shape)]
        return () => run(op, [from, y], [0, 1, 2])
      },
      work: { bytes: 4 * elements },
    }
  }
  yield {
    name: `dropout ${shape.join('x')} float32`,
    make(memory) {
      const [from, x, y] = [state(memory), memory.random('float32', shape), memory.tensor('float32', shape)]
      return () => run('dropout', [x, from, y], [0.1, 2])
    },
    work: { bytes: 8 * elements },
    peer: { op: 'dropout', shape, dtype: 'float32', probability: 0.1 },
  }
}
