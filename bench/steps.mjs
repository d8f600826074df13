// Whole pre-training steps on random tokens: what bench:pretrain and gpu:bench time.
import { JointTrainer } from '../dist/training/joint-trainer.js'
import { modelConfigs } from '../dist/training/model-configs.js'
import { resolvePretrainOptions } from '../dist/training/options.js'
import { flopsPerToken } from '../dist/training/plan.js'
import { device, summary } from './harness.mjs'

/** Full sequences of random ids. */
export function randomBatch(sequences, length, vocabulary, seed) {
  const tokens = sequences * length
  const first = Math.min(1000, vocabulary >> 1)
  const id = (i) => first + ((i * 7919 + seed * 104729) % (vocabulary - first))
  return {
    ids: Int32Array.from({ length: tokens }, (_, i) =>
      i % length === 0 ? 1 : i % length === length - 1 ? 2 : id(i),
    ),
    types: new Int32Array(tokens),
    positions: Int32Array.from({ length: tokens }, (_, i) => i % length),
    offsets: Int32Array.from({ length: sequences + 1 }, (_, i) => i * length),
    longest: length,
    epoch: 0,
  }
}

/** A trainer as pre-training makes it, and the arithmetic of its step. */
export function makeTrainer({ size, model, precision, batchSize, sequenceLength, vocabulary = 30522 }) {
  const settings = resolvePretrainOptions({
    output: '-',
    corpus: ['-'],
    size,
    model,
    batchSize,
    sequenceLength,
  })
  const configs = modelConfigs(settings, vocabulary, 0)
  const special = { clsTokenId: 1, sepTokenId: 2, maskTokenId: 3 }
  const flops = flopsPerToken(
    configs.discriminator,
    configs.generator,
    sequenceLength,
    settings.maskProbability,
  )
  return {
    trainer: new JointTrainer({ settings, ...configs, special, device, precision }),
    flopsPerStep: flops * batchSize * sequenceLength,
  }
}

/**
 * Seconds of a step: median, least and most of rounds of `stepsPerRound`, after `warm` steps. As in training, a step is queued before
 * the numbers of the one before are read. `spent()` true ends it early, after three rounds at least.
 */
export async function timeSteps(
  options,
  { warm = 5, rounds = 7, stepsPerRound = 4, spent = () => false } = {},
) {
  const { batchSize, sequenceLength, vocabulary = 30522 } = options
  const { trainer, flopsPerStep } = makeTrainer(options)
  try {
    const batches = [0, 1, 2, 3].map((seed) => randomBatch(batchSize, sequenceLength, vocabulary, seed))
    let count = 0
    let numbers
    const steps = async (many) => {
      let before
      for (let i = 0; i < many; i++, count++) {
        const now = trainer.queueStep(1000 + count, [batches[count % batches.length]])
        await before
        before = now
      }
      numbers = await before
    }
    await steps(warm)
    const seconds = []
    while (seconds.length < rounds && !(seconds.length >= 3 && spent())) {
      const begin = performance.now()
      await steps(stepsPerRound)
      seconds.push((performance.now() - begin) / 1000 / stepsPerRound)
    }
    const { loss } = numbers
    const parameters = trainer.countParameters().all
    return { ...summary(seconds), flopsPerStep, loss, parameters, graphs: trainer.graphs }
  } finally {
    trainer.dispose()
  }
}
