/** Windows of a context, and the best answers in them, against their definitions done the slow way. */
import fc from 'fast-check'
import t from 'tap'
import {
  type AnswerOptions,
  type AnswerWindow,
  answerWindows,
  bestAnswers,
  type Outputs,
} from '../../dist/tasks/index.js'
import { windowWithMostContext } from '../../dist/tasks/windows.js'
import { letterTokenizer } from './letters.js'

const tokenizer = letterTokenizer(['東', '京', 'ß'])

const surfaces = ({ context, offsets }: AnswerWindow): string[] =>
  Array.from({ length: offsets.length / 2 }, (_, i) => context.slice(offsets[2 * i], offsets[2 * i + 1]))

t.test('windows: question, part of the context, and where its tokens stand', async (t) => {
  const context = 'a b c d e f g h'
  const [window, ...rest] = answerWindows(tokenizer, 'who?', context)
  t.same(rest, [])
  t.same(tokenizer.convertIdsToTokens(window!.inputIds), [
    ...['[CLS]', 'w', '##h', '##o', '?', '[SEP]'],
    ...['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', '[SEP]'],
  ])
  t.same(Array.from(window!.tokenTypeIds), [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1])
  t.match(window, { first: 6, begin: 0, end: 8, context })
  t.same(surfaces(window!), ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'])
  // 4 tokens of the context fit beside 4 of the question and 3 special ones; one is shared.
  const windows = answerWindows(tokenizer, 'who?', context, { maxLength: 11, stride: 1 })
  t.same(
    windows.map((each) => surfaces(each).join('')),
    ['abcd', 'defg', 'gh'],
  )
  t.same(
    windows.map(({ begin, end }) => [begin, end]),
    [
      [0, 4],
      [3, 7],
      [6, 8],
    ],
  )
})

t.test(
  'windows and their owners are those of the reference, for 1000 tokens and a question of 10',
  async (t) => {
    const context = 'a '.repeat(1000)
    const question = 'q '.repeat(10)
    const ranges = (maxLength: number) =>
      answerWindows(tokenizer, question, context, { maxLength, stride: 128 }).map(({ begin, end }) => [
        begin,
        end - begin,
      ])
    t.same(ranges(512), [
      [0, 499],
      [371, 499],
      [742, 258],
    ])
    t.same(ranges(384), [
      [0, 371],
      [243, 371],
      [486, 371],
      [729, 271],
    ])
    // The original's windows, whose stride is a step.
    const windows = [
      ...[0, 128, 256, 384].map((begin) => ({ begin, end: begin + 499 })),
      { begin: 512, end: 1000 },
    ]
    const owners = Array.from({ length: 1000 }, (_, token) => windowWithMostContext(windows, token))
    const changes = owners.flatMap((owner, token) =>
      token > 0 && owner !== owners[token - 1] ? [token] : [],
    )
    t.same(changes, [314, 442, 570, 698])
  },
)

t.test('long questions are cut, long strides shortened, and what leaves no room is refused', async (t) => {
  const question = 'abcdef gh'
  const short = answerWindows(tokenizer, question, 'x', { maxQuestionLength: 3 })
  t.same(tokenizer.convertIdsToTokens(short[0]!.inputIds), [
    '[CLS]',
    'a',
    '##b',
    '##c',
    '[SEP]',
    'x',
    '[SEP]',
  ])
  t.equal(answerWindows(tokenizer, question, 'x', { maxQuestionLength: 0 })[0]?.first, 2)
  const windows = answerWindows(tokenizer, question, 'a b c d e f', { maxLength: 15, stride: 128 })
  t.same(
    windows.map(({ begin, end }) => end - begin),
    [4, 4],
    'half of the room is shared at most',
  )
  t.throws(() => answerWindows(tokenizer, question, 'x', { maxLength: 11 }), {
    code: 'ERR_ARGUMENT',
    message:
      /a window of 11 tokens \(maxLength\) has no room for the context beside 8 tokens of the question/,
  })
  const empty = answerWindows(tokenizer, 'a', ' ')
  t.match(empty, [{ begin: 0, end: 0 }])
  const outputs = [{ start: Float32Array.of(1, 0, 0, 0), end: Float32Array.of(2, 0, 0, 0) }]
  t.same(bestAnswers(empty, outputs, { ranking: 'logit' }), { answers: [], nullScore: 3 })
})

t.test('law: windows cover every token, in order, with its place in the original text', async () => {
  const character = fc.constantFrom(
    'a',
    'B',
    'é',
    'e\u0301',
    'ß',
    '東',
    '京',
    '😀',
    '𝔘',
    ' ',
    '\u200b',
    '\n',
    '.',
    'ﬁ',
  )
  fc.assert(
    fc.property(
      fc.array(character, { maxLength: 60 }),
      fc.integer({ min: 8, max: 30 }),
      fc.nat({ max: 40 }),
      (characters, maxLength, stride) => {
        const context = characters.join('')
        const windows = answerWindows(tokenizer, 'q r', context, { maxLength, stride })
        const whole = tokenizer([context], { addSpecialTokens: false, returnOffsetsMapping: true })
        const ids = whole.inputIds[0]!
        const offsets = whole.offsetsMapping![0]!
        let covered = 0
        for (const { inputIds, first, begin, end, offsets: own } of windows) {
          if (inputIds.length > maxLength || begin > covered || own.length !== 2 * (end - begin)) return false
          for (let token = begin; token < end; token++) {
            if (inputIds[first + token - begin] !== ids[token]) return false
            if (own[2 * (token - begin)] !== offsets[2 * token]) return false
            if (own[2 * (token - begin) + 1] !== offsets[2 * token + 1]) return false
          }
          covered = end
        }
        return covered === ids.length
      },
    ),
  )
})

// ---- the best answers

const context = 'a b c d e f g h i j k'
const logit = fc.float({ min: -8, max: 8, noNaN: true })

/** Windows with a logit for the start and the end of each of their tokens. */
const cases = fc
  .record({ maxLength: fc.integer({ min: 8, max: 16 }), stride: fc.nat({ max: 4 }) })
  .chain((options) => {
    const windows = answerWindows(tokenizer, 'q', context, options)
    const row = ({ inputIds: { length } }: AnswerWindow) =>
      fc.array(logit, { minLength: length, maxLength: length }).map((row) => Float32Array.from(row))
    const outputs = windows.map((window) => fc.record({ start: row(window), end: row(window) }))
    return fc.record({ windows: fc.constant(windows), outputs: fc.tuple(...outputs) })
  })

type Given = { readonly [Name in keyof AnswerOptions]-?: NonNullable<AnswerOptions[Name]> }

const options: fc.Arbitrary<Given> = fc.record({
  topK: fc.integer({ min: 1, max: 5 }),
  nBest: fc.integer({ min: 1, max: 30 }),
  maxAnswerLength: fc.integer({ min: 1, max: 12 }),
  ranking: fc.constantFrom<Given['ranking']>('probability', 'logit'),
  unanswerable: fc.boolean(),
  maxContext: fc.boolean(),
})

/** Softmax over [CLS] and the context, 0 elsewhere. */
function probabilities(logits: Float32Array, { first, begin, end }: AnswerWindow): number[] {
  const weights = Array.from(logits, (x, at) =>
    at === 0 || (at >= first && at < first + end - begin) ? Math.exp(x) : 0,
  )
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  return weights.map((weight) => weight / total)
}

/** The window that decides about a token: most context on the smaller side, then the longer window, then the first. */
function owner(windows: readonly AnswerWindow[], token: number): number {
  const holding = windows.flatMap(({ begin, end }, index) =>
    begin <= token && token < end
      ? [{ index, side: Math.min(token - begin, end - 1 - token), length: end - begin }]
      : [],
  )
  holding.sort((a, b) => b.side - a.side || b.length - a.length || a.index - b.index)
  return holding[0]!.index
}

/** Every span of every window. */
function slowAnswers(windows: readonly AnswerWindow[], outputs: readonly Outputs[], given: Given) {
  const spans = new Map<string, { start: number; end: number; rank: number; logit: number }>()
  const none: number[] = []
  for (const [index, window] of windows.entries()) {
    const { first, begin, end, offsets } = window
    const [starts, ends] = [outputs[index]!.start!, outputs[index]!.end!]
    const [p, q] = [probabilities(starts, window), probabilities(ends, window)]
    none.push(given.ranking === 'logit' ? starts[0]! + ends[0]! : p[0]! * q[0]!)
    for (let from = 0; from < end - begin; from++) {
      if (given.maxContext && owner(windows, begin + from) !== index) continue
      for (let to = from; to < end - begin && to - from < given.maxAnswerLength; to++) {
        const logit = starts[first + from]! + ends[first + to]!
        const rank = given.ranking === 'logit' ? logit : p[first + from]! * q[first + to]!
        const place = { start: offsets[2 * from]!, end: offsets[2 * to + 1]! }
        const key = `${place.start} ${place.end}`
        if (!((spans.get(key)?.rank ?? Number.NEGATIVE_INFINITY) >= rank))
          spans.set(key, { ...place, rank, logit })
      }
    }
  }
  const kept = [...spans.values()].sort((a, b) => b.rank - a.rank).slice(0, Math.max(given.topK, given.nBest))
  const nullScore = Math.min(...none)
  const weights = kept.map(({ rank }) => Math.exp(rank))
  const rest = given.unanswerable ? Math.exp(nullScore) : 0
  const total = weights.reduce((sum, weight) => sum + weight, rest)
  const answers = kept
    .slice(0, given.topK)
    .map((span, at) => ({ ...span, score: given.ranking === 'logit' ? weights[at]! / total : span.rank }))
  return { answers, nullScore }
}

/** Equal but for the rounding of exponentials and sums in double precision. */
const near = (a: number, b: number): boolean => Math.abs(a - b) <= 1e-12 * Math.max(1, Math.abs(b))

t.test('law: the best answers are those of all spans', async () => {
  fc.assert(
    fc.property(cases, options, ({ windows, outputs }, given) => {
      const { answers, nullScore } = bestAnswers(windows, outputs, given)
      const slow = slowAnswers(windows, outputs, given)
      if (answers.length !== slow.answers.length || !near(nullScore, slow.nullScore)) return false
      return answers.every((answer, at) => {
        const wanted = slow.answers[at]!
        // Of spans that are as good as each other either may come first.
        const same = answer.start === wanted.start && answer.end === wanted.end
        const tied =
          slow.answers.some((other, i) => i !== at && near(other.rank, wanted.rank)) || at === given.topK - 1
        return (
          answer.text === context.slice(answer.start, answer.end) &&
          near(answer.score, wanted.score) &&
          (same ? near(answer.logit, wanted.logit) : tied)
        )
      })
    }),
    { numRuns: 400 },
  )
})

t.test('by hand: the same span of two windows, ends before starts, [CLS] and the question', async (t) => {
  // abcd and cdef, beside [CLS] q [SEP] and [SEP].
  const windows = answerWindows(tokenizer, 'q', 'a b c d e f', { maxLength: 8, stride: 2 })
  const row = (...logits: number[]) => Float32Array.from(logits)
  const outputs = [
    { start: row(1, 90, 90, 0, 2, 3, 5, 90), end: row(2, 90, 90, 9, 0, 4, 1, 90) },
    { start: row(0, 90, 90, 4, 0, 0, 0, 90), end: row(1, 90, 90, 1, 7, 0, 0, 90) },
  ]
  const found = bestAnswers(windows, outputs, { ranking: 'logit', topK: 3 })
  t.match(found.answers, [
    { text: 'c d', start: 4, end: 7, logit: 11 },
    { text: 'a', start: 0, end: 1, logit: 9 },
    { text: 'c', start: 4, end: 5, logit: 7 },
  ])
  t.equal(found.nullScore, 1)
  const owned = bestAnswers(windows, outputs, { ranking: 'logit', maxContext: true })
  // c has one token before it in the first window and none in the second.
  t.match(owned.answers, [{ text: 'a', logit: 9 }])
})

t.test('beams of the original head', async (t) => {
  const windows = answerWindows(tokenizer, 'q', 'a b c d', {})
  const beams = Float32Array.from([
    ...[0, 0, -0.1],
    ...[4, 5, -1],
    ...[4, 3, -0.5],
    ...[3, 7, -0.7],
    ...[5, 6, -2],
    ...[3, 6, -1.5],
  ])
  const outputs = [{ beams, unanswerable: Float32Array.of(0.5) }]
  const found = bestAnswers(windows, outputs, { ranking: 'logit', topK: 9, maxAnswerLength: 3 })
  t.same(
    found.answers.map(({ text, logit }) => [text, logit]),
    [
      ['b c', -1],
      ['c d', -2],
    ],
    'without [CLS], ends before starts, [SEP] and four tokens',
  )
  t.equal(found.nullScore, 0.5)
  const likely = bestAnswers(windows, outputs, { topK: 9 })
  t.ok(near(likely.nullScore, 1 / (1 + Math.exp(-0.5))))
  t.ok(near(likely.answers[0]!.score, Math.exp(-1)))
})

t.test('outputs of other windows are refused', async (t) => {
  const windows = answerWindows(tokenizer, 'q', 'a b c d')
  t.throws(() => bestAnswers(windows, [{ start: new Float32Array(8), end: new Float32Array(7) }]), {
    code: 'ERR_ARGUMENT',
    message: /window 0 has 8 tokens and 8 start and 7 end logits/,
  })
  t.throws(() => bestAnswers(windows, []), { message: /no start and no end logits/ })
})
