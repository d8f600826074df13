import t from 'tap'
import {
  ElectraForJointPreTraining,
  ElectraForMaskedLM,
  ElectraForPreTraining,
  generatorConfig,
  maskedCapacity,
} from '../../dist/electra/index.js'
import { memoryStats } from '../../dist/runtime/index.js'
import { scope } from '../../dist/tensor/index.js'
import { device, smallConfig, special } from './helpers.js'

// In a process of its own, so that the peak is the step's.
const skip = device.kind === 'cpu' ? false : 'counted on the CPU'
t.test(
  'a training step keeps what backward cannot do without, of one model at a time',
  { skip },
  async (t) => {
    const [width, wide, layers, vocabulary, length, sequences] = [64, 256, 6, 4000, 48, 8]
    const rows = Array.from({ length: sequences }, (_, row) =>
      Array.from({ length }, (_, i) => 10 + (((row * length + i) * 7919) % (vocabulary - 10))),
    )
    const config = smallConfig({
      vocabSize: vocabulary,
      embeddingSize: width,
      hiddenSize: width,
      intermediateSize: wide,
      numHiddenLayers: layers,
      hiddenDropoutProb: 0.1,
      attentionProbsDropoutProb: 0.1,
    })
    // As large as the discriminator, so that it would show.
    const joint = new ElectraForJointPreTraining(
      new ElectraForMaskedLM(generatorConfig(config, 1), { device, seed: 1 }),
      new ElectraForPreTraining(config, { device, seed: 1 }),
      { ...special, sequenceLength: length },
    )
    const { arena } = joint
    const step = (): void => scope(() => joint.forwardBackward({ inputIds: rows }).loss.dispose())
    step()
    const before = memoryStats(device)
    const tokens = sequences * length
    // float32, of each layer: x, queries, keys, values, context, both sums, the middle, and the pre-activation.
    const activations = 4 * tokens * layers * (8 * width + wide)
    // A tile of logits and its gradient.
    const logits = 2 * 4 * maskedCapacity(tokens, 0.15, length) * 2048
    // Embeddings, the heads and gradients under way; statistics of LayerNorm and attention, and whole pages.
    const rest = 4 * tokens * (8 * width + 2 * wide) + 2 ** 20
    const bound = activations + logits + rest
    const most = before.peakAllocatedBytes - before.allocatedBytes
    t.ok(most < bound, `${most} bytes beside parameters at the peak, expected less than ${bound}`)
    t.ok(bound < 2 * activations, 'two models would not fit')
    // Weights that did not change are packed at their second use.
    step()
    const { systemAllocations } = memoryStats(device)
    step()
    t.equal(memoryStats(device).systemAllocations, systemAllocations, 'the third takes no new memory')
    arena.dispose()
  },
)
