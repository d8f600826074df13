/** `voltaic predict`: lines in, answers out, in their order. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  ElectraForMaskedLM,
  ElectraForPreTraining,
  ElectraForQuestionAnswering,
  ElectraForSequenceClassification,
  pipeline,
} from 'voltaic'
import { voltaic } from '../helpers/training.js'
import { folderOf, labels, saveModel, textOf } from '../pipelines/models.js'

t.setTimeout(120_000)

const parsed = (output: string): unknown[] => {
  const lines = output.split('\n')
  if (lines.pop() !== '') throw new Error('the output ends within a line')
  return lines.map((line) => JSON.parse(line))
}
const predict = (folder: string, ...more: string[]) =>
  voltaic(['predict', '--model', folder, '--device', 'cpu', ...more])

t.test("text lines: the pipeline's own results, in order, whatever their lengths", async (t) => {
  const folder = await saveModel(t, ElectraForSequenceClassification, labels('no', 'yes'))
  const texts = Array.from({ length: 300 }, (_, i) => (i === 7 ? '' : textOf(1 + ((i * 13) % 50), i)))
  const file = join(folderOf(t), 'lines.txt')
  writeFileSync(file, `\ufeff${texts.join('\r\n')}\r\n`)
  const { code, stdout, stderr } = await predict(folder, file, '--top-k', 'all', '--batch-tokens', '200')
  t.equal(stderr, '')
  t.equal(code, 0)
  await using classify = await pipeline('text-classification', folder, { device: 'cpu' })
  t.same(parsed(stdout), await classify(texts, { top_k: null }))
})

t.test(
  'JSON lines with named fields; a bad line gives an error with its number, or ends the command',
  async (t) => {
    const folder = await saveModel(t, ElectraForSequenceClassification, labels('no', 'yes'))
    const lines = [
      '{"sentence1": "the boat", "sentence2": "was red", "label": 1}',
      '{"text": "a fish"}',
      '{"text": 5}',
      '{"txt": "a"}',
      '{"text": "a"',
      '["a"]',
      '{"text": "the boat", "text_pair": "was red"}',
    ]
    const file = join(folderOf(t), 'rows.jsonl')
    writeFileSync(file, lines.join('\n'))
    const { code, stdout } = await predict(folder, file)
    t.equal(code, 0)
    const found = parsed(stdout)
    t.equal(found.length, lines.length)
    t.same(found[0], found[6], "the readers' other names of columns")
    t.match(found[1], [{ label: /no|yes/, score: Number }])
    t.match(found.slice(2, 6), [
      { line: 3, code: 'ERR_ARGUMENT', error: /the text is 5; expected a string/ },
      { line: 4, code: 'ERR_FORMAT', error: /no field 'text' \(or sentence.*the line has txt/ },
      { line: 5, code: 'ERR_FORMAT', error: /no JSON/ },
      { line: 6, code: 'ERR_FORMAT', error: /named fields/ },
    ])
    const strict = await predict(folder, file, '--strict')
    t.equal(strict.code, 1)
    t.match(strict.stderr, /rows\.jsonl:3: .*the text is 5.*\[ERR_ARGUMENT\]/)
    t.equal(parsed(strict.stdout).length, 2, 'what was answered before is there')
    const asText = await predict(folder, file, '--format', 'text')
    t.equal(parsed(asText.stdout).length, lines.length)
    t.notMatch(asText.stdout, 'error')
  },
)

t.test(
  'questions about one context, from standard input; errors on every line fail the command',
  async (t) => {
    const folder = await saveModel(t, ElectraForQuestionAnswering)
    const context = join(folderOf(t), 'context.txt')
    const text = 'The chef cooked; the boat was red.'
    writeFileSync(context, text)
    const { code, stdout } = await voltaic(
      ['predict', '--model', folder, '--context', context, '--max-answer-len', '3', '--top-k', '2'],
      { input: 'what was red\nwho cooked\n' },
    )
    t.equal(code, 0)
    await using answer = await pipeline('question-answering', folder, { device: 'cpu' })
    t.same(
      parsed(stdout),
      await answer(['what was red', 'who cooked'], text, { top_k: 2, max_answer_len: 3 }),
    )
    const wrong = await voltaic(['predict', '--model', folder], { input: 'what was red\n' })
    t.equal(wrong.code, 1)
    t.match(parsed(wrong.stdout), [{ line: 1, error: /no field 'question'/ }])
    t.match(wrong.stderr, /standard input:1: no field 'question'/)
  },
)

t.test('tasks of the generator and the discriminator', async (t) => {
  const generator = await saveModel(t, ElectraForMaskedLM)
  const file = join(folderOf(t), 'lines.txt')
  writeFileSync(file, 'the [MASK] was red\na [MASK]\n')
  const filled = await predict(generator, file, '--top-k', '2')
  t.match(parsed(filled.stdout), [
    [{ token: Number }, { token: Number }],
    [{ sequence: /^a / }, {}],
  ])
  const options = ['--task', 'text-infilling', '--seed', '3', '--rounds', '2', '--temperature', '0.7']
  const infilled = await predict(generator, file, ...options)
  t.match(parsed(infilled.stdout), [[{ generated_text: /^the .* was red$/ }], [{ generated_text: /^a/ }]])

  const discriminator = await saveModel(t, ElectraForPreTraining)
  const pooled = await predict(discriminator, file, '--task', 'feature-extraction', '--pooling', 'mean')
  t.equal((parsed(pooled.stdout)[0] as number[]).length, 32)
  const ranked = await predict(discriminator, file, '--task', 'text-ranking', '--candidates', file)
  t.equal(
    (parsed(ranked.stdout)[0] as { corpus_id: number }[])[0]?.corpus_id,
    0,
    'a text is nearest to itself',
  )
})

t.test('wrong usage', async (t) => {
  const folder = await saveModel(t, ElectraForPreTraining)
  const cases: [string[], code: number, RegExp][] = [
    [['predict', '--model', folder, '--task', 'translation'], 2, /Allowed choices are text-classification/],
    [
      ['predict', '--model', folder, '--pooling', 'mean'],
      2,
      /--pooling is for feature-extraction, not for replaced/,
    ],
    [['predict', '--model', folder, join(folder, 'nowhere')], 1, /read .*nowhere.*\[ERR_IO\]/],
  ]
  for (const [args, code, message] of cases) {
    const result = await voltaic(args, { input: '' })
    t.equal(result.code, code, args.slice(3).join(' '))
    t.match(result.stderr, message)
    t.equal(result.stdout, '')
  }
})
