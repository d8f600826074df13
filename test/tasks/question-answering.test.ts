/** Question answering: training windows, decoding, thresholds, metrics, both heads; a model that learns where answers are. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { ElectraForJointQuestionAnswering, ElectraForQuestionAnswering } from '../../dist/electra/index.js'
import { defineElectraConfig } from '../../dist/formats/electra-config.js'
import {
  type AnswerFeature,
  type AnswerPrediction,
  kindOptionsOf,
  nullThresholdOf,
  type Outputs,
  type SquadExample,
  squadPredictions,
  type Task,
  taskKind,
} from '../../dist/tasks/index.js'
import { loadVocabulary } from '../../dist/text/index.js'
import { needsSharedData, sharedData } from '../helpers/shared.js'
import { learn } from './learning.js'
import { letterTokenizer } from './letters.js'

type AnswerTask = Task<SquadExample, AnswerFeature, AnswerPrediction>

const tokenizer = letterTokenizer(['東', '京'])

/** A question about a context, answered by each of these texts where it stands first; by none: not answered. */
function ask(context: string, question: string, ...answers: string[]): SquadExample {
  return {
    id: `${question} ${context}`,
    title: '',
    context,
    question,
    answers: answers.map((text) => ({ text, start: context.indexOf(text) })),
    impossible: answers.length === 0,
  }
}

const learned = (name: string, examples: readonly SquadExample[], options = {}) =>
  taskKind(name, options).learn(examples) as AnswerTask
const answered = [ask('a b c d e f g h', 'q', 'c d')]
const windows = { maxLength: 8, stride: 2 }

t.test('the head and the version', async (t) => {
  const kind = taskKind('question-answering')
  t.same(kind.defaults, { epochs: 2, maxLength: 512 })
  t.equal(learned('squad', answered).model, ElectraForQuestionAnswering)
  t.equal(learned('squad-v2', answered, { head: 'original' }).model, ElectraForJointQuestionAnswering)
  t.equal(learned('squad', answered).metric, 'f1')
  for (const head of ['huggingface', 'original'] as const) {
    const { config, model } = learned('squad', answered, { head })
    t.equal(kind.restore(defineElectraConfig(config)).model, model, `the folder says ${head}`)
  }
  const saved = defineElectraConfig(learned('squad', answered, { head: 'original' }).config)
  const head = taskKind('squad', { head: 'huggingface' })
  t.throws(() => head.restore(saved), { code: 'ERR_CONFIG', message: /needs an ElectraForQuestionAnswering/ })
})

t.test('a window is labelled with the answer when it holds all of it, else with [CLS]', async (t) => {
  const task = learned('squad', answered)
  const features = task.features(answered, tokenizer, { ...windows, training: true })
  t.same(
    features.map(({ inputIds, target }) => [
      tokenizer.convertIdsToTokens(inputIds.slice(3, -1)).join(''),
      target?.start,
      target?.end,
    ]),
    [
      ['abcd', 5, 6],
      ['cdef', 3, 4],
      ['efgh', 0, 0],
    ],
  )
  t.equal(task.features(answered, tokenizer, { ...windows, training: false })[0]?.target, undefined)
})

t.test('what cannot be learned from is left out; what has no answer is [CLS] in version 2', async (t) => {
  const none = ask('a b c', 'q')
  const blank = ask('a b c', 'r', ' ')
  const train = { ...windows, training: true }
  t.same(learned('squad', answered).features([none, blank], tokenizer, train), [])
  const [feature, ...rest] = learned('squad-v2', answered).features([none, blank], tokenizer, train)
  t.same(feature?.target, { start: 0, end: 0, impossible: 1 })
  t.same(rest, [])
  const recognised = learned('question-answering', [...answered, none])
  t.equal(recognised.features([none], tokenizer, train).length, 1, 'by the questions')
  t.equal(recognised.features([none], tokenizer, { ...train, training: false }).length, 1)
})

t.test('law: the labelled tokens are the fewest that hold the answer', async () => {
  const character = fc.constantFrom('a', 'b', 'é', '東', '😀', ' ', '\u200b', '.')
  const text = fc.array(character, { minLength: 1, maxLength: 30 })
  fc.assert(
    fc.property(text, fc.nat({ max: 29 }), fc.nat({ max: 6 }), (characters, from, more) => {
      const first = from % characters.length
      const chosen = characters.slice(first, first + 1 + more)
      const context = characters.join('')
      const answer = { text: chosen.join(''), start: characters.slice(0, first).join('').length }
      if (answer.text.trim() === '') return true
      const example = { ...ask(context, 'q'), answers: [answer] }
      const [feature] = learned('squad', [example]).features([example], tokenizer, {
        maxLength: 64,
        training: true,
      })
      const { target, offsets, first: place } = feature!
      const end = answer.start + answer.text.length
      const count = offsets.length / 2
      if (target!.start === 0) {
        // Only where the answer begins before the first token or ends behind the last.
        return count === 0 || offsets[0]! > answer.start || offsets[2 * count - 1]! < end
      }
      const [start, last] = [target!.start - place, target!.end - place]
      const holds = (a: number, b: number) => offsets[2 * a]! <= answer.start && offsets[2 * b + 1]! >= end
      return (
        holds(start, last) &&
        !(start + 1 <= last && holds(start + 1, last)) &&
        !(last - 1 >= start && holds(start, last - 1))
      )
    }),
  )
})

t.test('of real questions in Spanish and Russian every answer is found again', needsSharedData, async (t) => {
  const real = await loadVocabulary(join(sharedData!, 'vocab/bert-multi-cased-vocab.txt'), { cased: true })
  for (const language of ['es', 'ru']) {
    const { examples } = await taskKind('squad').read(join(sharedData!, `qa/xquad.${language}.json.gz`), {})
    const some = (examples as SquadExample[]).slice(0, 300)
    const task = learned('squad', some)
    const found = task
      .features(some, real, { maxLength: 384, stride: 128, training: true })
      .filter(({ target }) => target!.start > 0)
    t.ok(found.length >= some.length, `${language}: ${found.length} windows with an answer of ${some.length}`)
    const wrong = found.filter(({ example, context, offsets, first, target }) => {
      const start = offsets[2 * (target!.start - first)]
      const end = offsets[2 * (target!.end - first) + 1]
      return context.slice(start, end) !== some[example]!.answers[0]!.text
    })
    t.same(wrong.length, 0, 'exactly')
  }
})

/** Logits with so much at the places of one span, and at [CLS]. */
function say({ inputIds }: AnswerFeature, span: [number, number, number] | null, none: number): Outputs {
  const [start, end] = [new Float32Array(inputIds.length), new Float32Array(inputIds.length)]
  start[0] = none
  end[0] = none
  if (span !== null) {
    start[span[0]] = span[2]
    end[span[1]] = span[2]
  }
  return { start, end }
}

const questions = [ask('a b c d e f g h', 'q', 'c d', 'd'), ask('a b c', 'r', 'b'), ask('a b c', 's')]

t.test('version 1: the best answer of all windows, in percent', async (t) => {
  const task = learned('squad', questions.slice(0, 2))
  const features = task.features(questions.slice(0, 2), tokenizer, { ...windows, training: false })
  const outputs = [
    say(features[0]!, [5, 6, 3], 9),
    say(features[1]!, [5, 5, 2], 9),
    say(features[2]!, null, 9),
    say(features[3]!, [3, 3, 5], 0),
  ]
  const predictions = task.decode(questions.slice(0, 2), features, outputs)
  t.match(predictions, [
    { text: 'c d', best: 'c d', start: 4, end: 7, nullScore: 12 },
    { text: 'a', start: 0, end: 1, nullScore: -10 },
  ])
  t.same(task.metrics(questions.slice(0, 2), predictions), { exact_match: 50, f1: 50, total: 2 })
  t.same(squadPredictions(questions, predictions), {
    'q a b c d e f g h': 'c d',
    'r a b c': 'a',
    's a b c': '',
  })
  const record = task.record(questions[0]!, predictions[0]!)
  t.match(record, { id: 'q a b c d e f g h', prediction_text: 'c d', start: 4, end: 7, null_score: 12 })
  t.equal(task.report(questions, predictions), '')
})

t.test(
  'version 2: no answer where the null score is above the threshold, which calibrate finds',
  async (t) => {
    const kind = taskKind('squad-v2')
    const task = kind.learn(questions) as AnswerTask
    const features = task.features(questions, tokenizer, { maxLength: 16, training: false })
    // Right answers with null scores of 2 and 4, and a wrong one with 6.
    const outputs = [
      say(features[0]!, [5, 6, 1], 2),
      say(features[1]!, [4, 4, 1], 3),
      say(features[2]!, [5, 5, 1], 4),
    ]
    const predictions = task.decode(questions, features, outputs)
    t.match(predictions, [
      { text: '', best: 'c d', nullScore: 2 },
      { text: '', best: 'b', nullScore: 4 },
      { text: '', best: 'c', nullScore: 6 },
    ])
    t.match(task.record(questions[0]!, predictions[0]!), {
      prediction_text: '',
      start: undefined,
      null_score: 2,
    })
    const before = task.metrics(questions, predictions)
    t.match(before, { total: 3, HasAns_f1: 0, NoAns_f1: 100, best_f1: 100, best_f1_thresh: 4 })
    const found = task.calibrate!(questions, features, outputs)
    t.same(found, { extra: { voltaic_calibration: { null_score_difference: 4 } } })
    const config = defineElectraConfig({ ...task.config, ...found })
    t.same(kindOptionsOf(config), {}, 'which is nothing to a classifier')
    for (const again of [
      kind.restore(config),
      taskKind('question-answering').restore(config),
    ] as AnswerTask[]) {
      const better = again.decode(questions, features, outputs)
      t.same(
        better.map(({ text }) => text),
        ['c d', 'b', ''],
      )
      t.match(again.metrics(questions, better), { f1: 100 })
      const alone = again.decode(questions.slice(2), [{ ...features[2]!, example: 0 }], outputs.slice(2))
      t.equal(alone[0]?.text, '', 'also where all questions have answers')
    }
    t.same(learned('squad', answered).calibrate!(answered, [], []), {}, 'nothing in version 1')
  },
)

t.test('where it is best to answer nothing, the threshold says so', async (t) => {
  const none = [ask('a b c', 'q'), ask('a b c', 'r')]
  const task = learned('squad-v2', none)
  const features = task.features(none, tokenizer, { maxLength: 16, training: false })
  const outputs = [say(features[0]!, [4, 4, 5], 0), say(features[1]!, [4, 4, 1], 2)]
  const { extra } = task.calibrate!(none, features, outputs)
  const threshold = nullThresholdOf({ extra: extra! })!
  t.equal(threshold, -11)
  const config = defineElectraConfig({ ...task.config, extra: extra! })
  const again = taskKind('squad-v2').restore(config) as AnswerTask
  t.match(again.metrics(none, again.decode(none, features, outputs)), { f1: 100 })
})

t.test('the original head: its answerability logit decides, at -2.75 unless calibrated', async (t) => {
  const task = learned('squad-v2', questions, { head: 'original' })
  const features = task.features(questions, tokenizer, { maxLength: 16, training: false })
  const logits = [-3, -2.75, -2.5]
  const outputs = logits.map((logit) => ({
    beams: Float32Array.of(4, 4, -0.5),
    unanswerable: Float32Array.of(logit),
  }))
  const predictions = task.decode(questions, features, outputs)
  t.same(
    predictions.map(({ text, nullScore }) => [text, nullScore]),
    [
      ['b', -3],
      ['b', -2.75],
      ['', -2.5],
    ],
  )
})

t.test('an empty context has no answer, and damaged thresholds are refused', async (t) => {
  const empty = [ask(' ', 'q', ' ')]
  const task = learned('squad', empty)
  const features = task.features(empty, tokenizer, { maxLength: 16, training: false })
  const predictions = task.decode(empty, features, [say(features[0]!, null, 1)])
  t.match(predictions, [{ text: '', best: '', nullScore: 2 }])
  t.same(task.metrics(empty, predictions).exact_match, 100)
  const extra = { voltaic_calibration: { null_score_difference: '1' } }
  t.throws(() => nullThresholdOf({ extra }), {
    code: 'ERR_CONFIG',
    message: /null_score_difference .* is "1"/,
  })
  t.equal(nullThresholdOf({ extra: {} }), undefined)
  t.equal(nullThresholdOf({ extra: { voltaic_calibration: { temperature: 1 } } }), undefined)
})

t.test('files of SQuAD', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'voltaic-squad-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const file = join(folder, 'train.json')
  const qas = [
    { id: '1', question: 'q', answers: [{ text: 'b', answer_start: 2 }] },
    { id: '2', question: 'q', answers: [{ text: 'b', answer_start: 1 }] },
  ]
  await writeFile(file, JSON.stringify({ data: [{ paragraphs: [{ context: 'a b', qas }] }] }))
  const { examples, skipped } = await taskKind('squad').read(file, {})
  t.match(examples, [{ id: '1', answers: [{ text: 'b', start: 2 }] }])
  t.match(skipped, [{ place: 'data[0].paragraphs[0].qas[1]', problem: /does not stand at answer_start 1/ }])
  await t.rejects(taskKind('squad').read(file, { strict: true }), { code: 'ERR_FORMAT' })
})

t.test('tables of questions', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'voltaic-questions-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const kind = taskKind('question-answering')
  const fileOf = async (name: string, ...lines: string[]): Promise<string> => {
    const file = join(folder, name)
    await writeFile(file, `${lines.join('\n')}\n`)
    return file
  }
  const read = async (file: string, options = {}) => {
    const { examples, skipped } = await kind.read(file, options)
    const answers = (examples as SquadExample[]).map((example) => {
      const places = example.answers.map(({ text, start }) => `${text}@${start}`)
      return [example.id, example.question, ...places].join(' ')
    })
    return { answers, skipped }
  }
  const rows = [
    { id: 'x', question: 'q', context: '😀 b b', answers: { text: ['b', 'b b'], answer_start: [4, 2] } },
    { question: 'q', context: '😀 b b', answers: [{ text: 'b', answer_start: 2 }, 'b b'] },
    { question: 'q', context: 'b', answers: [] },
    { question: 'q', context: 'b', answers: { text: [], answer_start: [] } },
    { question: 'q', context: 'b', answers: 'c' },
    { question: 'q', context: 'b', answers: { text: ['b'], answer_start: [1] } },
    { question: 'q', context: 'b', answers: { text: ['b'], answer_start: [0, 1] } },
    { question: 'q', context: 'b', answers: [{ answer_start: 0 }] },
    { question: 'q', context: 3, answers: 'c' },
    { id: 'x', question: 'q', context: 'b', answers: 'b' },
  ]
  const lines = await fileOf('a.jsonl', ...rows.map((row) => JSON.stringify(row)))
  const { answers, skipped } = await read(lines)
  t.same(answers, ['x q b@5 b b@3', '2 q b@3 b b@3', '3 q', '4 q'])
  t.same(
    skipped.map(({ place, problem }) => `${place}: ${problem}`),
    [
      "line 5: the context does not hold the answer 'c'",
      "line 6: the answer 'b' does not stand at 1 of the context; offsets count code points",
      'line 7: the answers are {"text":["b"],"answer_start":[0,1]}, expected a text, a list, or { text, answer_start }',
      'line 8: an answer is missing, expected a text',
      'line 9: the context is 3, expected a text',
      'line 10: the id x occurs twice',
    ],
  )
  await t.rejects(read(lines, { strict: true }), {
    code: 'ERR_FORMAT',
    message: /a\.jsonl:5: the context does not/,
  })
  const table = await fileOf(
    'b.tsv',
    'question\tcontext\tanswer\tanswer_start',
    'q\ta b b\tb\t4',
    'q\ta b b\tb\t',
    'r\ta\t\t',
  )
  t.same((await read(table)).answers, ['2 q b@4', '3 q b@2', '4 r'])
  const bare = await fileOf('c.csv', 'text,ask', 'a b,q')
  const columns = { textColumn: 'text', pairColumn: 'ask' }
  t.same((await read(bare, { ...columns, unlabelled: true })).answers, ['2 q'])
  await t.rejects(read(bare, columns), { code: 'ERR_CONFIG', message: /no column 'answers' \(labelColumn\)/ })
  await t.rejects(read(bare), { code: 'ERR_CONFIG', message: /no column 'context' \(textColumn\)/ })
})

for (const head of ['huggingface', 'original'] as const) {
  t.test(`a model with the ${head} head learns where answers are, and where there are none`, async (t) => {
    // The answer is the digit behind the letter that the question names.
    const contexts = ['a 1 b 2 c 3', 'b 4 c 5 a 6', 'c 7 a 8 b 9']
    const examples = contexts.flatMap((context) =>
      ['a', 'b', 'c', 'd'].map((letter) => {
        const at = context.indexOf(letter)
        return at < 0 ? ask(context, letter) : ask(context, letter, context[at + 2]!)
      }),
    )
    const task = learned('question-answering', examples, { head })
    const options = { steps: 90, maxLength: 9, stride: 2 }
    const { losses, features, outputs } = await learn(task, examples, tokenizer, options)
    t.ok(losses.at(-1)! < 0.2 * losses[0]!, `the loss goes from ${losses[0]} to ${losses.at(-1)}`)
    t.ok(features.length > examples.length, 'in several windows')
    const { extra } = task.calibrate!(examples, features, outputs)
    const config = defineElectraConfig({ ...task.config, extra: extra! })
    const restored = taskKind('question-answering').restore(config) as AnswerTask
    const { f1, HasAns_f1 } = restored.metrics(examples, restored.decode(examples, features, outputs))
    t.ok(f1! > 90 && HasAns_f1! > 90, `F1 ${f1}, with answers ${HasAns_f1}`)
  })
}
