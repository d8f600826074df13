/**
 * Extractive question answering without a model: a question and its context as windows of tokens, and from what a model says of each
 * window to answers, which are slices of the context.
 */
import { VoltaicError } from '../runtime/errors.js'
import type { Tokenizer } from '../text/index.js'
import { sigmoid, softmax } from './class-scores.js'
import type { Outputs } from './task.js'
import { type TokenRange, windowWithMostContext } from './windows.js'

export interface AnswerWindowOptions {
  /** Tokens of a window at most, question and special tokens included. Default 384. */
  readonly maxLength?: number | undefined
  /**
   * Tokens of the context that a window shares with the one before. Default 128. At most half of what a window holds of the context, so
   * that a long question does not stop the windows from moving on.
   */
  readonly stride?: number | undefined
  /** Tokens of the question at most; the rest is cut off. Default 64. */
  readonly maxQuestionLength?: number | undefined
}

/** [CLS] question [SEP] a part of the context [SEP]. Its `begin` and `end` count the context's tokens. */
export interface AnswerWindow extends TokenRange {
  readonly inputIds: Int32Array
  readonly tokenTypeIds: Int32Array
  /** The whole context. */
  readonly context: string
  /** Where the context's part starts in `inputIds`. */
  readonly first: number
  /** [start, end) in the context, in UTF-16 units, of each of its tokens in this window. */
  readonly offsets: Int32Array
}

/** The question, cut behind a token so that no more than `most` are left, and the number of its tokens. */
function cutQuestion(tokenizer: Tokenizer, question: string, most: number): [string, number] {
  const { inputIds, offsetsMapping } = tokenizer([question], {
    addSpecialTokens: false,
    returnOffsetsMapping: true,
  })
  const tokens = inputIds[0]?.length ?? 0
  if (tokens <= most) return [question, tokens]
  const end = most === 0 ? 0 : (offsetsMapping?.[0]?.[2 * most - 1] as number)
  return [question.slice(0, end), most]
}

/**
 * The windows of a context, in its order; at least one, also for an empty context.
 * @throws ERR_ARGUMENT when no token of the context fits beside the question
 */
export function answerWindows(
  tokenizer: Tokenizer,
  question: string,
  context: string,
  { maxLength = 384, stride = 128, maxQuestionLength = 64 }: AnswerWindowOptions = {},
): AnswerWindow[] {
  const { pair } = tokenizer.specification.template
  const specials = pair.filter((piece) => 'token' in piece).length
  const [kept, questionTokens] = cutQuestion(tokenizer, question, maxQuestionLength)
  const room = maxLength - specials - questionTokens
  if (!(room >= 1)) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `a window of ${maxLength} tokens (maxLength) has no room for the context beside ${questionTokens} tokens of the question and ` +
        `${specials} special ones; raise maxLength or lower maxQuestionLength`,
    )
  }
  const shared = Math.min(stride, Math.floor(room / 2))
  const { inputIds, tokenTypeIds, offsetsMapping } = tokenizer([kept], {
    textPair: [context],
    maxLength,
    truncation: 'only_second',
    stride: shared,
    returnOverflowingTokens: true,
    returnOffsetsMapping: true,
  })
  const before = pair.slice(
    0,
    pair.findIndex((piece) => 'sequence' in piece && piece.sequence === 'B'),
  )
  const first = before.reduce((sum, piece) => sum + ('token' in piece ? 1 : questionTokens), 0)
  return inputIds.map((ids, index) => {
    const offsets = offsetsMapping?.[index] as Int32Array
    const count = ids.length - specials - questionTokens
    const begin = index * (room - shared)
    return {
      inputIds: ids,
      tokenTypeIds: tokenTypeIds[index] as Int32Array,
      context,
      first,
      offsets: offsets.slice(2 * first, 2 * (first + count)),
      begin,
      end: begin + count,
    }
  })
}

export interface AnswerOptions {
  /** Answers at most. Default 1. */
  readonly topK?: number | undefined
  /** Tokens of an answer at most. Default 30. */
  readonly maxAnswerLength?: number | undefined
  /** How many of the best answers are candidates. Default 20, or `topK` if that is more. */
  readonly nBest?: number | undefined
  /**
   * What makes an answer the best over all windows, and its score. `probability` (default): the product of the probabilities of its
   * start and its end among [CLS] and the context's tokens in its window, as the pipelines of Hugging Face and transformers.js have
   * it. `logit`: the sum of the two logits; scores are their softmax over the candidates, as in prediction files of SQuAD.
   */
  readonly ranking?: 'probability' | 'logit' | undefined
  /** `logit`: that there is no answer is a candidate, too. Default false. */
  readonly unanswerable?: boolean | undefined
  /** An answer counts only in the window where its first token has most context, as in the original code. Default false. */
  readonly maxContext?: boolean | undefined
}

export interface Answer {
  /** `context.slice(start, end)` */
  readonly text: string
  /** In UTF-16 units. */
  readonly start: number
  readonly end: number
  readonly score: number
  /** The sum of the logits of start and end; of the original's head, of their log-probabilities. */
  readonly logit: number
}

export interface BestAnswers {
  /** The best first; none when no window has a token of the context. */
  readonly answers: readonly Answer[]
  /**
   * How much speaks for no answer: the smallest over the windows of what [CLS] has as start and as end (their product or sum, as
   * `ranking` says). Of the original's head: of its answerability logit (`probability`: through the sigmoid).
   */
  readonly nullScore: number
}

/** A span of a window's tokens, counted from the context's first there; `end` included. */
interface Candidate {
  readonly window: AnswerWindow
  readonly start: number
  readonly end: number
  readonly rank: number
  readonly logit: number
}

/** The best candidates that were put in, the best first; of equal ones the first. */
class Best {
  readonly kept: Candidate[] = []

  constructor(readonly most: number) {}

  /** What a candidate must be above. */
  get bar(): number {
    return this.kept.length < this.most ? Number.NEGATIVE_INFINITY : (this.kept.at(-1)?.rank as number)
  }

  put(candidate: Candidate): void {
    if (!(candidate.rank > this.bar)) return
    let at = this.kept.length
    while (at > 0 && (this.kept[at - 1] as Candidate).rank < candidate.rank) at -= 1
    this.kept.splice(at, 0, candidate)
    if (this.kept.length > this.most) this.kept.pop()
  }
}

/** log Σ exp over [CLS] and the context's tokens. */
function logSumExp(logits: Float32Array, { first, begin, end }: AnswerWindow): number {
  const allowed = [logits[0] as number, ...logits.subarray(first, first + end - begin)]
  const largest = allowed.reduce((most, logit) => Math.max(most, logit), Number.NEGATIVE_INFINITY)
  return largest + Math.log(allowed.reduce((sum, logit) => sum + Math.exp(logit - largest), 0))
}

interface Settings {
  readonly maxAnswerLength: number
  readonly ranking: 'probability' | 'logit'
}

/** What a window says: its candidates, and how much speaks for no answer. */
interface WindowResult {
  readonly kept: readonly Candidate[]
  readonly nullScore: number
}

function fromLogits(
  window: AnswerWindow,
  { start, end }: { readonly start: Float32Array; readonly end: Float32Array },
  best: Best,
  isAllowed: (start: number) => boolean,
  { maxAnswerLength, ranking }: Settings,
): WindowResult {
  const byProbability = ranking === 'probability'
  const shift = byProbability ? logSumExp(start, window) + logSumExp(end, window) : 0
  const { first } = window
  const count = window.end - window.begin
  for (let from = 0; from < count; from++) {
    if (!isAllowed(from)) continue
    const startLogit = start[first + from] as number
    for (let to = from; to < Math.min(count, from + maxAnswerLength); to++) {
      const logit = startLogit + (end[first + to] as number)
      if (logit - shift > best.bar) best.put({ window, start: from, end: to, rank: logit - shift, logit })
    }
  }
  const none = (start[0] as number) + (end[0] as number) - shift
  return { kept: best.kept, nullScore: byProbability ? Math.exp(none) : none }
}

/** Of the original's head: beams of start, end and log-probability, and the answerability logit. */
function fromBeams(
  window: AnswerWindow,
  { beams, unanswerable }: { readonly beams: Float32Array; readonly unanswerable: Float32Array },
  best: Best,
  isAllowed: (start: number) => boolean,
  { maxAnswerLength, ranking }: Settings,
): WindowResult {
  const count = window.end - window.begin
  for (let at = 0; at < beams.length; at += 3) {
    const start = (beams[at] as number) - window.first
    const end = (beams[at + 1] as number) - window.first
    const logit = beams[at + 2] as number
    const fits = start >= 0 && end >= start && end < count && end - start < maxAnswerLength
    if (fits && isAllowed(start)) best.put({ window, start, end, rank: logit, logit })
  }
  const logit = unanswerable[0] as number
  return { kept: best.kept, nullScore: ranking === 'probability' ? sigmoid(logit) : logit }
}

/**
 * The best answers over a question's windows: every span of at most `maxAnswerLength` tokens of the context counts, not only those of
 * the 20 best starts and ends. The same span of two windows is one answer, with the better of its scores.
 * @param outputs of each window: `start` and `end`, a logit a token; or, of the original's head, `beams` and `unanswerable`
 * @throws ERR_ARGUMENT when the outputs are not those of the windows
 */
export function bestAnswers(
  windows: readonly AnswerWindow[],
  outputs: readonly Outputs[],
  options: AnswerOptions = {},
): BestAnswers {
  const { topK = 1, maxAnswerLength = 30, ranking = 'probability' } = options
  const { unanswerable = false, maxContext = false } = options
  const nBest = Math.max(topK, options.nBest ?? 20)
  const settings = { maxAnswerLength, ranking }
  let nullScore = Number.POSITIVE_INFINITY
  const candidates: Candidate[] = []
  for (const [index, window] of windows.entries()) {
    const isAllowed = (start: number): boolean =>
      !maxContext || windowWithMostContext(windows, window.begin + start) === index
    const { start, end, beams, unanswerable: none } = outputs[index] ?? {}
    const best = new Best(nBest)
    let result: WindowResult
    if (beams !== undefined && none !== undefined) {
      result = fromBeams(window, { beams, unanswerable: none }, best, isAllowed, settings)
    } else if (start?.length === window.inputIds.length && end?.length === start.length) {
      result = fromLogits(window, { start, end }, best, isAllowed, settings)
    } else {
      throw new VoltaicError(
        'ERR_ARGUMENT',
        `window ${index} has ${window.inputIds.length} tokens and ${start?.length ?? 'no'} start and ${end?.length ?? 'no'} end logits; ` +
          'expected one of each a token',
      )
    }
    candidates.push(...result.kept)
    nullScore = Math.min(nullScore, result.nullScore)
  }
  candidates.sort((a, b) => b.rank - a.rank)
  const found = new Map<string, Candidate & { readonly from: number; readonly to: number }>()
  for (const candidate of candidates) {
    const { window, start, end } = candidate
    const from = window.offsets[2 * start] as number
    const to = window.offsets[2 * end + 1] as number
    const key = `${from} ${to}`
    if (!found.has(key)) found.set(key, { ...candidate, from, to })
  }
  const kept = [...found.values()].slice(0, nBest)
  const logits = kept.map(({ logit }) => logit)
  const scores =
    ranking === 'logit'
      ? softmax(unanswerable ? [...logits, nullScore] : logits)
      : kept.map(({ rank }) => Math.exp(rank))
  const answers = kept.slice(0, topK).map(({ window, from, to, logit }, at): Answer => {
    return { text: window.context.slice(from, to), start: from, end: to, score: scores[at] as number, logit }
  })
  return { answers, nullScore }
}
