/** Scores from logits, also where exp would overflow. */
import fc from 'fast-check'
import t from 'tap'
import { bestClass, sigmoid, softmax } from '../../dist/tasks/class-scores.js'

const logit = fc.double({ min: -1e4, max: 1e4, noNaN: true })
/** A few roundings of double precision. */
const isClose = (found: number, expected: number): boolean => Math.abs(found - expected) <= 1e-12

t.test('softmax: by hand, and far from zero', async (t) => {
  t.same(softmax([]), new Float64Array(0))
  t.same(softmax([1000, 1000]), Float64Array.of(0.5, 0.5))
  t.same(softmax([-1e30, 0]), Float64Array.of(0, 1))
  const [first, second] = softmax([Math.log(3), 0])
  t.ok(isClose(first as number, 0.75) && isClose(second as number, 0.25))
})

t.test('softmax: a distribution that does not change with what is added to all logits', async (t) => {
  fc.assert(
    fc.property(
      fc.array(logit, { minLength: 1, maxLength: 6 }),
      fc.integer({ min: -64, max: 64 }),
      (row, shift) => {
        const scores = softmax(row)
        const shifted = softmax(row.map((value) => value + shift))
        const total = scores.reduce((sum, score) => sum + score, 0)
        // Adding to a logit rounds it by up to 1e-12 at 10,000, and a score follows.
        return (
          isClose(total, 1) && scores.every((score, at) => Math.abs(score - (shifted[at] as number)) < 1e-11)
        )
      },
    ),
  )
  t.pass('holds for random rows')
})

t.test('sigmoid: the softmax of two, one of them 0', async (t) => {
  fc.assert(fc.property(logit, (x) => isClose(sigmoid(x), softmax([x, 0])[0] as number)))
  t.equal(sigmoid(0), 0.5)
  t.equal(sigmoid(1000), 1)
  t.equal(sigmoid(-1000), 0)
})

t.test('the best class is the first of the largest', async (t) => {
  t.equal(bestClass([1, 3, 3, 2]), 1)
  t.equal(bestClass([]), -1)
})
