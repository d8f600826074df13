// Softmax along rows, forward and backward.
import { run } from '../../dist/runtime/index.js'

export function* benchmarks({ plain: shape }) {
  const elements = shape[0] * shape[1]
  const what = `${shape.join('x')} float32`
  for (const [name, logarithm] of [
    ['forward', 0],
    ['logarithm forward', 1],
  ]) {
    yield {
      name: `${name} ${what}`,
      make(memory) {
        const [x, y] = [memory.random('float32', shape), memory.tensor('float32', shape)]
        return () => run('softmax_forward', [x, y], [logarithm])
      },
      work: { bytes: 8 * elements },
      peer: { op: 'softmax', logarithm, shape, dtype: 'float32' },
    }
  }
  yield {
    name: `backward ${what}`,
    make(memory) {
      const [y, dy, dx] = [0, 1, 2].map(() => memory.random('float32', shape))
      return () => run('softmax_backward', [y, dy, dx], [0])
    },
    work: { bytes: 12 * elements },
    peer: { op: 'softmax', logarithm: 0, backward: true, shape, dtype: 'float32' },
  }
}
