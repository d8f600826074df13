/** Temperature and threshold on logits that were made so that the answers are known. */
import fc from 'fast-check'
import t from 'tap'
import {
  defineElectraConfig,
  electraConfigToJson,
  parseElectraConfig,
} from '../../dist/formats/electra-config.js'
import {
  calibratedScores,
  calibrationConfig,
  calibrationOf,
  fitTemperature,
  isOutOfScope,
  thresholdForBalance,
  thresholdForRecall,
} from '../../dist/tasks/calibration.js'

/** `right` of `all` examples with these logits have label 0, the others 1. */
const repeated = (logits: number[], right: number, all: number) =>
  Array.from({ length: all }, (_, at) => ({ logits, label: at < right ? 0 : 1 }))

/** The bisection ends at 1e-14 of the temperature's logarithm; sums of some hundred terms round by less than 1e-9. */
const isClose = (found: number, expected: number): boolean => Math.abs(found / expected - 1) < 1e-9

t.test('temperature: the one at which the probability is the frequency', async (t) => {
  // Right in 3 of 4 cases with a logit of 4 more: softmax(4 / T) = 3 / 4 where T = 4 / ln 3.
  t.ok(isClose(fitTemperature(repeated([4, 0], 3, 4)), 4 / Math.log(3)))
  t.ok(isClose(fitTemperature(repeated([0.5, 0], 9, 10)), 0.5 / Math.log(9)), 'below 1, too')
})

t.test('temperature: none beside it has a smaller negative log-likelihood', async (t) => {
  const logit = fc.double({ min: -4, max: 4, noNaN: true })
  const example = fc.record({
    logits: fc.array(logit, { minLength: 3, maxLength: 3 }),
    label: fc.nat({ max: 2 }),
  })
  fc.assert(
    fc.property(fc.array(example, { minLength: 1, maxLength: 8 }), (examples) => {
      const lossAt = (temperature: number): number =>
        examples.reduce((total, { logits, label }) => {
          const scores = calibratedScores(logits, { temperature })
          return total - Math.log(scores[label] as number)
        }, 0)
      const found = fitTemperature(examples)
      const beside = [0.99 * found, 1.01 * found].filter((one) => one >= 0.05 && one <= 20)
      // Sums of eight logarithms round by less than 1e-12.
      return beside.every((one) => lossAt(one) >= lossAt(found) - 1e-12)
    }),
  )
  t.pass('holds for random logits')
})

t.test('temperature: its ends', async (t) => {
  t.equal(fitTemperature(repeated([1, 0], 5, 5)), 0.05, 'all right: as sure as allowed')
  t.equal(fitTemperature(repeated([1, 0], 1, 5)), 20, 'mostly wrong: as unsure as allowed')
  t.throws(() => fitTemperature([]), { code: 'ERR_ARGUMENT' })
})

t.test('threshold by recall: the highest that keeps the wanted part', async (t) => {
  const scores = Array.from({ length: 20 }, (_, at) => (20 - at) / 20)
  t.equal(thresholdForRecall(scores, 0.95), 0.1, 'one of 20 may go')
  t.equal(thresholdForRecall(scores, 1), 0.05)
  t.equal(thresholdForRecall([0.5, 0.5, 0.5], 0.4), 0.5, 'equal scores stay together')
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1, maxLength: 50 }),
      fc.integer({ min: 1, max: 100 }),
      (scores, percent) => {
        const threshold = thresholdForRecall(scores, percent / 100)
        const keeps = (least: number) => scores.filter((score) => score >= least).length
        const higher = scores.filter((score) => score > threshold)
        const isEnough = (kept: number): boolean => kept * 100 >= percent * scores.length
        return isEnough(keeps(threshold)) && (higher.length === 0 || !isEnough(keeps(Math.min(...higher))))
      },
    ),
  )
})

t.test('threshold with texts out of scope: the best balanced accuracy, halfway between scores', async (t) => {
  t.equal(thresholdForBalance([0.75, 0.875], [0.25, 0.5]), 0.625, 'parted cleanly')
  // Above 0.25: (3/3 + 1/2) / 2; above 0.5: (2/3 + 2/2) / 2, which is more.
  t.equal(thresholdForBalance([0.5, 0.75, 1], [0.25, 0.5]), 0.625)
  t.equal(thresholdForBalance([0.25], [0.5]), 0, 'nothing is rejected where that would only harm')
  const { MIN_VALUE } = Number
  t.equal(thresholdForBalance([11 * MIN_VALUE], [10 * MIN_VALUE]), 11 * MIN_VALUE, 'nothing lies between')
  const score = fc.double({ min: 0, max: 1, noNaN: true })
  fc.assert(
    fc.property(
      fc.array(score, { minLength: 1, maxLength: 20 }),
      fc.array(score, { minLength: 1, maxLength: 20 }),
      (inside, outside) => {
        const balanced = (threshold: number): number =>
          inside.filter((one) => one >= threshold).length / inside.length +
          outside.filter((one) => one < threshold).length / outside.length
        const found = balanced(thresholdForBalance(inside, outside))
        // A millionth: sums of fractions round.
        return [0, ...inside, ...outside].every((threshold) => balanced(threshold) <= found + 1e-6)
      },
    ),
  )
})

t.test('what is out of scope: below the threshold', async (t) => {
  const scores = calibratedScores([2 * Math.log(3), 0], { temperature: 2 })
  t.ok(Math.abs((scores[0] as number) - 0.75) < 1e-12)
  t.notOk(isOutOfScope(scores, { threshold: 0.74 }))
  t.ok(isOutOfScope(scores, { threshold: 0.76 }))
})

t.test('it stands in config.json beside what else is there', async (t) => {
  const calibration = { temperature: 1.5, threshold: 0.25, outOfScopeLabel: 'oos' }
  const { extra } = calibrationConfig(calibration)
  t.same(extra, { voltaic_calibration: { temperature: 1.5, threshold: 0.25, out_of_scope_label: 'oos' } })
  const config = defineElectraConfig({ extra: { ...extra, other: 1 } })
  const json = electraConfigToJson(config)
  t.equal(json.other, 1)
  t.same(calibrationOf(parseElectraConfig(JSON.parse(JSON.stringify(json)), 'test')), calibration)
  t.equal(calibrationOf(defineElectraConfig()), undefined)
  for (const change of [
    { temperature: 0 },
    { threshold: 2 },
    { threshold: '0.5' },
    { out_of_scope_label: null },
  ]) {
    const damaged = { voltaic_calibration: { ...(extra.voltaic_calibration as object), ...change } }
    t.throws(() => calibrationOf({ extra: damaged }), {
      code: 'ERR_CONFIG',
      message: /voltaic_calibration is/,
    })
  }
  t.throws(() => calibrationOf({ extra: { voltaic_calibration: 'x' } }), { code: 'ERR_CONFIG' })
})
