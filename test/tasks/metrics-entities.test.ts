/** Entities as seqeval's default mode finds them: its documented example, and tags that no scheme allows. */
import t from 'tap'
import { metrics } from '../../dist/tasks/index.js'

const spans = (...tags: string[]) =>
  metrics.entitySpans(tags).map(({ type, start, end }) => `${type} ${start}-${end}`)

t.test('spans', async (t) => {
  t.same(spans('B-PER', 'I-PER', 'O', 'B-LOC'), ['PER 0-1', 'LOC 3-3'], "seqeval's example")
  t.same(spans('O', 'O'), [])
  t.same(spans(), [])
  t.same(spans('B-A', 'B-A', 'I-A'), ['A 0-0', 'A 1-2'], 'B parts two of one type')
  t.same(spans('O', 'I-A', 'I-A', 'O'), ['A 1-2'], 'I without B opens')
  t.same(spans('B-A', 'I-B', 'I-B'), ['A 0-0', 'B 1-2'], 'I after another type opens')
  t.same(spans('I-A', 'I-B'), ['A 0-0', 'B 1-1'])
  t.same(spans('B-A', 'I-A', 'E-A', 'S-B', 'S-B'), ['A 0-2', 'B 3-3', 'B 4-4'], 'BIOES')
  t.same(spans('B-A', 'E-A', 'E-A', 'I-A'), ['A 0-1', 'A 2-2', 'A 3-3'], 'E closes, what follows opens')
  t.same(spans('S-A', 'I-A'), ['A 0-0', 'A 1-1'], 'S closes')
  t.same(spans('O', 'E-A'), ['A 1-1'])
  t.same(spans('B-A', 'S-A'), ['A 0-0', 'A 1-1'])
  t.same(
    spans('B-creative-work', 'I-creative-work'),
    ['creative-work 0-1'],
    'the type is all behind the first dash',
  )
  t.same(spans('B-', 'I-'), ['_ 0-1'], 'no type')
  t.same(spans('B', 'I', 'O', 'B', 'B'), ['_ 0-1', '_ 3-3', '_ 4-4'], 'bare tags are of one type')
  t.same(spans('B-', 'I', 'B-_', 'I'), ['_ 0-1', '_ 2-3'], 'which has a name')
  t.same(spans('B', 'I-A'), ['_ 0-0', 'A 1-1'])
  t.same(spans('-A', 'O'), ['A 0-0'], 'any other letter opens by its type')
  t.same(spans('O', '.', 'B-A', '.', 'I-A'), ['A 2-2', 'A 4-4'], 'a full stop is outside, as in conlleval')
  t.throws(() => spans('O', ''), { code: 'ERR_ARGUMENT' })
})

t.test('tags of spans, and back', async (t) => {
  const found = metrics.entitySpans(['B-A', 'I-A', 'I-A', 'O', 'I-B', 'B-B', 'I-B'])
  t.same(metrics.tagsOfSpans(found, 7, 'BIOES'), ['B-A', 'I-A', 'E-A', 'O', 'S-B', 'B-B', 'E-B'])
  const plain = metrics.tagsOfSpans(found, 7, 'BIO')
  t.same(plain, ['B-A', 'I-A', 'I-A', 'O', 'B-B', 'B-B', 'I-B'])
  t.same(metrics.entitySpans(plain), found)
  const overlap = [
    { type: 'A', start: 0, end: 1 },
    { type: 'B', start: 1, end: 2 },
  ]
  t.throws(() => metrics.tagsOfSpans(overlap, 3, 'BIO'), { code: 'ERR_ARGUMENT' })
  t.throws(() => metrics.tagsOfSpans(overlap.slice(1), 2, 'BIO'), { code: 'ERR_ARGUMENT' })
})

t.test("seqeval's example of a report", async (t) => {
  const labels = [
    ['O', 'O', 'O', 'B-MISC', 'I-MISC', 'I-MISC', 'O'],
    ['B-PER', 'I-PER', 'O'],
  ]
  const predictions = [
    ['O', 'O', 'B-MISC', 'I-MISC', 'I-MISC', 'I-MISC', 'O'],
    ['B-PER', 'I-PER', 'O'],
  ]
  const report = metrics.entityReport(labels, predictions)
  t.match(report, { precision: 0.5, recall: 0.5, f1: 0.5, support: 2 })
  t.same(report.byType, [
    { label: 'MISC', precision: 0, recall: 0, f1: 0, support: 1 },
    { label: 'PER', precision: 1, recall: 1, f1: 1, support: 1 },
  ])
  t.match(report.macro, { f1: 0.5 })
  t.equal(metrics.tokenAccuracy(labels, predictions), 0.8)
})

t.test('an entity that is right in one sentence is not right in another', async (t) => {
  const labels = [['B-A', 'I-A'], ['O', 'O'], ['B-A']]
  const predictions = [['O', 'O'], ['B-A', 'I-A'], ['B-A']]
  t.match(metrics.entityReport(labels, predictions), { precision: 0.5, recall: 0.5, support: 2 })
  t.match(metrics.entityReport([['B-A'], ['I-A']], [['B-A'], ['B-A']]), { f1: 1, support: 2 }, 'none crosses')
  t.match(metrics.entityReport([['B-A', 'O']], [['B-A', 'I-A']]), { f1: 0, support: 1 }, 'an end too late')
  t.match(
    metrics.entityReport([['B-A', 'B-A']], [['B-A', 'I-A']]),
    { precision: 0, recall: 0 },
    'two are not one',
  )
  t.match(metrics.entityReport([['O']], [['B-A']]), {
    f1: 0,
    support: 0,
    macro: { precision: 0, recall: 0, f1: 0 },
    weighted: { f1: 0 },
  })
})

t.test('no entity on either side, an empty sentence, a type that was only predicted', async (t) => {
  t.match(metrics.entityReport([['O'], []], [['O'], []]), { precision: 0, recall: 0, f1: 0, byType: [] })
  const report = metrics.entityReport([['B-A', 'O']], [['B-A', 'B-B']])
  t.match(report, { precision: 0.5, recall: 1, f1: 2 / 3, support: 1 })
  t.equal(report.macro.f1, 0.5)
  t.equal(report.weighted.f1, 1)
  t.match(metrics.entityReport([['I-A', 'I-A']], [['B-A', 'I-A']]), { f1: 1 }, 'invalid BIO, the same entity')
  t.match(metrics.entityReport([['B-A', 'I-A']], [['B-A', 'I-B']]), { f1: 0 })
  t.throws(() => metrics.entityReport([['O']], [['O', 'O']]), { code: 'ERR_ARGUMENT' })
  t.throws(() => metrics.tokenAccuracy([], []), { code: 'ERR_ARGUMENT' })
})
