// The discriminator's last layer with its loss and metrics.
import { run } from '../../dist/runtime/index.js'
import { bytesOf, label } from '../scales.mjs'

export function* benchmarks({ tokens, models, dtypes }) {
  for (const model of models) {
    for (const dtype of dtypes) {
      const width = model.hidden
      const shape = [tokens, width]
      const bytes = bytesOf[dtype] * tokens * width
      const common = (memory) => ({
        hidden: memory.random(dtype, shape),
        weight: memory.random('float32', [1, width], 0.05),
        labels: memory.ints(Array.from({ length: tokens }, (_, i) => Number(i % 7 === 0))),
        logits: memory.random('float32', [tokens]),
        valid: memory.ints([tokens]),
      })
      const scalar = (memory) => memory.tensor('float32', [1], 1)
      yield {
        name: `forward ${label(model, shape, dtype)}`,
        make(memory) {
          const { hidden, weight, labels, logits, valid } = common(memory)
          const [bias, loss] = [scalar(memory), scalar(memory)]
          const metrics = memory.tensor('int32', [4100])
          return () =>
            run('discriminator_head_forward', [hidden, weight, bias, labels, logits, loss, valid, metrics])
        },
        work: { bytes: bytes + 8 * tokens },
        peer: { op: 'discriminator_head', shape, dtype },
      }
      yield {
        name: `backward ${label(model, shape, dtype)}`,
        make(memory) {
          const { hidden, weight, labels, logits, valid } = common(memory)
          const [loss, biasGradient] = [scalar(memory), scalar(memory)]
          const gradient = memory.tensor(dtype, shape)
          const weightGradient = memory.tensor('float32', [1, width])
          const outputs = [gradient, weightGradient, biasGradient]
          return () =>
            run('discriminator_head_backward', [loss, hidden, weight, labels, logits, valid, ...outputs])
        },
        work: { bytes: 2 * bytes + 8 * tokens },
        peer: { op: 'discriminator_head', backward: true, shape, dtype },
      }
    }
  }
}
