// Dropout + residual + LayerNorm over 32 x 128 tokens of small, with and without dropout.
import { run } from '../../dist/runtime/index.js'
import { arena } from '../harness.mjs'

export function* benchmarks() {
  for (const [dtype, bytes] of [
    ['float32', 4],
    ['bfloat16', 2],
  ]) {
    const [rows, width] = [4096, 256]
    const memory = arena()
    const big = () => memory.tensor(dtype, [rows, width], 0.3)
    const [x, residual, sum, y, gradient, xGradient] = Array.from({ length: 6 }, big)
    const [weight, bias, weightGradient, biasGradient] = Array.from({ length: 4 }, () =>
      memory.tensor('float32', [width]),
    )
    const [mean, inverseStd] = [0, 1].map(() => memory.tensor('float32', [rows]))
    const state = memory.tensor('int32', [4], 1)
    for (const probability of [0, 0.1]) {
      yield {
        name: `dropout ${probability} + residual + LayerNorm forward ${rows}x${width} ${dtype}`,
        queue: () =>
          run(
            'dropout_residual_layer_norm_forward',
            [x, residual, weight, bias, state, sum, y, mean, inverseStd],
            [1e-12, probability, 3],
          ),
        work: { bytes: 4 * bytes * rows * width },
        free: () => undefined,
      }
      yield {
        name: `dropout ${probability} + residual + LayerNorm backward ${rows}x${width} ${dtype}`,
        queue: () =>
          run(
            'dropout_residual_layer_norm_backward',
            [y, sum, mean, inverseStd, weight, state, xGradient, gradient, weightGradient, biasGradient],
            [probability, 3],
          ),
        work: { bytes: 4 * bytes * rows * width },
        free: probability === 0 ? () => undefined : memory.free,
      }
    }
  }
}
