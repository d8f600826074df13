/** The area under the open-set classification rate: by hand, and against all pairs. */
import fc from 'fast-check'
import t from 'tap'
import { metrics } from '../../dist/tasks/index.js'

const { openSetAuc } = metrics

t.test('by hand', async (t) => {
  const inScope = [
    { score: 0.9, isRight: true },
    { score: 0.5, isRight: true },
    { score: 0.95, isRight: false },
    { score: 0.2, isRight: true },
  ]
  // Of 4 times 2 pairs: 2, 1 and a half, 0, and 0 are right.
  t.equal(openSetAuc(inScope, [0.3, 0.5]), 3.5 / 8)
  t.equal(openSetAuc(inScope, []), 3 / 4)
  t.throws(() => openSetAuc([], [0.5]), { code: 'ERR_ARGUMENT' })
})

t.test('it is the part of all pairs', async (t) => {
  // Few values, so that there are ties.
  const score = fc.integer({ min: 0, max: 8 }).map((eighths) => eighths / 8)
  fc.assert(
    fc.property(
      fc.array(fc.record({ score, isRight: fc.boolean() }), { minLength: 1, maxLength: 12 }),
      fc.array(score, { minLength: 1, maxLength: 12 }),
      (inScope, outOfScope) => {
        const pairs: number[] = inScope.flatMap((text) =>
          outOfScope.map((other) => {
            const higher = text.score > other ? 1 : text.score === other ? 0.5 : 0
            return text.isRight ? higher : 0
          }),
        )
        const expected = pairs.reduce((sum, pair) => sum + pair, 0) / pairs.length
        // Sums of at most 144 fractions.
        return Math.abs(openSetAuc(inScope, outOfScope) - expected) < 1e-12
      },
    ),
  )
  t.pass('holds for random scores')
})
