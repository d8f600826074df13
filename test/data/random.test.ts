/** The data pipeline's random numbers: the published vectors of Philox4x32-10, and the order of an epoch as a permutation. */
import fc from 'fast-check'
import t from 'tap'
import { createDraws, createPermutation, philox4x32, randomSite } from '../../dist/data/random.js'

function count(counts: Uint32Array, at: number): void {
  counts[at] = (counts[at] ?? Number.NaN) + 1
}

t.test('philox gives the vectors of the Random123 distribution', async (t) => {
  const vectors: [key: [number, number], counter: [number, number, number, number], expected: number[]][] = [
    [
      [0, 0],
      [0, 0, 0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0xa4093822, 0x299f31d0],
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ]
  for (const [key, counter, expected] of vectors) {
    const words = new Uint32Array(4)
    philox4x32(words, key, counter)
    t.same([...words], expected)
  }
})

t.test('draws depend on seed, site and counter, and start again where asked', async (t) => {
  const first = (seed: number, site: 0xda7a0001 | 0xda7a0002, counter: number): number[] => {
    const draws = createDraws(seed, site, counter)
    return Array.from({ length: 9 }, () => draws.word())
  }
  const { pairs, order } = randomSite
  t.same(first(7, pairs, 3), first(7, pairs, 3))
  t.notSame(first(7, pairs, 3), first(8, pairs, 3))
  t.notSame(first(7, pairs, 3), first(7 + 2 ** 40, pairs, 3), 'the upper half of the seed counts')
  t.notSame(first(7, pairs, 3), first(7, order, 3))
  t.notSame(first(7, pairs, 3), first(7, pairs, 3 + 2 ** 33), 'the upper half of the counter counts')
  const draws = createDraws(7, pairs, 11)
  for (let i = 0; i < 5; i++) draws.word()
  draws.restart(3)
  t.same(
    Array.from({ length: 9 }, () => draws.word()),
    first(7, pairs, 3),
  )
  for (const seed of [-1, 0.5, Number.NaN, 2 ** 53])
    t.throws(() => createDraws(seed, pairs), { code: 'ERR_ARGUMENT' })
})

t.test('whole numbers come from the whole range, evenly', async (t) => {
  const draws = createDraws(1, randomSite.pairs)
  const counts = new Uint32Array(8)
  for (let i = 0; i < 80_000; i++) count(counts, draws.integer(5, 12) - 5)
  // Expected 10,000 each with a standard deviation of 94: five of them.
  for (const count of counts) t.ok(Math.abs(count - 10_000) < 470, `${count} of 80,000`)
})

t.test('an epoch order has every item once', async (t) => {
  const property = fc.property(
    fc.integer({ min: 1, max: 3000 }),
    fc.nat(),
    fc.nat(50),
    (items, seed, epoch) => {
      const item = createPermutation(items, seed, epoch)
      const seen = new Uint32Array(items)
      for (let place = 0; place < items; place++) count(seen, item(place))
      return seen.every((times) => times === 1)
    },
  )
  t.doesNotThrow(() => fc.assert(property))
  const large = createPermutation(2 ** 32, 5, 0)
  const items = new Set(Array.from({ length: 20_000 }, (_, place) => large(place * 200_003)))
  t.equal(items.size, 20_000, 'at the largest size too')
  t.throws(() => createPermutation(0, 1, 0), { code: 'ERR_ARGUMENT' })
})

t.test('epoch orders are shuffled: any item is about as likely at any place', async (t) => {
  const items = 5
  const epochs = 20_000
  const counts = new Uint32Array(items * items)
  for (let epoch = 0; epoch < epochs; epoch++) {
    const item = createPermutation(items, 42, epoch)
    for (let place = 0; place < items; place++) count(counts, place * items + item(place))
  }
  // Expected 4,000 with a standard deviation of 57: six of them.
  for (const times of counts) t.ok(Math.abs(times - 4000) < 340, `${times} of ${epochs}`)
  const neighbours = createPermutation(100_000, 42, 0)
  let together = 0
  for (let place = 1; place < 100_000; place++) {
    if (Math.abs(neighbours(place) - neighbours(place - 1)) === 1) together += 1
  }
  // About 2 are expected of a random order.
  t.ok(together < 15, `${together} neighbours stayed neighbours`)
})
