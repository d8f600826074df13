// Fused attention over 32 sequences of 128 tokens, small's 4 heads of 64, with dropout as training has it and without.
import { run, upload } from '../../dist/runtime/index.js'
import { arena } from '../harness.mjs'

export function* benchmarks() {
  const [sequences, length, heads, size] = [32, 128, 4, 64]
  const tokens = sequences * length
  // Two products of length x size for each token and head forward, five backward; a multiply-add counts two.
  const product = 2 * tokens * heads * length * size
  for (const dtype of ['float32', 'bfloat16']) {
    const memory = arena()
    const qkv = memory.tensor(dtype, [tokens, 3, heads, size], 0.1)
    const gradient = memory.tensor(dtype, [tokens, 3, heads, size])
    const context = memory.tensor(dtype, [tokens, heads, size])
    const contextGradient = memory.tensor(dtype, [tokens, heads, size], 0.2)
    const logSumExp = memory.tensor('float32', [heads, tokens])
    const offsets = memory.tensor('int32', [sequences + 1])
    upload(
      offsets,
      Int32Array.from({ length: sequences + 1 }, (_, i) => i * length),
    )
    const state = memory.tensor('int32', [4], 1)
    for (const probability of [0, 0.1]) {
      const attributes = [size ** -0.5, probability, 7, length]
      yield {
        name: `forward, dropout ${probability}, ${sequences}x${length}, ${heads}x${size} ${dtype}`,
        queue: () => run('attention_forward', [qkv, offsets, state, context, logSumExp], attributes),
        work: { flops: 2 * product },
        free: () => undefined,
      }
      yield {
        name: `backward, dropout ${probability}, ${sequences}x${length}, ${heads}x${size} ${dtype}`,
        queue: () =>
          run(
            'attention_backward',
            [contextGradient, qkv, offsets, context, logSumExp, state, gradient],
            attributes,
          ),
        work: { flops: 5 * product },
        free: probability === 0 ? () => undefined : memory.free,
      }
    }
  }
}
