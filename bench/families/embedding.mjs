// The embedding block over 32 x 128 tokens of small: three tables, LayerNorm and dropout; its deterministic backward.
import { run, upload } from '../../dist/runtime/index.js'
import { arena } from '../harness.mjs'

export function* benchmarks() {
  const [tokens, width, vocabulary] = [4096, 128, 30522]
  const memory = arena()
  const index = (limit) => {
    const handle = memory.tensor('int32', [tokens])
    // Zipf-like: small ids come often, as in text.
    upload(
      handle,
      Int32Array.from({ length: tokens }, (_, i) => Math.floor(limit * ((i * 0.618034) % 1) ** 4)),
    )
    return handle
  }
  const [ids, types, positions] = [index(vocabulary), index(2), index(128)]
  const tables = [vocabulary, 2, 512].map((rows) => memory.tensor('float32', [rows, width]))
  const gradients = [vocabulary, 2, 512].map((rows) => memory.tensor('float32', [rows, width], 0))
  const [weight, bias, weightGradient, biasGradient] = Array.from({ length: 4 }, () =>
    memory.tensor('float32', [width]),
  )
  const [sum, y] = [0, 1].map(() => memory.tensor('float32', [tokens, width]))
  const [mean, inverseStd] = [0, 1].map(() => memory.tensor('float32', [tokens]))
  const state = memory.tensor('int32', [4], 1)
  yield {
    name: `forward ${tokens}x${width} float32`,
    queue: () =>
      run(
        'embedding_forward',
        [ids, types, positions, ...tables, weight, bias, state, sum, y, mean, inverseStd],
        [1e-12, 0.1, 5],
      ),
    work: { bytes: 5 * 4 * tokens * width },
    free: () => undefined,
  }
  yield {
    name: `backward ${tokens}x${width} float32`,
    queue: () =>
      run(
        'embedding_backward',
        [
          y,
          ids,
          types,
          positions,
          sum,
          mean,
          inverseStd,
          weight,
          state,
          ...gradients,
          weightGradient,
          biasGradient,
        ],
        [0.1, 5],
      ),
    work: { bytes: 6 * 4 * tokens * width },
    free: memory.free,
  }
}
