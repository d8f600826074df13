// Choosing and masking positions of 32 x 128 tokens, and putting samples in their place.
import { run, upload } from '../../dist/runtime/index.js'
import { arena } from '../harness.mjs'

export function* benchmarks() {
  const [sequences, length, capacity] = [32, 128, 688]
  const tokens = sequences * length
  const memory = arena()
  const ids = memory.tensor('int32', [tokens])
  upload(
    ids,
    Int32Array.from({ length: tokens }, (_, i) => 1000 + (i % 2000)),
  )
  const offsets = memory.tensor('int32', [sequences + 1])
  upload(
    offsets,
    Int32Array.from({ length: sequences + 1 }, (_, i) => i * length),
  )
  const state = memory.tensor('int32', [4], 1)
  const [masked, replaced, labels] = [0, 1, 2].map(() => memory.tensor('int32', [tokens]))
  const [positions, targets] = [0, 1].map(() => memory.tensor('int32', [capacity]))
  const count = memory.tensor('int32', [1])
  yield {
    name: `mask ${sequences}x${length}`,
    queue: () =>
      run(
        'corruption_mask',
        [ids, offsets, state, masked, positions, targets, count],
        [0.15, 0.85, 19, 101, 102, 103, 4],
      ),
    work: { bytes: 8 * tokens },
    free: () => undefined,
  }
  yield {
    name: `replace ${sequences}x${length}`,
    queue: () => run('corruption_replace', [ids, positions, targets, count, replaced, labels]),
    work: { bytes: 12 * tokens },
    free: memory.free,
  }
}
