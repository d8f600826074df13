/** SQuAD's official metrics, where the two versions agree and where they part. */
import t from 'tap'
import { metrics } from '../../dist/tasks/index.js'

const { normalizeAnswer, squadV1Metrics, squadV2Metrics } = metrics

const question = (id: string, ...answers: string[]) => ({ id, answers: answers.map((text) => ({ text })) })
const given = (answers: Record<string, string>) => new Map(Object.entries(answers))

t.test('normalization', async (t) => {
  for (const [text, wanted] of [
    ['The  U.S.A.!', 'usa'],
    ['An apple-pie', 'applepie'],
    ['x_y the_z', 'xy thez'],
    ['the', ''],
    ['\u201cThe\u201d end', '\u201c \u201d end'],
    ['caf\u00e9 \u00e9a an\u00e9', 'caf\u00e9 \u00e9a an\u00e9'],
    ['a\u00a0b\u3000c\x1fd\ufeff', 'b c d\ufeff'],
    ['theatre A', 'theatre'],
  ] as const) {
    t.equal(normalizeAnswer(text), wanted, JSON.stringify(text))
  }
})

t.test('1.1: the best over the right answers, in percent', async (t) => {
  const questions = [question('1', 'Paris', 'the city of Paris'), question('2', 'in 1999 in May')]
  const result = squadV1Metrics(questions, given({ 1: 'City of Paris', 2: 'in in in 1999' }))
  // Of the second: in twice and 1999 are common: 3 of 4 and 3 of 4.
  t.same(result, { exact_match: 50, f1: 87.5, total: 2 })
  t.same(
    squadV1Metrics(questions, given({ 1: 'Paris' })),
    { exact_match: 50, f1: 50, total: 2 },
    'missing is 0',
  )
})

t.test('empty after normalization: 0 in 1.1 and 1 in 2.0', async (t) => {
  const questions = [question('1', 'the')]
  t.match(squadV1Metrics(questions, given({ 1: 'a' })), { exact_match: 100, f1: 0 })
  t.match(squadV2Metrics(questions, given({ 1: 'a' })), { exact: 100, f1: 100 })
  t.match(squadV2Metrics(questions, given({ 1: 'word' })), { exact: 0, f1: 0 })
  const other = [question('1', 'the', 'cat')]
  t.match(squadV1Metrics(other, given({ 1: '' })), { exact_match: 100 })
  t.match(
    squadV2Metrics(other, given({ 1: '' })),
    { exact: 0, f1: 0 },
    '2.0 drops right answers that are empty',
  )
})

const questions = [question('a', 'red fox'), question('b', 'blue'), question('c'), question('d')]
const predictions = given({ a: 'red', b: 'blue', c: '', d: 'green' })

t.test('2.0: with and without an answer', async (t) => {
  const result = squadV2Metrics(questions, predictions)
  t.same(result, {
    exact: 50,
    f1: (100 * (2 / 3 + 2)) / 4,
    total: 4,
    HasAns_exact: 50,
    HasAns_f1: (100 * (2 / 3 + 1)) / 2,
    HasAns_total: 2,
    NoAns_exact: 50,
    NoAns_f1: 50,
    NoAns_total: 2,
  })
  t.notOk(
    'NoAns_total' in squadV2Metrics(questions.slice(0, 2), predictions),
    'a part without questions is absent',
  )
})

t.test('2.0: a threshold on null scores, and the best ones', async (t) => {
  const nullScores = new Map([
    ['d', 0.9],
    ['a', 0.3],
    ['b', 0.1],
    ['c', 0.5],
  ])
  const at = squadV2Metrics(questions, predictions, { nullScores, nullThreshold: 0.2 })
  t.match(at, { exact: 75, f1: 75, HasAns_exact: 50, NoAns_exact: 100 }, 'only b keeps its answer')
  // Starting at 2 (both without answer): b +1, a +0 or +2/3, c 0, d -1.
  t.match(at, { best_exact: 75, best_exact_thresh: 0.1, best_f1_thresh: 0.3 })
  t.ok(Math.abs(at.best_f1! - (100 * (3 + 2 / 3)) / 4) < 1e-12, 'a few roundings of a percent')
})

t.test('2.0: equal null scores are taken in their order, each by itself', async (t) => {
  const same = new Map([
    ['b', 0.5],
    ['d', 0.5],
    ['a', 0.5],
    ['c', 0.5],
  ])
  t.match(squadV2Metrics(questions, predictions, { nullScores: same }), {
    best_exact: 75,
    best_exact_thresh: 0.5,
  })
  const worse = new Map([...same].reverse())
  const all = squadV2Metrics(questions, predictions, { nullScores: worse })
  t.match(all, { best_exact: 50, best_exact_thresh: 0 }, 'no threshold is better than no answers')
})

t.test('normalization beyond ASCII is Python’s', async (t) => {
  // Checked with the regular expressions and str methods of Python 3.
  for (const [text, wanted] of [
    ['\u0130stanbul', 'i\u0307stanbul'],
    ['\u039f\u03a3 \u03a3', '\u03bf\u03c2 \u03c3'],
    ['THE\u0301 x', '\u0301 x'],
    ['a\u00aa the\u00b2 an\u4e2d', 'a\u00aa the\u00b2 an\u4e2d'],
    ['l\u2019an the\u2014end', 'l\u2019 \u2014end'],
    ['a an the', ''],
    ['the-the a.n', 'thethe'],
    ['\u2028x\u0085y\u200bz', 'x y\u200bz'],
  ] as const) {
    t.equal(normalizeAnswer(text), wanted, encodeURI(text))
  }
})

t.test('F1 counts repeated words as often as both sides have them', async (t) => {
  const f1 = (answer: string, prediction: string): number =>
    squadV1Metrics([question('q', answer)], given({ q: prediction })).f1
  t.equal(f1('x x y', 'x'), 50, '1 of 1 and 1 of 3')
  t.equal(f1('x', 'x x x'), 50)
  t.equal(f1('x y', 'y x'), 100, 'order does not count')
  t.equal(f1('1,000', '1000'), 100, 'punctuation goes, and parts nothing')
  t.equal(f1('1,000', '1 000'), 0)
})

t.test('2.0: all of one kind', async (t) => {
  const none = [question('a'), question('b')]
  const nullScores = new Map([
    ['a', 0.2],
    ['b', 0.4],
  ])
  const result = squadV2Metrics(none, given({ a: '', b: 'x' }), { nullScores })
  t.same(result, {
    ...{ exact: 50, f1: 50, total: 2, NoAns_exact: 50, NoAns_f1: 50, NoAns_total: 2 },
    ...{ best_exact: 100, best_exact_thresh: 0, best_f1: 100, best_f1_thresh: 0 },
  })
  const all = squadV2Metrics([question('a', 'the')], given({ a: '' }))
  t.match(
    all,
    { exact: 100, HasAns_exact: 100 },
    'an answer of an article alone counts as "", and as an answer',
  )
  t.notOk('NoAns_exact' in all)
  const punctuation = squadV2Metrics([question('c')], given({ c: '.' }), {
    nullScores: new Map([['c', 0.5]]),
  })
  t.match(punctuation, { exact: 100, best_exact: 100, best_exact_thresh: 0 }, 'a full stop is scored as ""')
})

t.test('what cannot be scored', async (t) => {
  t.throws(() => squadV1Metrics([question('x')], given({ x: '' })), { code: 'ERR_ARGUMENT' })
  t.throws(() => squadV1Metrics([], given({})), { code: 'ERR_ARGUMENT' })
  t.throws(() => squadV2Metrics(questions, given({ a: '' })), { code: 'ERR_ARGUMENT', message: /question b/ })
  const nullScores = new Map([['a', 1]])
  t.throws(() => squadV2Metrics(questions, predictions, { nullScores }), { code: 'ERR_ARGUMENT' })
})
