/** CoNLL, CoNLL-U and SQuAD files. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { metrics, readConll, readConllu, readSquad, tagNamesOf } from '../../dist/tasks/index.js'
import { needsSharedData, sharedData } from '../helpers/shared.js'

const folder = t.testdir()

function file(name: string, content: unknown): string {
  const path = join(folder, name)
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content))
  return path
}

t.test('CoNLL: sentences, columns, separators', async (t) => {
  const path = file('a.conll', '-DOCSTART- -X- O O\n\nEU NNP B-ORG\r\nrejects VB O\n \t\nNew York\tB-LOC\n')
  const { sentences } = await readConll(path, { strict: true })
  t.same(sentences, [
    { words: ['EU', 'rejects'], tags: ['B-ORG', 'O'], line: 3 },
    { words: ['New York'], tags: ['B-LOC'], line: 6 },
  ])
  t.same(tagNamesOf(sentences), ['B-LOC', 'B-ORG', 'O'])
  const middle = await readConll(path, { tagColumn: 1, tags: 'any' })
  t.same(middle.sentences[0]?.tags, ['NNP', 'VB'])
})

t.test('CoNLL: a malformed line takes its sentence along', async (t) => {
  const path = file('bad.conll', 'a O\nb\nc O\n\nd B-X\n\ne NOUN\n\nf S-Y\n')
  const found = await readConll(path)
  t.same(
    found.sentences.map(({ line }) => line),
    [5, 9],
  )
  t.match(found.skipped, [
    { line: 2, problem: /1 columns/ },
    { line: 7, problem: /'NOUN' is neither O nor/ },
  ])
  await t.rejects(readConll(path, { strict: true }), { code: 'ERR_FORMAT', message: /bad\.conll:2: / })
  await t.rejects(readConll(file('none.conll', '\n\n')), {
    code: 'ERR_FORMAT',
    message: /holds no sentences/,
  })
})

t.test('CoNLL-U: words only', async (t) => {
  const row = (id: string, word: string, upos: string) => `${id}\t${word}\t_\t${upos}\tX\t_\t_\t_\t_\t_\n`
  const good = `# text = I'm\n${row('1-2', "I'm", '_')}${row('1', 'I', 'PRON')}${row('2', "'m", 'AUX')}${row('2.1', 'so', '_')}\n`
  const path = file('a.conllu', `${good}${row('1', 'x', '_')}\n1\ty\n`)
  const found = await readConllu(path)
  t.same(found.sentences, [{ words: ['I', "'m"], tags: ['PRON', 'AUX'], line: 3 }])
  t.match(found.skipped, [
    { line: 7, problem: /no upos/ },
    { line: 9, problem: /2 columns/ },
  ])
  t.same((await readConllu(path, { column: 'xpos' })).sentences[0]?.tags, ['X', 'X'])
})

const squad = (context: string, ...qas: unknown[]) => ({
  version: 'v2.0',
  data: [{ title: 'T', paragraphs: [{ context, qas }] }],
})

t.test('SQuAD: offsets count code points in the file, UTF-16 units here', async (t) => {
  const context = '😀 is a smile, 😀'
  const qas = [
    { id: '1', question: 'What?', answers: [{ text: 'a smile', answer_start: 5 }], is_impossible: false },
    { id: '2', question: 'Last?', answers: [{ text: '😀', answer_start: 14 }] },
    { id: '3', question: 'Why?', answers: [], plausible_answers: [], is_impossible: true },
  ]
  const { version, examples } = await readSquad(file('a.json', squad(context, ...qas)), { strict: true })
  t.equal(version, 'v2.0')
  t.same(examples[0], {
    id: '1',
    title: 'T',
    context,
    question: 'What?',
    answers: [{ text: 'a smile', start: 6 }],
    impossible: false,
  })
  for (const { answers } of examples) {
    for (const { text, start } of answers) t.equal(context.slice(start, start + text.length), text)
  }
  t.same(
    examples.map(({ impossible }) => impossible),
    [false, false, true],
  )
})

t.test('SQuAD: malformed questions and files', async (t) => {
  const good = { id: '1', question: 'q', answers: [{ text: 'b', answer_start: 1 }] }
  const path = file(
    'bad.json',
    squad('abc', good, good, { ...good, id: '2', is_impossible: true }, { question: 'q' }, null, {
      ...good,
      id: '3',
      answers: [{ text: 'b', answer_start: 2 }],
    }),
  )
  const found = await readSquad(path)
  t.equal(found.examples.length, 1)
  t.match(found.skipped, [
    { place: 'data[0].paragraphs[0].qas[1]', problem: /occurs twice/ },
    { problem: /is_impossible/ },
    { problem: /'id' is missing/ },
    { problem: /not an object/ },
    { problem: /'b' does not stand at answer_start 2/ },
  ])
  await t.rejects(readSquad(path, { strict: true }), { code: 'ERR_FORMAT', message: /qas\[1\]: the id 1/ })
  for (const wrong of [
    '{',
    '[]',
    '{"data":1}',
    '{"data":[]}',
    '{"data":[{"paragraphs":[{"context":"a"}]}]}',
  ]) {
    await t.rejects(
      readSquad(file('wrong.json', wrong)),
      { code: 'ERR_FORMAT', message: /wrong\.json: / },
      wrong,
    )
  }
})

t.test('real files: as many as their description says', needsSharedData, async (t) => {
  const at = (path: string) => join(sharedData!, path)
  for (const [part, sentences, words] of [
    ['train', 3_394, 62_730],
    ['dev', 1_009, 15_733],
    ['test', 1_287, 23_394],
  ] as const) {
    const found = await readConll(at(`ner/wnut17/${part}.conll`), { strict: true })
    t.equal(found.sentences.length, sentences, part)
    t.equal(
      found.sentences.reduce((sum, sentence) => sum + sentence.words.length, 0),
      words,
    )
    const tags = found.sentences.map((sentence) => sentence.tags)
    t.match(metrics.entityReport(tags, tags), { f1: 1 })
    if (part === 'test') t.equal(tagNamesOf(found.sentences).length, 13, 'six types')
  }
  const pud = await readConllu(at('pos/ud-en-pud/test.conllu'), { strict: true })
  t.equal(pud.sentences.length, 1_000)
  t.equal(
    pud.sentences.reduce((sum, sentence) => sum + sentence.words.length, 0),
    21_180,
  )
  for (const [path, questions, impossible] of [
    ['qa/squad-v1.1-train.json.gz', 7_524, 0],
    ['qa/squad-v1.1-dev.json', 1_071, 0],
    ['qa/squad-v2.0-train.json.gz', 5_842, 2_949],
    ['qa/squad-v2.0-dev.json', 1_970, 908],
    ['qa/xquad.es.json.gz', 1_190, 0],
    ['qa/xquad.ru.json.gz', 1_190, 0],
  ] as const) {
    const { examples } = await readSquad(at(path), { strict: true })
    t.equal(examples.length, questions, path)
    t.equal(examples.filter((example) => example.impossible).length, impossible)
    const answers = new Map(examples.map(({ id, answers: [answer] }) => [id, answer?.text ?? '']))
    t.match(metrics.squadV2Metrics(examples, answers), { exact: 100, f1: 100 })
  }
})
