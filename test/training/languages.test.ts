/** Pre-training in several languages: shares that are said, bits that repeat, and runs that are not mixed up. */
import { join } from 'node:path'
import t from 'tap'
import { loadTokenizer, type PretrainEvent, type PretrainRun, pretrain } from 'voltaic'
import { needsSharedData, sharedData } from '../helpers/shared.js'
import {
  corpusText,
  metricsOf,
  repeatable,
  smallRun,
  train,
  voltaic,
  weightsOf,
} from '../helpers/training.js'

t.setTimeout(230_000)
const folder = t.testdir({
  'one.txt': corpusText(150, 1),
  'two.txt': corpusText(60, 2),
  'three.txt': corpusText(3, 3),
})
const at = (name: string): string => join(folder, name)
const languages = { one: [at('one.txt')], two: [at('two.txt')], three: [at('three.txt')] }
let count = 0
const options = (changes: Partial<PretrainRun> = {}): PretrainRun => ({
  ...smallRun,
  languages,
  output: at(`run-${count++}`),
  ...changes,
})

t.test(
  'a run in languages that is left and resumed is the run that was never stopped, to the bit',
  async (t) => {
    const events: PretrainEvent[] = []
    const whole = options({ onEvent: (event) => events.push(event), languageExponent: 0.5 })
    await train(whole)
    const parts = options({ languageExponent: 0.5 })
    for (const stop of [1, 5, 6, 13]) for await (const { step } of pretrain(parts)) if (step === stop) break
    await train(parts)
    t.same(weightsOf(parts.output), weightsOf(whole.output))
    t.same(repeatable(metricsOf(parts.output)), repeatable(metricsOf(whole.output)))
    const data = events.find((event) => event.kind === 'data')
    const shares = data?.kind === 'data' ? data.statistics.languages : []
    t.same(
      shares.map(({ name }) => name),
      ['one', 'two', 'three'],
    )
    const [first, , third] = shares
    t.ok(
      Math.abs((first!.share / third!.share) ** 2 / (first!.tokens / third!.tokens) - 1) < 1e-9,
      'shares are as the roots of the tokens',
    )

    await t.rejects(train({ ...parts, languageExponent: 1 }), {
      code: 'ERR_CONFIG',
      message: /languages was one, two, three by 0\.5, is one, two, three by 1/,
    })
    await t.rejects(train({ ...parts, languages: { ...languages, three: languages.two } }), {
      code: 'ERR_CONFIG',
    })
  },
)

t.test('what does not go with languages is refused', async (t) => {
  const refuse = async (changes: object, message: RegExp): Promise<void> => {
    await t.rejects(train(options(changes)), { code: 'ERR_CONFIG', message })
  }
  await refuse({ corpus: [at('one.txt')] }, /expected no corpus beside them/)
  await refuse({ languages: {} }, /languages is \{\}, expected one or more/)
  await refuse({ languages: { one: [] } }, /languages\.one is \[\], expected one file or more/)
  await refuse({ languages: ['one'] }, /expected an object from names to lists/)
  await refuse({ languageExponent: 2 }, /languageExponent is 2, expected a number from 0 to 1/)
})

t.test('on the command line: --language, for runs and vocabularies', async (t) => {
  const named = [
    '--language',
    `one=${at('one.txt')}`,
    at('two.txt'),
    '--language',
    `three=${at('three.txt')}`,
  ]
  const vocabulary = await voltaic(['train-vocab', ...named, '--vocab-size', '150', '--output', at('vocab')])
  t.equal(vocabulary.code, 0, vocabulary.stderr)
  const run = [
    '--vocab',
    at('vocab'),
    '--size',
    'tiny',
    '--steps',
    '1',
    '--batch-size',
    '2',
    '--threads',
    '1',
  ]
  const { code, stderr } = await voltaic(['pretrain', ...named, ...run, '--output', at('cli')])
  t.equal(code, 0, stderr)
  t.match(
    stderr,
    /language {3}one: 205 documents, .* tokens; \d+\.\d % of training\nlanguage {3}three: 3 documents/,
  )
  for (const [args, message] of [
    [['train-vocab', at('one.txt'), ...named], /--language stands in place of files/],
    [['train-vocab'], /missing required argument 'files'/],
    [['train-vocab', '--language', at('one.txt')], /names no language; write NAME=FILE/],
  ] as const) {
    const wrong = await voltaic([...args, '--vocab-size', '150', '--output', at('vocab')])
    t.equal(wrong.code, 2)
    t.match(wrong.stderr, message)
  }
})

t.test('the shared texts of five languages: every script gets its characters', needsSharedData, async (t) => {
  const file = (name: string): string[] => [join(sharedData as string, 'multilingual', `${name}.txt.gz`)]
  const output = at('multilingual')
  await train({
    ...smallRun,
    ...{ languages: { es: file('es'), ru: file('ru'), ko: file('ko'), th: file('th'), ja: file('ja') } },
    ...{ vocabSize: 6000, cased: true, steps: 2, output },
  })
  const tokenizer = await loadTokenizer(join(output, 'discriminator'))
  for (const [script, text] of [
    ['Latin', 'Todos los seres humanos nacen libres e iguales en dignidad y derechos'],
    ['Cyrillic', 'Все люди рождаются свободными и равными в своем достоинстве и правах'],
    ['Hangul', '모든 인간은 태어날 때부터 자유로우며'],
    ['Thai', 'มนุษย์ทั้งหลายเกิดมามีอิสระ'],
    ['Hiragana', 'すべての人間は、生まれながらにして自由であり'],
  ] as const) {
    const tokens = tokenizer.tokenize(text)
    t.notOk(tokens.includes('[UNK]'), `${script}: ${tokens.join(' ')}`)
  }
})
