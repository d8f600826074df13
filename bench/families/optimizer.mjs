// The global norm and AdamW over an arena of small's 14 million parameters.
import { run, upload } from '../../dist/runtime/index.js'
import { arena } from '../harness.mjs'

export function* benchmarks() {
  const n = 14_000_000
  const memory = arena()
  const [parameters, gradients, first, second] = Array.from({ length: 4 }, () =>
    memory.tensor('float32', [n], 0.01),
  )
  const working = memory.tensor('bfloat16', [n])
  const starts = memory.tensor('int32', [2])
  upload(starts, Int32Array.from([0, 1000]))
  const [rates, norm] = [memory.tensor('float32', [4], 1e-6), memory.tensor('float32', [1])]
  const segmentRates = memory.tensor('float32', [2, 2], 1)
  yield {
    name: `global norm of ${n / 1e6} M`,
    queue: () => run('global_norm', [gradients, norm], [1]),
    work: { bytes: 4 * n },
    free: () => undefined,
  }
  for (const copy of [null, working]) {
    yield {
      name: `AdamW over ${n / 1e6} M${copy ? ', writing the bf16 copy' : ''}`,
      queue: () =>
        run(
          'adamw',
          [parameters, gradients, first, second, copy, starts, segmentRates, norm, rates],
          [0.9, 0.999, 1e-6, 1],
        ),
      work: { bytes: (copy ? 30 : 28) * n },
      free: copy ? memory.free : () => undefined,
    }
  }
}
