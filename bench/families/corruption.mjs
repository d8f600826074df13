// Choosing and masking positions, and putting samples in their place.
import { run } from '../../dist/runtime/index.js'

export function* benchmarks({ tokens, lengths, masked, vocabulary }) {
  const length = lengths[0]
  const sequences = tokens / length
  const capacity = Math.ceil(masked * 1.075)
  const ids = (memory) => memory.ints(Array.from({ length: tokens }, (_, i) => 5 + (i % (vocabulary - 5))))
  const slots = (memory) => [0, 1].map(() => memory.tensor('int32', [capacity]))
  yield {
    name: `mask ${sequences}x${length}`,
    make(memory) {
      const [replaced, [positions, targets]] = [memory.tensor('int32', [tokens]), slots(memory)]
      const arguments_ = [ids(memory), memory.offsets(sequences, length), memory.ints([1, 0, 1, 0])]
      const count = memory.tensor('int32', [1])
      return () =>
        run(
          'corruption_mask',
          [...arguments_, replaced, positions, targets, count],
          [0.15, 0.85, Math.max(1, Math.round(0.15 * length)), 2, 3, 4, 4],
        )
    },
    work: { bytes: 8 * tokens },
  }
  yield {
    name: `replace ${sequences}x${length}`,
    make(memory) {
      const step = Math.max(1, Math.floor(tokens / capacity))
      const positions = memory.ints(Array.from({ length: capacity }, (_, i) => (i * step) % tokens))
      const samples = memory.ints(Array.from({ length: capacity }, (_, i) => 5 + (i % 50)))
      const [replaced, labels] = [0, 1].map(() => memory.tensor('int32', [tokens]))
      const [original, count] = [ids(memory), memory.ints([Math.min(masked, capacity)])]
      return () => run('corruption_replace', [original, positions, samples, count, replaced, labels])
    },
    work: { bytes: 12 * tokens },
  }
}
