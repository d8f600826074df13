// The discriminator's last layer with its loss and metrics over 32 x 128 tokens of small.
import { run } from '../../dist/runtime/index.js'
import { arena } from '../harness.mjs'

export function* benchmarks() {
  const [tokens, width] = [4096, 256]
  const memory = arena()
  const [hidden, gradient] = [0, 1].map(() => memory.tensor('float32', [tokens, width], 0.1))
  const [weight, weightGradient] = [0, 1].map(() => memory.tensor('float32', [1, width]))
  const [bias, loss, lossGradient, biasGradient] = Array.from({ length: 4 }, () =>
    memory.tensor('float32', [1]),
  )
  const labels = memory.tensor('int32', [tokens], 1)
  const logits = memory.tensor('float32', [tokens])
  const [valid, metrics] = [memory.tensor('int32', [1]), memory.tensor('int32', [4100], 0)]
  yield {
    name: `forward ${tokens}x${width} float32`,
    queue: () =>
      run('discriminator_head_forward', [hidden, weight, bias, labels, logits, loss, valid, metrics]),
    work: { bytes: 4 * tokens * width },
    free: () => undefined,
  }
  yield {
    name: `backward ${tokens}x${width} float32`,
    queue: () =>
      run('discriminator_head_backward', [
        lossGradient,
        hidden,
        weight,
        labels,
        logits,
        valid,
        gradient,
        weightGradient,
        biasGradient,
      ]),
    work: { bytes: 2 * 4 * tokens * width },
    free: memory.free,
  }
}
