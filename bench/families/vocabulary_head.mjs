// Cross-entropy with accuracy and a Gumbel sample over the masked rows of the vocabulary, as one tile, and its gradient.
import { run } from '../../dist/runtime/index.js'
import { bytesOf } from '../scales.mjs'

export function* benchmarks({ masked: rows, vocabulary, dtypes }) {
  const shape = [rows, vocabulary]
  const numbers = (memory) => memory.ints(Array.from({ length: rows }, (_, i) => (i * 7919) % vocabulary))
  const column = (memory) => memory.tensor('float32', [rows], Math.log(vocabulary))
  for (const sampling of [false, true]) {
    yield {
      name: `forward ${sampling ? 'with' : 'without'} samples ${shape.join('x')} float32`,
      make(memory) {
        const logits = memory.random('float32', shape)
        const [targets, predictions] = [numbers(memory), memory.tensor('int32', [rows])]
        const [state, loss] = [memory.ints([1, 0, 1, 0]), memory.tensor('float32', [1])]
        const [logSumExp, counts] = [column(memory), memory.tensor('int32', [2])]
        const statistics = memory.tensor('float32', [rows, 4])
        const drawn = sampling ? memory.tensor('int32', [rows]) : null
        return () => {
          const tensors = [logits, targets, state, statistics, predictions, drawn]
          run('vocabulary_head_tile', tensors, [0, vocabulary, 1, 9, 0])
          run('vocabulary_head_loss', [statistics, targets, predictions, loss, logSumExp, counts])
        }
      },
      work: { bytes: 4 * rows * vocabulary },
      peer: { op: 'cross_entropy', rows, vocabulary, sampling },
    }
  }
  for (const dtype of dtypes) {
    yield {
      name: `backward ${shape.join('x')} ${dtype}`,
      make(memory) {
        const [loss, logits, targets] = [
          memory.tensor('float32', [1], 1),
          memory.random('float32', shape),
          numbers(memory),
        ]
        const [logSumExp, counts] = [column(memory), memory.ints([rows, 0])]
        const gradient = memory.tensor(dtype, shape)
        const tensors = [loss, logits, targets, logSumExp, counts, gradient]
        return () => run('vocabulary_head_backward', tensors, [0, vocabulary])
      },
      work: { bytes: (4 + bytesOf[dtype]) * rows * vocabulary },
      peer: { op: 'cross_entropy', backward: true, rows, vocabulary, dtype },
    }
  }
}
