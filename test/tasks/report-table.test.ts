/** Tables for a terminal: the whole confusion matrix where it fits, else what is confused most. */
import t from 'tap'
import { confusionTable, scoreTable } from '../../dist/tasks/report-table.js'

t.test('as many classes as fit 80 columns are shown whole', async (t) => {
  const matrix = (classes: number) =>
    Array.from({ length: classes }, (_, row) =>
      Array.from({ length: classes }, (_, at) => (row === at ? 9 : 1)),
    )
  const names = (classes: number) => Array.from({ length: classes }, (_, at) => `label of a long name ${at}`)
  const small = confusionTable(names(12), matrix(12))
  t.match(small, /^rows: labels; columns: predictions\n +1 +2 /)
  t.equal(small.split('\n').length, 14)
  const large = confusionTable(names(77), matrix(77))
  t.match(large, /^label +predicted +examples\n/)
  t.equal(large.split('\n').length, 21, 'the header and 20 pairs')
  for (const table of [small, large]) t.ok(table.split('\n').every((line) => line.length <= 80))
})

t.test('the pairs confused most come first; without any there is nothing', async (t) => {
  const matrix = Array.from({ length: 40 }, () => new Array<number>(40).fill(0))
  matrix[3]![5] = 2
  matrix[7]![1] = 9
  matrix[4]![4] = 50
  const names = matrix.map((_, at) => `n${at}`)
  t.equal(
    confusionTable(names, matrix),
    ['label  predicted  examples', 'n7            n1         9', 'n3            n5         2'].join('\n'),
  )
  matrix[3]![5] = 0
  matrix[7]![1] = 0
  t.equal(confusionTable(names, matrix), '')
})

t.test('long names are cut by characters, not by halves of them', async (t) => {
  const scores = { precision: 1, recall: 0.5, f1: 2 / 3, support: 4 }
  const table = scoreTable([{ label: '😀'.repeat(60), ...scores }], [{ label: 'macro average', ...scores }])
  t.match(table, `\n${'😀'.repeat(35)}…  `)
  t.match(table, /1\.000 +0\.500 +0\.667 +4$/)
})
