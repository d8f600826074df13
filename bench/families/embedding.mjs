// The embedding block: three tables, LayerNorm and dropout; its deterministic backward.
import { run } from '../../dist/runtime/index.js'
import { bytesOf, label } from '../scales.mjs'

export function* benchmarks({ tokens, lengths, models, dtypes, vocabulary }) {
  const length = lengths[0]
  const most = Math.max(...lengths)
  // Zipf-like: small ids come often, as in text.
  const ids = Array.from({ length: tokens }, (_, i) => Math.floor(vocabulary * ((i * 0.618034) % 1) ** 4))
  const distinct = new Set(ids).size
  for (const model of models) {
    for (const dtype of dtypes) {
      const width = model.embedding
      const shape = [tokens, width]
      const bytes = bytesOf[dtype] * tokens * width
      const rows = [vocabulary, 2, most]
      const indices = (memory) => [
        memory.ints(ids),
        memory.tensor('int32', [tokens]),
        memory.ints(Array.from({ length: tokens }, (_, i) => i % length)),
      ]
      const line = (memory) => memory.random('float32', [width], 0.5)
      const column = (memory) => memory.tensor('float32', [tokens], 1)
      const peer = { op: 'embedding', tokens, width, vocabulary, length, probability: 0.1, dtype }
      yield {
        name: `forward ${label(model, shape, dtype)}`,
        make(memory) {
          const tables = rows.map((count) => memory.random(dtype, [count, width]))
          const [sum, y] = [0, 1].map(() => memory.tensor(dtype, shape))
          const inputs = [
            ...indices(memory),
            ...tables,
            line(memory),
            line(memory),
            memory.ints([1, 0, 1, 0]),
          ]
          const outputs = [sum, y, column(memory), column(memory)]
          return () => run('embedding_forward', [...inputs, ...outputs], [1e-12, 0.1, 5])
        },
        // Each row that occurs once, the sum and y.
        work: { bytes: 2 * bytes + bytesOf[dtype] * distinct * width },
        peer,
      }
      yield {
        name: `backward ${label(model, shape, dtype)}`,
        make(memory) {
          const gradients = rows.map((count) => memory.tensor('float32', [count, width]))
          const [dy, sum] = [0, 1].map(() => memory.random(dtype, shape))
          const state = memory.ints([1, 0, 1, 0])
          const inputs = [dy, ...indices(memory), sum, column(memory), column(memory), line(memory), state]
          const outputs = [...gradients, line(memory), line(memory)]
          return () => run('embedding_backward', [...inputs, ...outputs], [0.1, 5])
        },
        // Both inputs, and each row's gradient added to.
        work: { bytes: 2 * bytes + 8 * distinct * width },
        peer: { ...peer, backward: true },
      }
    }
  }
}
