/** Tables, texts and labels: TSV, CSV, JSON lines; which rows come out, with which lines, and what is said of the others. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import t from 'tap'
import {
  glueMetrics,
  glueTask,
  labelNamesOf,
  readGlue,
  readTaskFile,
  readTextExamples,
} from '../../dist/tasks/index.js'
import { needsSharedData, sharedData } from '../helpers/shared.js'

const folder = t.testdir()

function file(name: string, content: string | Buffer): string {
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}

const fields = async (path: string, options = {}) =>
  (await readTaskFile(path, options)).rows.map((row) => [row.line, ...row.fields])

t.test('TSV: quotes are characters, CRLF and a byte order mark go, empty lines count as lines', async (t) => {
  const path = file('a.tsv', '\ufeffx\ty\r\n"a\tb"\r\n\r\nc\t\n')
  t.same(await fields(path), [
    [2, '"a', 'b"'],
    [4, 'c', ''],
  ])
  t.same(await fields(file('b.tsv.gz', gzipSync('1\t2\n')), { columns: ['x', 'y'] }), [[1, '1', '2']])
})

t.test('CSV: quotes, commas and line ends inside', async (t) => {
  const path = file('a.csv', 'x,y\n"a, ""b""\nc",d\n,"e"\r\nf,g "h"\n')
  t.same(await fields(path), [
    [2, 'a, "b"\nc', 'd'],
    [4, '', 'e'],
    [5, 'f', 'g "h"'],
  ])
  await t.rejects(fields(file('b.csv', 'x,y\na,b\nc,"d\ne,f\n')), {
    code: 'ERR_FORMAT',
    message: /b\.csv:3: a quote/,
  })
  const odd = await readTaskFile(file('c.csv', 'x,y\n"a"b,c\nd,e\n'))
  t.match(odd, { rows: [{ line: 3 }], skipped: [{ line: 2, problem: /goes on behind its closing quote/ }] })
})

t.test('CSV: what is written by the rules is read back', async (t) => {
  const cell = fc.string({ unit: fc.constantFrom('a', '"', ',', '\n', '\r', 'é', '😀') })
  const quoted = (text: string) => `"${text.replaceAll('"', '""')}"`
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(cell, cell), { minLength: 1, maxLength: 5 }), async (rows) => {
      const path = file('p.csv', rows.map((row) => `${row.map(quoted).join(',')}\n`).join(''))
      const found = await readTaskFile(path, { columns: ['x', 'y'], strict: true })
      t.strictSame(
        found.rows.map((row) => row.fields),
        rows,
      )
    }),
    { numRuns: 50 },
  )
})

t.test('JSON lines: columns are the fields that occur', async (t) => {
  const path = file('a.jsonl', '{"text":"a","label":1}\n\n{"label":2,"extra":[3],"text":"b"}\n')
  const table = await readTaskFile(path)
  t.same(table.columns, ['text', 'label', 'extra'])
  t.same(await fields(path), [
    [1, 'a', 1],
    [3, 'b', 2, [3]],
  ])
  await t.rejects(readTaskFile(path, { columns: ['x'] }), { code: 'ERR_CONFIG' })
})

t.test('malformed rows are left out with their lines, or end a strict reading', async (t) => {
  const path = file('bad.tsv', 'text\tlabel\na\tx\nb\nc\ty\tz\nd\ty\n')
  const table = await readTaskFile(path)
  t.same(
    table.rows.map((row) => row.line),
    [2, 5],
  )
  t.match(table.skipped, [{ line: 3, problem: '1 columns, expected the 2 of text, label' }, { line: 4 }])
  await t.rejects(readTaskFile(path, { strict: true }), {
    code: 'ERR_FORMAT',
    message: /bad\.tsv:3: 1 columns/,
  })
  const json = file('bad.jsonl', `{"a":1}\n[1]\n{"a"\n${'['.repeat(100_000)}\n`)
  t.same(
    (await readTaskFile(json)).skipped.map((row) => row.line),
    [2, 3, 4],
  )
})

t.test('files that cannot be read at all', async (t) => {
  await t.rejects(readTaskFile(join(folder, 'none.tsv')), { code: 'ERR_IO' })
  await t.rejects(readTaskFile(file('x.dat', 'a\n')), { code: 'ERR_CONFIG', message: /set format/ })
  await t.rejects(readTaskFile(file('empty.tsv', '')), { code: 'ERR_FORMAT', message: /empty/ })
  await t.rejects(readTaskFile(file('empty.jsonl', '\n')), { code: 'ERR_FORMAT', message: /holds no rows/ })
  await t.rejects(readTaskFile(file('header.csv', 'a,b\n')), { code: 'ERR_FORMAT', message: /holds no rows/ })
  await t.rejects(readTaskFile(file('all.csv', 'a,b\n1\n2\n')), {
    code: 'ERR_FORMAT',
    message: /none of its 2 rows.*line 2/,
  })
  const latin = Buffer.from('a\tb\nc\td\ncaf\xe9\tx\n', 'latin1')
  await t.rejects(readTaskFile(file('latin.tsv', latin)), {
    code: 'ERR_FORMAT',
    message: /latin\.tsv:3: not UTF-8/,
  })
  const broken = gzipSync('a\tb\n'.repeat(1000)).subarray(0, 30)
  await t.rejects(readTaskFile(file('broken.tsv.gz', broken)), { code: 'ERR_FORMAT', message: /gzip/ })
})

t.test('a gzip bomb is stopped', async (t) => {
  const member = gzipSync(Buffer.alloc(2 ** 23, `${'a'.repeat(63)}\n`))
  const bomb = file('bomb.tsv.gz', Buffer.concat(new Array(20).fill(member)))
  await t.rejects(readTaskFile(bomb), { code: 'ERR_FORMAT', message: /more than 96 MiB/ })
  const lines = file('lines.csv.gz', gzipSync('\n'.repeat(4_000_001), { level: 1 }))
  await t.rejects(readTaskFile(lines), { code: 'ERR_FORMAT', message: /more than 4000000 lines/ })
})

t.test('rows of separators and a wrong kind of file do not fill the memory', async (t) => {
  const wide = file('wide.tsv', `a\tb\nc\td\n${'\t'.repeat(100_000)}\n`)
  t.match(await readTaskFile(wide), {
    rows: [{ line: 2 }],
    skipped: [{ line: 3, problem: 'more than 1000 columns' }],
  })
  await t.rejects(readTaskFile(file('wide.csv', ','.repeat(100_000))), {
    message: /wide\.csv:1: more than 1000/,
  })
  const names = JSON.stringify(Object.fromEntries(Array.from({ length: 1000 }, (_, at) => [`x${at}`, 1])))
  t.match(await readTaskFile(file('wide.jsonl', `{"a":1}\n${names}\n`)), {
    columns: ['a'],
    skipped: [{ line: 2, problem: /more than 1000 different fields/ }],
  })
  const wrong = file('wrong.csv', `a,b\n${'c\n'.repeat(10_001)}`)
  await t.rejects(readTaskFile(wrong), {
    code: 'ERR_FORMAT',
    message: /more than 10000 malformed rows.*line 2/,
  })
})

t.test('texts, pairs and labels by the names of columns', async (t) => {
  const { examples } = await readTextExamples(
    file('pairs.tsv', 'label\tid\tsentence1\tsentence2\nyes\t7\ta\tb\n'),
  )
  t.same(examples, [{ text: 'a', pair: 'b', label: 'yes', line: 2 }])
  const named = file('named.csv', 'q,a,class,label\nx,y,1,unused\n')
  const options = { textColumn: 'q', pairColumn: 'a', labelColumn: 'class' }
  t.same((await readTextExamples(named, options)).examples, [{ text: 'x', pair: 'y', label: '1', line: 2 }])
  await t.rejects(readTextExamples(named), { code: 'ERR_CONFIG', message: /no column of texts.*textColumn/ })
  await t.rejects(readTextExamples(named, { textColumn: 'z' }), {
    code: 'ERR_CONFIG',
    message: /'z' \(textColumn\)/,
  })
  const pairs = file('single.tsv', 'sentence1\tsentence2\tlabel\na\tb\tyes\n')
  t.same((await readTextExamples(pairs, { textColumn: 'sentence1' })).examples, [
    { text: 'a', label: 'yes', line: 2 },
  ])
  const twice = file('twice.csv', 'text,label,label\na,b,c\n')
  await t.rejects(readTextExamples(twice), { code: 'ERR_CONFIG', message: /two columns 'label'/ })
  const bare = file('bare.tsv', 'a\nb\n')
  const texts = await readTextExamples(bare, { columns: ['text'], labels: 'none' })
  t.same(texts.examples, [
    { text: 'a', line: 1 },
    { text: 'b', line: 2 },
  ])
})

t.test('kinds of labels', async (t) => {
  const path = file(
    'labels.jsonl',
    '{"text":"a","labels":["x","y"]}\n{"text":"b","labels":[]}\n{"text":"c","labels":[null]}\n',
  )
  const several = await readTextExamples(path, { labels: 'multiple' })
  t.same(
    several.examples.map(({ label }) => label),
    [['x', 'y'], []],
  )
  t.match(several.skipped, [{ line: 3, problem: /expected a name/ }])
  t.same(labelNamesOf(several.examples), ['x', 'y'])
  const tsv = file('labels.tsv', 'text\tlabel\na\tx,y\nb\t\n')
  t.same(
    (await readTextExamples(tsv, { labels: 'multiple' })).examples.map(({ label }) => label),
    [['x', 'y'], []],
  )
  const numbers = file('numbers.tsv', 'text\tlabel\na\t1.5\nb\t\nc\tmuch\nd\t-2e1\n')
  const scores = await readTextExamples(numbers, { labels: 'number' })
  t.same(
    scores.examples.map(({ label }) => label),
    [1.5, -20],
  )
  t.same(
    scores.skipped.map(({ line }) => line),
    [3, 4],
  )
})

t.test('an unknown label names its line and the labels that are known', async (t) => {
  const path = file('unknown.tsv', 'text\tlabel\na\tgood\nb\tugly\n')
  const options = { labelNames: ['good', 'bad'] }
  t.match(await readTextExamples(path, options), {
    examples: [{ label: 'good' }],
    skipped: [{ line: 3, problem: "the label 'ugly' is unknown, expected one of good, bad" }],
  })
  await t.rejects(readTextExamples(path, { ...options, strict: true }), {
    code: 'ERR_FORMAT',
    message: /:3: the label 'ugly'/,
  })
})

t.test('GLUE: names, columns, labels', async (t) => {
  t.equal(glueTask('SST').name, 'sst-2')
  t.equal(glueTask('stsb').name, 'sts-b')
  t.throws(() => glueTask('toString'), { code: 'ERR_CONFIG', message: /cola, sst-2/ })
  const rte = file('rte.tsv', 'index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n1\tc\td\tmaybe\n')
  t.match(await readGlue('rte', rte, 'dev'), {
    examples: [{ text: 'a', pair: 'b', label: 'entailment', line: 2 }],
    skipped: [{ line: 3, problem: /'maybe', expected one of entailment, not_entailment/ }],
  })
  t.same((await readGlue('cola', file('cola.tsv', 'gj04\t0\t*\tBad this.\n'), 'train')).examples, [
    { text: 'Bad this.', label: '0', line: 1 },
  ])
  t.same((await readGlue('cola', file('test.tsv', 'index\tsentence\n0\tIt is.\n'), 'test')).examples, [
    { text: 'It is.', line: 2 },
  ])
  await t.rejects(readGlue('mrpc', rte, 'dev'), {
    code: 'ERR_FORMAT',
    message: /4 columns are too few for mrpc/,
  })
  await t.rejects(readGlue('rte', rte, 'diagnostic'), { code: 'ERR_CONFIG' })
})

t.test('GLUE: metrics', async (t) => {
  t.same(glueMetrics('mrpc', [1, 1, 0], [1, 0, 0]), { accuracy: 2 / 3, f1: 2 / 3 })
  t.same(Object.keys(glueMetrics('sts-b', [1, 2, 3], [1, 2, 4])), ['spearman', 'pearson', 'meanSquaredError'])
  t.same(glueMetrics('cola', [1, 1], [1, 1]), { matthewsCorrelation: 0, accuracy: 1 })
})

t.test('real files: all rows, none skipped', needsSharedData, async (t) => {
  for (const [name, path, split, rows] of [
    ['sst-2', 'glue/SST-2/train.tsv.gz', 'train', 67_349],
    ['sst-2', 'glue/SST-2/dev.tsv', 'dev', 872],
    ['cola', 'glue/CoLA/train.tsv', 'train', 8_551],
    ['cola', 'glue/CoLA/dev.tsv', 'dev', 1_043],
    ['rte', 'glue/RTE/train.tsv', 'train', 2_490],
    ['rte', 'glue/RTE/dev.tsv', 'dev', 277],
    ['sts-b', 'glue/STS-B/train.tsv', 'train', 5_749],
    ['sts-b', 'glue/STS-B/dev.tsv', 'dev', 1_500],
  ] as const) {
    const found = await readGlue(name, join(sharedData!, path), split, { strict: true })
    t.equal(found.examples.length, rows, path)
  }
  for (const [path, rows, labels] of [
    ['cls/banking77/train.tsv', 10_003, 77],
    ['cls/banking77/test.tsv', 3_080, 77],
    ['cls/subjectivity/train.tsv', 9_000, 2],
    ['cls/subjectivity/dev.tsv', 1_000, 2],
  ] as const) {
    const { examples } = await readTextExamples(join(sharedData!, path), { strict: true })
    t.equal(examples.length, rows, path)
    t.equal(labelNamesOf(examples).length, labels)
  }
})
