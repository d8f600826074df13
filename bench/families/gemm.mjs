// Matrix products at ELECTRA's training shapes: 32 x 128 tokens through small's layers, 8 x 128 through base's.
import { run } from '../../dist/runtime/index.js'
import { arena } from '../harness.mjs'

const shapes = [
  ['small projection NT', 4096, 256, 256, 0, 1],
  ['small feed-forward up NT', 4096, 1024, 256, 0, 1],
  ['small feed-forward down NT', 4096, 256, 1024, 0, 1],
  ['small up, input gradient NN', 4096, 256, 1024, 0, 0],
  ['small up, weight gradient TN', 1024, 256, 4096, 1, 0],
  ['generator projection NT', 4096, 64, 64, 0, 1],
  ['vocabulary, masked rows NT', 640, 30522, 128, 0, 1],
  ['base projection NT', 1024, 768, 768, 0, 1],
  ['base feed-forward up NT', 1024, 3072, 768, 0, 1],
  ['serve small up, 128 rows NT', 128, 1024, 256, 0, 1],
  ['serve small up, 32 rows NT', 32, 1024, 256, 0, 1],
]

export function* benchmarks() {
  for (const dtype of ['float32', 'bfloat16']) {
    for (const [name, m, n, k, transposeA, transposeB] of shapes) {
      const memory = arena()
      const a = memory.tensor(dtype, transposeA ? [k, m] : [m, k])
      const b = memory.tensor(dtype, transposeB ? [n, k] : [k, n])
      const c = memory.tensor(dtype, [m, n])
      const attributes = [m, n, k, transposeA, transposeB, 1, 0, 0, 0, 1, 0, 0, 0]
      yield {
        name: `${name} ${m}x${n}x${k} ${dtype}`,
        queue: () => run('gemm', [a, b, null, null, null, c], attributes),
        work: { flops: 2 * m * n * k },
        free: memory.free,
      }
    }
  }
}
