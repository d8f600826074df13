/** Metrics of classes and numbers against scikit-learn's and SciPy's definitions. The expected values are worked by hand. */
import t from 'tap'
import { VoltaicError } from '../../dist/runtime/errors.js'
import { metrics } from '../../dist/tasks/index.js'
import { averageRanks } from '../../dist/tasks/metrics-regression.js'

/** Sums and quotients of a few numbers: some roundings of doubles. */
const rounding = 1e-15
const near = (t: Tap, found: number, wanted: number, what: string) =>
  t.ok(Math.abs(found - wanted) <= rounding, `${what}: ${found}, expected ${wanted}`)
type Tap = Pick<typeof t, 'ok'>

const labels = [0, 1, 2, 0, 1, 2]
const predictions = [0, 2, 1, 0, 0, 1]

t.test('averages of three classes: the example of scikit-learn', async (t) => {
  const of = (average: 'micro' | 'macro' | 'weighted') =>
    metrics.precisionRecallF1(labels, predictions, { average })
  near(t, of('macro').precision, 2 / 9, 'macro precision')
  near(t, of('macro').recall, 1 / 3, 'macro recall')
  near(t, of('macro').f1, 0.8 / 3, 'macro F1 is the mean of F1s')
  near(t, of('micro').f1, 1 / 3, 'micro')
  near(t, of('weighted').f1, 0.8 / 3, 'weighted')
  near(t, metrics.accuracy(labels, predictions), 1 / 3, 'accuracy')
  t.same(metrics.confusionMatrix(labels, predictions, 3), [
    [2, 0, 0],
    [1, 0, 1],
    [0, 2, 0],
  ])
})

t.test('weights are supports, and absent classes do not dilute the macro average', async (t) => {
  const truth = [0, 0, 0, 3]
  const guess = [0, 0, 3, 3]
  const macro = metrics.precisionRecallF1(truth, guess, { average: 'macro' })
  near(t, macro.f1, (0.8 + 2 / 3) / 2, 'classes that occur')
  near(
    t,
    metrics.precisionRecallF1(truth, guess, { average: 'weighted' }).f1,
    (3 * 0.8 + 2 / 3) / 4,
    'weighted',
  )
  const all = metrics.precisionRecallF1(truth, guess, { average: 'macro', classes: 4 })
  near(t, all.f1, (0.8 + 2 / 3) / 4, 'all classes, when asked for')
})

t.test('binary: one class counts, and what would divide by zero is 0', async (t) => {
  t.same(metrics.precisionRecallF1([1, 0, 1, 1], [1, 1, 0, 1]), {
    precision: 2 / 3,
    recall: 2 / 3,
    f1: 2 / 3,
    support: 3,
  })
  t.same(metrics.precisionRecallF1([0, 0], [0, 0]), { precision: 0, recall: 0, f1: 0, support: 0 })
  near(t, metrics.precisionRecallF1([0, 0, 1], [0, 0, 0], { positive: 0 }).precision, 2 / 3, 'positive 0')
})

t.test("Matthews' correlation", async (t) => {
  near(t, metrics.matthewsCorrelation([1, 1, 1, 0], [1, 0, 1, 1]), -1 / 3, 'binary')
  near(t, metrics.matthewsCorrelation(labels, predictions), 0, 'three classes: right as often as by chance')
  near(t, metrics.matthewsCorrelation([0, 1, 2, 2], [0, 1, 2, 1]), 7 / Math.sqrt(10 * 10), 'three classes')
  t.equal(metrics.matthewsCorrelation([1, 1, 0], [1, 1, 1]), 0, 'predictions all one class')
  t.equal(metrics.matthewsCorrelation([1, 1], [1, 1]), 0, 'both all one class, though all right')
  t.equal(metrics.matthewsCorrelation([0, 1, 0, 1], [1, 0, 1, 0]), -1, 'all wrong')
})

t.test('the report has a row for each label, also for one that never occurs', async (t) => {
  const report = metrics.classificationReport([0, 1, 1], [0, 1, 0], ['no', 'yes', 'maybe'])
  t.same(report.byLabel, [
    { label: 'no', precision: 0.5, recall: 1, f1: 2 / 3, support: 1 },
    { label: 'yes', precision: 1, recall: 0.5, f1: 2 / 3, support: 2 },
    { label: 'maybe', precision: 0, recall: 0, f1: 0, support: 0 },
  ])
  t.equal(report.accuracy, 2 / 3)
  near(t, report.weighted.precision, (0.5 + 2) / 3, 'weighted')
  t.same(report.confusion[1], [1, 1, 0])
})

t.test('several labels an example', async (t) => {
  const report = metrics.multiLabelReport([[0, 2], [1], []], [[0], [1, 2], []], ['a', 'b', 'c'])
  near(t, report.subsetAccuracy, 1 / 3, 'only the empty one is all right')
  near(t, report.micro.f1, 2 / 3, 'micro')
  near(t, report.macro.f1, 2 / 3, 'macro')
  t.same(report.byLabel[2], { label: 'c', precision: 0, recall: 0, f1: 0, support: 1 })
})

t.test('correlations', async (t) => {
  const x = [1, 2, 3, 4, 5]
  const y = [5, 6, 7, 8, 7]
  // Deviations -2 -1 0 1 2 and -1.6 -.6 .4 1.4 .4: 6 over the root of 10 and 5.2.
  near(t, metrics.pearsonCorrelation(x, y), 6 / Math.sqrt(52), 'Pearson')
  // Ranks 1 2 3.5 5 3.5: 8 over the root of 10 and 9.5.
  near(t, metrics.spearmanCorrelation(x, y), 8 / Math.sqrt(95), 'Spearman, the example of SciPy')
  t.same([...averageRanks([10, 20, 10, 10, 5])], [3, 5, 3, 3, 1], 'ties share the mean rank')
  near(t, metrics.spearmanCorrelation([1, 2, 3], [1, 100, 1e300]), 1, 'only the order counts, for any size')
  t.equal(metrics.pearsonCorrelation(x, [2, 4, 6, 8, 10]), 1)
  near(t, metrics.pearsonCorrelation([1e200, 2e200, 3e200], [3e-200, 2e-200, 1e-200]), -1, 'no overflow')
  t.ok(Number.isNaN(metrics.pearsonCorrelation([1, 2, 3], [4, 4, 4])), 'a constant has no correlation')
  t.ok(Number.isNaN(metrics.spearmanCorrelation([0.1, 0.1, 0.1], [1, 2, 3])))
  t.ok(Number.isNaN(metrics.spearmanCorrelation([1, 2, Number.NaN], [1, 2, 3])), 'NaN in, NaN out')
  t.equal(metrics.meanSquaredError([1, 2], [2, 4]), 2.5)
})

t.test('improper arguments', async (t) => {
  for (const wrong of [
    () => metrics.accuracy([1, 2], [1]),
    () => metrics.accuracy([], []),
    () => metrics.confusionMatrix([2], [0], 2),
    () => metrics.confusionMatrix([0], [-1], 2),
    () => metrics.pearsonCorrelation([1], [1]),
    () => metrics.multiLabelReport([[3]], [[0]], ['a']),
  ]) {
    t.throws(wrong, { name: VoltaicError.name, code: 'ERR_ARGUMENT' })
  }
})
