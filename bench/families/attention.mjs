// Fused attention over packed sequences of full length, with dropout as training has it and without.
import { run } from '../../dist/runtime/index.js'
import { bytesOf } from '../scales.mjs'

export function* benchmarks({ tokens, lengths, models, dtypes }) {
  for (const length of lengths) {
    for (const { name: model, hidden, heads } of models) {
      for (const dtype of dtypes) {
        const [sequences, size] = [tokens / length, hidden / heads]
        // Two products of length x size for each token and head forward, five backward; a multiply-add counts two.
        const product = 2 * tokens * heads * length * size
        const bytes = bytesOf[dtype] * tokens * hidden
        const statistics = 4 * heads * tokens
        const common = (memory) => ({
          qkv: memory.random(dtype, [tokens, 3, heads, size]),
          offsets: memory.offsets(sequences, length),
          state: memory.ints([1, 0, 1, 0]),
        })
        for (const probability of [0, 0.1]) {
          const attributes = [size ** -0.5, probability, 7, length]
          const what = `${model} ${sequences}x${length}, ${heads} heads of ${size}, dropout ${probability}, ${dtype}`
          const peer = { op: 'attention', sequences, length, heads, size, probability, dtype }
          yield {
            name: `forward ${what}`,
            make(memory) {
              const { qkv, offsets, state } = common(memory)
              const context = memory.tensor(dtype, [tokens, heads, size])
              const logSumExp = memory.tensor('float32', [heads, tokens])
              return () => run('attention_forward', [qkv, offsets, state, context, logSumExp], attributes)
            },
            work: { flops: 2 * product, bytes: 4 * bytes + statistics },
            peer,
          }
          yield {
            name: `backward ${what}`,
            make(memory) {
              const { qkv, offsets, state } = common(memory)
              const [context, contextGradient] = [0, 1].map(() =>
                memory.random(dtype, [tokens, heads, size], 0.1),
              )
              const logSumExp = memory.tensor('float32', [heads, tokens])
              const gradient = memory.tensor(dtype, [tokens, 3, heads, size])
              // Real statistics, so that the probabilities are.
              run('attention_forward', [qkv, offsets, state, context, logSumExp], attributes)
              return () =>
                run(
                  'attention_backward',
                  [contextGradient, qkv, offsets, context, logSumExp, state, gradient],
                  attributes,
                )
            },
            work: { flops: 5 * product, bytes: 8 * bytes + statistics },
            peer: { ...peer, backward: true },
          }
        }
      }
    }
  }
}
