/**
 * The official metrics of SQuAD 1.1 and 2.0, in percent and with their official names. Answers are compared after normalization;
 * a question's score is the best over its right answers.
 */
import { VoltaicError } from '../runtime/errors.js'

/** What the metrics need of a question. */
export interface AnsweredQuestion {
  readonly id: string
  /** The right answers; none when the context does not answer it. */
  readonly answers: readonly { readonly text: string }[]
}

const punctuation = /[!-/:-@[-`{-~]/g
/** A word character is Python's: a letter, a number or an underscore of any script. */
const articles = /(?<![\p{L}\p{N}_])(?:a|an|the)(?![\p{L}\p{N}_])/gu
/** What Python's split() parts at. It takes the information separators and NEL, and not U+FEFF. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: Python counts these as white space
const whitespace = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/

function tokensOf(text: string): string[] {
  const plain = text.toLowerCase().replace(punctuation, '').replace(articles, ' ')
  return plain.split(whitespace).filter((token) => token !== '')
}

/** Lower case, without ASCII punctuation, then without articles, white space collapsed. */
export function normalizeAnswer(text: string): string {
  return tokensOf(text).join(' ')
}

/** F1 of the two bags of words. When either is empty: 1 if both are, else 0 (SQuAD 1.1 has 0 for both). */
function wordF1(prediction: string, answer: string, bothEmpty: 0 | 1): number {
  const predicted = tokensOf(prediction)
  const right = tokensOf(answer)
  if (predicted.length === 0 || right.length === 0) {
    return predicted.length === right.length ? bothEmpty : 0
  }
  const left = new Map<string, number>()
  for (const token of right) left.set(token, (left.get(token) ?? 0) + 1)
  let common = 0
  for (const token of predicted) {
    const count = left.get(token) ?? 0
    if (count > 0) common += 1
    left.set(token, count - 1)
  }
  if (common === 0) return 0
  const precision = common / predicted.length
  const recall = common / right.length
  return (2 * precision * recall) / (precision + recall)
}

interface QuestionScore {
  readonly exact: number
  readonly f1: number
}

function scoreOf(prediction: string, answers: readonly string[], bothEmpty: 0 | 1): QuestionScore {
  const normalized = normalizeAnswer(prediction)
  return {
    exact: answers.some((answer) => normalizeAnswer(answer) === normalized) ? 1 : 0,
    f1: Math.max(...answers.map((answer) => wordF1(prediction, answer, bothEmpty))),
  }
}

function requireQuestions(questions: readonly AnsweredQuestion[]): void {
  if (questions.length === 0) throw new VoltaicError('ERR_ARGUMENT', 'no questions, expected at least one')
}

export interface SquadV1Metrics {
  readonly exact_match: number
  readonly f1: number
  readonly total: number
}

/**
 * SQuAD 1.1. A question without a prediction counts 0.
 * @param predictions the text of each question's answer, by id
 * @throws ERR_ARGUMENT for a question without a right answer
 */
export function squadV1Metrics(
  questions: readonly AnsweredQuestion[],
  predictions: ReadonlyMap<string, string>,
): SquadV1Metrics {
  requireQuestions(questions)
  let exact = 0
  let f1 = 0
  for (const { id, answers } of questions) {
    if (answers.length === 0) {
      throw new VoltaicError(
        'ERR_ARGUMENT',
        `question ${id} has no answer, which SQuAD 1.1 does not know; use the metrics of 2.0`,
      )
    }
    const prediction = predictions.get(id)
    if (prediction === undefined) continue
    const texts = answers.map(({ text }) => text)
    const score = scoreOf(prediction, texts, 0)
    exact += score.exact
    f1 += score.f1
  }
  const total = questions.length
  return { exact_match: (100 * exact) / total, f1: (100 * f1) / total, total }
}

export interface SquadV2Metrics {
  readonly exact: number
  readonly f1: number
  readonly total: number
  /** Over the questions that have an answer; absent without one. */
  readonly HasAns_exact?: number
  readonly HasAns_f1?: number
  readonly HasAns_total?: number
  /** Over the questions that have none; absent without one. */
  readonly NoAns_exact?: number
  readonly NoAns_f1?: number
  readonly NoAns_total?: number
  /** With null scores: the best score that a threshold on them gives, and that threshold. */
  readonly best_exact?: number
  readonly best_exact_thresh?: number
  readonly best_f1?: number
  readonly best_f1_thresh?: number
}

export interface SquadV2Options {
  /** How sure the model is that there is no answer, by id. Equal scores are taken in the map's order. */
  readonly nullScores?: ReadonlyMap<string, number>
  /** A question with a higher null score counts as answered by "". Default 1, the script's. */
  readonly nullThreshold?: number
}

interface ScoredQuestion extends QuestionScore {
  readonly id: string
  readonly hasAnswer: boolean
  /** Whether some answer was predicted. */
  readonly answered: boolean
}

type Measure = 'exact' | 'f1'

function summary(questions: readonly QuestionScore[]): { exact: number; f1: number; total: number } {
  const total = questions.length
  const mean = (measure: Measure): number =>
    (100 * questions.reduce((sum, question) => sum + question[measure], 0)) / total
  return { exact: mean('exact'), f1: mean('f1'), total }
}

function best(
  questions: readonly ScoredQuestion[],
  nullScores: ReadonlyMap<string, number>,
  measure: Measure,
): { score: number; threshold: number } {
  const byId = new Map(questions.map((question) => [question.id, question]))
  let score = questions.filter(({ hasAnswer }) => !hasAnswer).length
  let most = score
  let threshold = 0
  for (const [id, nullScore] of [...nullScores].sort(([, a], [, b]) => a - b)) {
    const question = byId.get(id)
    if (question === undefined) continue
    if (question.hasAnswer) score += question[measure]
    else if (question.answered) score -= 1
    if (score > most) {
      most = score
      threshold = nullScore
    }
  }
  return { score: (100 * most) / questions.length, threshold }
}

/**
 * SQuAD 2.0. "" says that there is no answer. The best thresholds are over the predictions as given, so give each question's best
 * answer that is not empty, and its null score.
 * @param predictions the text of each question's answer, by id
 * @throws ERR_ARGUMENT for a question without a prediction, or without a null score where there are some
 */
export function squadV2Metrics(
  questions: readonly AnsweredQuestion[],
  predictions: ReadonlyMap<string, string>,
  { nullScores, nullThreshold = 1 }: SquadV2Options = {},
): SquadV2Metrics {
  requireQuestions(questions)
  const raw = questions.map(({ id, answers }): ScoredQuestion => {
    const prediction = predictions.get(id)
    if (prediction === undefined || nullScores?.has(id) === false) {
      const missing = prediction === undefined ? 'prediction' : 'null score'
      throw new VoltaicError('ERR_ARGUMENT', `question ${id} has no ${missing}; every question needs one`)
    }
    const right = answers.map(({ text }) => text).filter((text) => normalizeAnswer(text) !== '')
    const score = scoreOf(prediction, right.length > 0 ? right : [''], 1)
    return { id, hasAnswer: answers.length > 0, answered: prediction !== '', ...score }
  })
  const scored = raw.map((question): ScoredQuestion => {
    if ((nullScores?.get(question.id) ?? 0) <= nullThreshold) return question
    const score = question.hasAnswer ? 0 : 1
    return { ...question, exact: score, f1: score }
  })
  const answerable = scored.filter(({ hasAnswer }) => hasAnswer)
  const unanswerable = scored.filter(({ hasAnswer }) => !hasAnswer)
  const named = (prefix: string, part: readonly ScoredQuestion[]): Record<string, number> =>
    part.length === 0
      ? {}
      : Object.fromEntries(Object.entries(summary(part)).map(([name, value]) => [`${prefix}_${name}`, value]))
  const bestOf = (measure: Measure): Record<string, number> => {
    if (nullScores === undefined) return {}
    const { score, threshold } = best(raw, nullScores, measure)
    return { [`best_${measure}`]: score, [`best_${measure}_thresh`]: threshold }
  }
  return {
    ...summary(scored),
    ...named('HasAns', answerable),
    ...named('NoAns', unanswerable),
    ...bestOf('exact'),
    ...bestOf('f1'),
  }
}
