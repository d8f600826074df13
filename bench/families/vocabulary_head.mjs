// Cross-entropy with accuracy and a Gumbel sample over 640 masked rows of the vocabulary, and its gradient.
import { run } from '../../dist/runtime/index.js'
import { arena } from '../harness.mjs'

export function* benchmarks() {
  const [rows, vocabulary] = [640, 30522]
  const memory = arena()
  const logits = memory.tensor('float32', [rows, vocabulary], 0.1)
  const gradient = memory.tensor('float32', [rows, vocabulary])
  const [targets, predictions, samples] = Array.from({ length: 3 }, () => memory.tensor('int32', [rows], 7))
  const [loss, lossGradient] = [0, 1].map(() => memory.tensor('float32', [1], 1))
  const logSumExp = memory.tensor('float32', [rows])
  const [counts, state] = [memory.tensor('int32', [2]), memory.tensor('int32', [4], 1)]
  for (const drawn of [null, samples]) {
    yield {
      name: `forward ${drawn ? 'with' : 'without'} samples ${rows}x${vocabulary} float32`,
      queue: () =>
        run(
          'vocabulary_head_forward',
          [logits, targets, state, loss, logSumExp, predictions, counts, drawn],
          [1, 9, 0],
        ),
      work: { bytes: 4 * rows * vocabulary },
      free: () => undefined,
    }
  }
  yield {
    name: `backward ${rows}x${vocabulary} float32`,
    queue: () =>
      run('vocabulary_head_backward', [lossGradient, logits, targets, logSumExp, counts, gradient]),
    work: { bytes: 2 * 4 * rows * vocabulary },
    free: memory.free,
  }
}
