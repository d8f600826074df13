// GELU forward and backward over a feed-forward layer's activations of 32 x 128 tokens.
import { run } from '../../dist/runtime/index.js'
import { arena } from '../harness.mjs'

export function* benchmarks() {
  for (const [dtype, bytes] of [
    ['float32', 4],
    ['bfloat16', 2],
  ]) {
    const shape = [4096, 1024]
    const elements = shape[0] * shape[1]
    const memory = arena()
    const [x, y, gradient] = [0, 1, 2].map(() => memory.tensor(dtype, shape, 0.7))
    yield {
      name: `gelu forward ${shape.join('x')} ${dtype}`,
      queue: () => run('activation_forward', [x, y], [0]),
      work: { bytes: 2 * bytes * elements },
      free: () => undefined,
    }
    yield {
      name: `gelu backward ${shape.join('x')} ${dtype}`,
      queue: () => run('activation_backward', [x, y, gradient], [0]),
      work: { bytes: 3 * bytes * elements },
      free: memory.free,
    }
  }
}
