/** `question-answering`: answers as slices of a context of any length, read in windows. */
import { ElectraForJointQuestionAnswering, type ElectraForQuestionAnswering } from '../electra/index.js'
import { type AnswerWindow, answerWindows, bestAnswers } from '../tasks/answers.js'
import { nullThresholdOf } from '../tasks/null-threshold.js'
import type { Outputs } from '../tasks/task.js'
import { checkOptionNames, refuse, textInput, wholeOption } from './options.js'
import { answerOutputs } from './outputs.js'
import type { PipelineBase, Session } from './session.js'
import { type TextTokens, tokensOf } from './windows.js'

export interface QuestionAnsweringPipelineOptions {
  /** Answers to give, the best first. Default 1. */
  readonly top_k?: number | undefined
  /** Tokens of an answer at most. Default 15. */
  readonly max_answer_len?: number | undefined
  /** Tokens of a window at most, with question and special tokens. Default 384, or what the model takes. */
  readonly max_seq_len?: number | undefined
  /** Tokens that windows share. Default 128, or half of a shorter window. */
  readonly doc_stride?: number | undefined
  /** Tokens of the question that are read. Default 64. */
  readonly max_question_len?: number | undefined
  /** Answers begin and end with words, not within them. Default true. */
  readonly align_to_words?: boolean | undefined
  /**
   * That the context has no answer is an answer too: an empty one. It comes first where it is likelier than the best one, or where the
   * threshold says so that the model was calibrated with. Default false.
   */
  readonly handle_impossible_answer?: boolean | undefined
}

export interface QuestionAnswer {
  /** `context.slice(start, end)`; '' for no answer. */
  readonly answer: string
  readonly score: number
  /** In UTF-16 units. */
  readonly start: number
  readonly end: number
}

type Best = QuestionAnsweringPipelineOptions & { readonly top_k?: 1 | undefined }

export interface QuestionAnsweringPipeline extends PipelineBase {
  /** The best answer. */
  (question: string, context: string, options?: Best): Promise<QuestionAnswer>
  /** The best answers; with a `top_k` of 1 the best one itself. */
  (
    question: string,
    context: string,
    options?: QuestionAnsweringPipelineOptions,
  ): Promise<QuestionAnswer | QuestionAnswer[]>
  /** The same for each question, with its own context or all with one. */
  (
    questions: readonly string[],
    contexts: string | readonly string[],
    options?: QuestionAnsweringPipelineOptions,
  ): Promise<(QuestionAnswer | QuestionAnswer[])[]>
}

const optionNames = [
  'top_k',
  'max_answer_len',
  'max_seq_len',
  'doc_stride',
  'max_question_len',
  'align_to_words',
  'handle_impossible_answer',
]

/** Answers that are looked at where several may become one, aligned to words. */
const fewestCandidates = 20

/** Answers from the first letter of their first word to the last of their last; of those that become the same the best one stays. */
export function alignToWords(
  answers: readonly QuestionAnswer[],
  { text, offsets, words }: TextTokens,
): QuestionAnswer[] {
  const startOfWord = new Map<number, number>()
  const endOfWord = new Map<number, number>()
  const wordAtStart = new Map<number, number>()
  const wordAtEnd = new Map<number, number>()
  words.forEach((word, token) => {
    const start = offsets[2 * token] as number
    const end = offsets[2 * token + 1] as number
    wordAtStart.set(start, word)
    wordAtEnd.set(end, word)
    if (!startOfWord.has(word)) startOfWord.set(word, start)
    endOfWord.set(word, end)
  })
  const aligned = new Map<string, QuestionAnswer>()
  for (const { score, start: from, end: to } of answers) {
    const start = startOfWord.get(wordAtStart.get(from) ?? -1) ?? from
    const end = endOfWord.get(wordAtEnd.get(to) ?? -1) ?? to
    const key = `${start} ${end}`
    if (!aligned.has(key)) aligned.set(key, { answer: text.slice(start, end), score, start, end })
  }
  return [...aligned.values()]
}

export function createQuestionAnswering(
  session: Session<ElectraForQuestionAnswering | ElectraForJointQuestionAnswering>,
): QuestionAnsweringPipeline {
  const { task, model, tokenizer, maxLength: longest } = session
  const submit = session.gathered(answerOutputs(model))
  const threshold = nullThresholdOf(model.config)
  const isOriginal = model instanceof ElectraForJointQuestionAnswering

  /** By the threshold that the folder was saved with, in the way it was found. */
  function isUnanswered(
    windows: readonly AnswerWindow[],
    outputs: readonly Outputs[],
    threshold: number,
  ): boolean {
    const { answers, nullScore } = bestAnswers(windows, outputs, {
      ranking: 'logit',
      unanswerable: true,
      maxContext: isOriginal,
    })
    return (isOriginal ? nullScore : nullScore - (answers[0]?.logit ?? 0)) > threshold
  }

  function settings(options: QuestionAnsweringPipelineOptions) {
    checkOptionNames(task, options, optionNames)
    const whole = (name: keyof QuestionAnsweringPipelineOptions, least: number, fallback: number): number =>
      wholeOption(task, name, options[name] as number | undefined, least, fallback)
    const maxLength = whole('max_seq_len', 1, Math.min(384, longest))
    if (maxLength > longest)
      refuse(task, `max_seq_len is ${maxLength}; the model takes ${longest} tokens at most`)
    return {
      topK: whole('top_k', 1, 1),
      maxAnswerLength: whole('max_answer_len', 1, 15),
      windows: {
        maxLength,
        stride: whole('doc_stride', 0, Math.min(128, Math.floor(maxLength / 2))),
        maxQuestionLength: whole('max_question_len', 0, Math.min(64, Math.floor(maxLength / 2))),
      },
      isAligned: options.align_to_words !== false,
      isImpossible: options.handle_impossible_answer === true,
    }
  }

  async function answer(question: string, context: string, options: ReturnType<typeof settings>) {
    const { topK, maxAnswerLength, isAligned, isImpossible } = options
    const text = textInput(task, 'the context', context)
    const windows = answerWindows(tokenizer, textInput(task, 'the question', question), text, options.windows)
    const outputs = await submit(windows)
    const { answers, nullScore } = bestAnswers(windows, outputs, {
      topK: isAligned ? Math.max(topK, fewestCandidates) : topK,
      maxAnswerLength,
    })
    const spans = answers.map(({ text, score, start, end }) => ({ answer: text, score, start, end }))
    const found = isAligned ? alignToWords(spans, tokensOf(tokenizer, text)) : spans
    const none = { answer: '', score: nullScore, start: 0, end: 0 }
    if (found.length === 0) return [none]
    if (!isImpossible) return found.slice(0, topK)
    const ranked =
      threshold === undefined
        ? [...found, none].sort((a, b) => b.score - a.score)
        : isUnanswered(windows, outputs, threshold)
          ? [none, ...found]
          : [...found, none]
    return ranked.slice(0, topK)
  }

  async function call(
    questions: string | readonly string[],
    contexts: string | readonly string[],
    options: QuestionAnsweringPipelineOptions = {},
  ): Promise<object> {
    const checked = settings(options)
    const isList = Array.isArray(contexts)
    if (isList && contexts.length !== (Array.isArray(questions) ? questions.length : 1)) {
      refuse(
        task,
        `${contexts.length} contexts for ${[questions].flat().length} questions; expected one each, or one for all`,
      )
    }
    return session.each(questions, async (question, index) => {
      const context = (isList ? contexts[index] : contexts) as string
      const answers = await answer(question, context, checked)
      return checked.topK === 1 ? (answers[0] as QuestionAnswer) : answers
    })
  }
  return session.pipeline(call) as QuestionAnsweringPipeline
}
