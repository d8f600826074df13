// GELU forward and backward over a feed-forward layer's activations.
import { run } from '../../dist/runtime/index.js'
import { bytesOf, label } from '../scales.mjs'

export function* benchmarks({ tokens, models, dtypes }) {
  for (const model of models) {
    for (const dtype of dtypes) {
      const shape = [tokens, model.intermediate]
      const bytes = bytesOf[dtype] * tokens * model.intermediate
      yield {
        name: `GELU forward ${label(model, shape, dtype)}`,
        make(memory) {
          const [x, y] = [memory.random(dtype, shape), memory.tensor(dtype, shape)]
          return () => run('activation_forward', [x, y], [0])
        },
        work: { bytes: 2 * bytes },
        peer: { op: 'gelu', shape, dtype },
      }
      yield {
        name: `GELU backward ${label(model, shape, dtype)}`,
        make(memory) {
          const [x, dy] = [0, 1].map(() => memory.random(dtype, shape))
          const dx = memory.tensor(dtype, shape)
          return () => run('activation_backward', [x, dy, dx], [0])
        },
        work: { bytes: 3 * bytes },
        peer: { op: 'gelu', backward: true, shape, dtype },
      }
    }
  }
}
