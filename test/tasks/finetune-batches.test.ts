/** An epoch's batches: every sequence once, similar lengths together, an order that seed and epoch decide. */
import fc from 'fast-check'
import t from 'tap'
import { epochBatches } from '../../dist/tasks/finetune-batches.js'

const lengths = fc.array(fc.integer({ min: 2, max: 128 }), { minLength: 1, maxLength: 400 })

t.test('every sequence stands in one batch, once; all batches but one are full', async (t) => {
  fc.assert(
    fc.property(
      lengths,
      fc.integer({ min: 1, max: 40 }),
      fc.nat(1000),
      fc.nat(20),
      (lengths, size, seed, epoch) => {
        const batches = epochBatches(lengths, size, seed, epoch)
        const places = batches.flat().sort((a, b) => a - b)
        const isPermutation = places.length === lengths.length && places.every((place, at) => place === at)
        const short = batches.filter((batch) => batch.length !== size)
        return isPermutation && short.length <= 1 && batches.length === Math.ceil(lengths.length / size)
      },
    ),
  )
  t.pass()
})

t.test('the order follows from seed and epoch alone, and both change it', async (t) => {
  const lengths = Array.from({ length: 300 }, (_, index) => 5 + ((index * 37) % 60))
  const order = (seed: number, epoch: number): string => JSON.stringify(epochBatches(lengths, 8, seed, epoch))
  t.equal(order(1, 0), order(1, 0))
  t.not(order(1, 0), order(1, 1))
  t.not(order(1, 0), order(2, 0))
})

t.test('sequences of a batch have similar lengths, and long batches do not come all together', async (t) => {
  const lengths = Array.from({ length: 6400 }, (_, index) => 5 + ((index * 7919) % 100))
  const batches = epochBatches(lengths, 32, 1, 0).map((batch) =>
    batch.map((index) => lengths[index] as number),
  )
  const padded = batches.reduce((sum, batch) => sum + Math.max(...batch) * batch.length, 0)
  const tokens = lengths.reduce((sum, length) => sum + length, 0)
  // 50 batches share the range of 100 lengths, so one spans two or three.
  t.ok(padded < 1.06 * tokens, `padding would cost ${(padded / tokens - 1).toFixed(3)}`)
  const means = batches.map((batch) => batch.reduce((sum, length) => sum + length, 0) / batch.length)
  const half = means.length / 2
  const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length
  // Means of 100 shuffled batches each: their difference has a standard deviation of 4.
  t.ok(Math.abs(mean(means.slice(0, half)) - mean(means.slice(half))) < 16)
  const climbs = means.filter((value, at) => at > 0 && value > (means[at - 1] as number)).length
  t.ok(climbs > 70 && climbs < 130, `${climbs} of 199 steps from one batch to the next are upwards`)
})
