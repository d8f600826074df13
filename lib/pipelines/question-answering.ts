/** `question-answering`: answers as slices of a context of any length, read in windows. */
import type { ElectraForJointQuestionAnswering, ElectraForQuestionAnswering } from '../electra/index.js'
import { type AnswerWindow, answerWindows, bestAnswers } from '../tasks/answers.js'
import { checkOptionNames, refuse, textInput, wholeOption } from './options.js'
import { answerOutputs } from './outputs.js'
import type { PipelineBase, Session } from './session.js'

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
  /** That the context has no answer is an answer too: an empty one. Default false. */
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
  'handle_impossible_answer',
]

export function createQuestionAnswering(
  session: Session<ElectraForQuestionAnswering | ElectraForJointQuestionAnswering>,
): QuestionAnsweringPipeline {
  const { task, model, tokenizer, maxLength: longest } = session
  const submit = session.gathered(answerOutputs(model))

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
        maxQuestionLength: whole('max_question_len', 0, 64),
      },
      isImpossible: options.handle_impossible_answer === true,
    }
  }

  async function answer(question: string, context: string, options: ReturnType<typeof settings>) {
    const { topK, maxAnswerLength, isImpossible } = options
    const windows: AnswerWindow[] = answerWindows(
      tokenizer,
      textInput(task, 'the question', question),
      textInput(task, 'the context', context),
      options.windows,
    )
    const { answers, nullScore } = bestAnswers(windows, await submit(windows), { topK, maxAnswerLength })
    const found = answers.map(({ text, score, start, end }) => ({ answer: text, score, start, end }))
    if (isImpossible || found.length === 0) found.push({ answer: '', score: nullScore, start: 0, end: 0 })
    return found.sort((a, b) => b.score - a.score).slice(0, topK)
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
