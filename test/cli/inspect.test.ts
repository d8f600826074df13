/** `voltaic inspect`: the report, the same as JSON, and wrong usage. */
import { join } from 'node:path'
import t from 'tap'
import { voltaic } from '../helpers/training.js'

t.setTimeout(60_000)
const folder = t.testdir({
  'corpus.txt': 'The cat sat on the mat and it was the end of it.\n\nbell\u0007 cafÃ©\n\nbell\u0007 cafÃ©\n',
  'vocab.txt': '[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ncat\nsat\nmat\nzoo\n',
})
const corpus = join(folder, 'corpus.txt')
const vocabulary = join(folder, 'vocab.txt')

t.test('a report on standard output', async (t) => {
  const { code, stdout, stderr } = await voltaic(['inspect', corpus, '--vocab', vocabulary])
  t.equal(code, 0)
  t.equal(stderr, '')
  t.match(stdout, /^1 file, 0 kB: 3 documents, 3 lines, 17 words/)
  t.match(stdout, /documents: 1 of 3 repeat an earlier one/)
  t.match(stdout, /English 33\.3 %/)
  t.match(stdout, /control characters: 2 in 2 documents/)
  t.match(stdout, /corpus\.txt:3: bell<U\+0007> cafÃ©/)
  t.match(stdout, /mojibake.*: 2 in 2 documents/)
  t.match(stdout, /never used {8}1 of 10 entries, such as zoo/)
})

t.test('--json: one object with the same numbers', async (t) => {
  const { code, stdout } = await voltaic(['inspect', corpus, '--json', '--examples', '1'])
  t.equal(code, 0)
  const found = JSON.parse(stdout)
  t.match(found, { documents: 3, words: 17, duplicateDocuments: { repeats: 1, sampled: 1 } })
  t.equal(found.oddities[0].examples.length, 1)
  t.notOk('vocabulary' in found)
})

t.test('wrong usage', async (t) => {
  const cases: [string[], number, RegExp][] = [
    [[], 2, /missing required argument 'files'/],
    [[corpus, '--model', 'a', '--vocab', 'b'], 2, /not both/],
    [[corpus, '--cased'], 2, /--cased goes with --vocab/],
    [[corpus, '--examples', '0'], 2, /'0' is not 1 or more/],
    [[join(folder, 'missing.txt')], 1, /missing\.txt.*\[ERR_IO\]/],
  ]
  for (const [args, expected, message] of cases) {
    const { code, stdout, stderr } = await voltaic(['inspect', ...args])
    t.equal(code, expected, args.join(' '))
    t.match(stderr, message)
    t.equal(stdout, '')
  }
})
