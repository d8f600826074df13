// The global norm and AdamW over an arena of a model's parameters.
import { run } from '../../dist/runtime/index.js'

export function* benchmarks({ parameters: n }) {
  const millions = `${n / 1e6} M`
  yield {
    name: `global norm of ${millions}`,
    make(memory) {
      const [gradients, norm] = [memory.random('float32', [n], 0.01), memory.tensor('float32', [1])]
      return () => run('global_norm', [gradients, norm], [1])
    },
    work: { bytes: 4 * n },
    peer: { op: 'global_norm', parameters: n },
  }
  for (const working of [false, true]) {
    yield {
      name: `AdamW over ${millions}${working ? ', writing the bf16 copy' : ''}`,
      make(memory) {
        const [parameters, gradients, first] = [0, 1, 2].map(() => memory.random('float32', [n], 0.01))
        const second = memory.tensor('float32', [n], 0.01)
        const copy = working ? memory.tensor('bfloat16', [n]) : null
        const starts = memory.ints([0, Math.floor(n / 32)])
        const segmentRates = memory.tensor('float32', [2, 2], 1)
        const [norm, rates] = [memory.tensor('float32', [1], 1), memory.tensor('float32', [4], 1e-6)]
        return () =>
          run(
            'adamw',
            [parameters, gradients, first, second, copy, starts, segmentRates, norm, rates],
            [0.9, 0.999, 1e-6, 1],
          )
      },
      work: { bytes: (working ? 30 : 28) * n },
      peer: { op: 'adamw', parameters: n },
    }
  }
}
