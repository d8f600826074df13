/**
 * Extractive question answering: SQuAD 1.1, where every question has an answer, and 2.0, where some have none. A question with its
 * context is learned from in windows, as Hugging Face's examples label them; a window without the answer says [CLS].
 */
import {
  ElectraForJointQuestionAnswering,
  ElectraForQuestionAnswering,
  type ElectraPreTrainedModel,
} from '../electra/index.js'
import type { ElectraConfig } from '../formats/electra-config.js'
import { VoltaicError } from '../runtime/errors.js'
import type { Tensor } from '../tensor/index.js'
import type { Tokenizer } from '../text/index.js'
import { readAnswerExamples } from './answer-examples.js'
import { type AnswerWindow, answerWindows, bestAnswers } from './answers.js'
import { featureRows } from './feature-rows.js'
import { squadV1Metrics } from './metrics-squad.js'
import {
  type AnswerPrediction,
  answerMetricsV2,
  bestNullThreshold,
  defaultNullThresholds,
  nullThresholdConfig,
  nullThresholdOf,
} from './null-threshold.js'
import type { SquadAnswer, SquadExample } from './squad-files.js'
import type { Feature, FeatureOptions, Outputs, Task, TaskKind } from './task.js'
import { requireArchitecture } from './text-sequences.js'

export interface AnsweringOptions {
  /** SQuAD's: 1, every question has an answer; 2, some have none. Default: by the questions, or by the threshold in a model's folder. */
  readonly version?: 1 | 2 | undefined
  /**
   * `huggingface`: a logit for start and end each. `original`: the head of the original code, where the end depends on the start and
   * an output of its own says whether there is an answer. Default: as the model's folder says, else `huggingface`.
   */
  readonly head?: 'huggingface' | 'original' | undefined
}

/** A window, in training with the answer's place. */
export interface AnswerFeature extends Feature, AnswerWindow {
  readonly target?: AnswerTarget
}

export interface AnswerTarget {
  /** Places in `inputIds`; both 0, [CLS], where the window does not hold the answer. */
  readonly start: number
  readonly end: number
  /** 1: the question has no answer in any window. */
  readonly impossible: 0 | 1
}

type AnswerTask = Task<SquadExample, AnswerFeature, AnswerPrediction>

/**
 * Where an answer stands in a window: the last token that starts at or before it, and the first that ends at or behind its end.
 * Undefined where the window does not hold all of it.
 */
export function answerPlace(
  { offsets, first }: Pick<AnswerWindow, 'offsets' | 'first'>,
  { text, start }: SquadAnswer,
): { readonly start: number; readonly end: number } | undefined {
  const tokens = offsets.length / 2
  const end = start + text.length
  if (tokens === 0 || (offsets[0] as number) > start || (offsets[2 * tokens - 1] as number) < end)
    return undefined
  let from = tokens - 1
  while ((offsets[2 * from] as number) > start) from -= 1
  let to = from
  while ((offsets[2 * to + 1] as number) < end) to += 1
  return { start: first + from, end: first + to }
}

/** What a window is to learn, or undefined where there is nothing: an answer that is only white space. */
function targetOf(window: AnswerWindow, { answers }: SquadExample): AnswerTarget | undefined {
  const [answer] = answers
  if (answer === undefined) return { start: 0, end: 0, impossible: 1 }
  if (answer.text.trim() === '') return undefined
  return { ...(answerPlace(window, answer) ?? { start: 0, end: 0 }), impossible: 0 }
}

const hasNone = ({ answers }: SquadExample): boolean => answers.length === 0

interface Settings {
  readonly version: 1 | 2 | undefined
  readonly head: 'huggingface' | 'original'
  readonly threshold: number | undefined
}

const originalClass = 'ElectraForJointQuestionAnswering'
const huggingfaceClass = 'ElectraForQuestionAnswering'

class QuestionAnswering implements AnswerTask {
  readonly name = 'question-answering'
  readonly model: AnswerTask['model']
  readonly config: Partial<ElectraConfig>
  readonly metric = 'f1'
  readonly #settings: Settings

  constructor(settings: Settings) {
    this.#settings = settings
    const isOriginal = settings.head === 'original'
    this.model = isOriginal ? ElectraForJointQuestionAnswering : ElectraForQuestionAnswering
    // Of a model that was fine-tuned for something else before, the labels would stay.
    this.config = { architectures: [isOriginal ? originalClass : huggingfaceClass], numLabels: 2 }
  }

  get #threshold(): number {
    return this.#settings.threshold ?? defaultNullThresholds[this.#settings.head]
  }

  /** Whether questions may have no answer. */
  #mayLack(examples: readonly SquadExample[]): boolean {
    const { version, threshold } = this.#settings
    if (version !== undefined) return version === 2
    return threshold !== undefined || examples.some(hasNone)
  }

  features(
    examples: readonly SquadExample[],
    tokenizer: Tokenizer,
    { maxLength, stride, training }: FeatureOptions,
  ): AnswerFeature[] {
    const learnsNone = this.#mayLack(examples)
    return examples.flatMap((example, index) => {
      if (training && hasNone(example) && !learnsNone) return []
      const windows = answerWindows(tokenizer, example.question, example.context, { maxLength, stride })
      return windows.flatMap((window): AnswerFeature[] => {
        if (!training) return [{ example: index, ...window }]
        const target = targetOf(window, example)
        return target === undefined ? [] : [{ example: index, ...window, target }]
      })
    })
  }

  loss(model: ElectraPreTrainedModel, batch: readonly AnswerFeature[]): Tensor {
    const targets = batch.map(({ target }) => {
      if (target !== undefined) return target
      throw new VoltaicError(
        'ERR_ARGUMENT',
        'loss: a feature without a target; expected features made with training: true',
      )
    })
    const input = {
      ...featureRows(batch),
      startPositions: targets.map(({ start }) => start),
      endPositions: targets.map(({ end }) => end),
    }
    if (model instanceof ElectraForJointQuestionAnswering) {
      const output = model.forward({ ...input, impossible: targets.map(({ impossible }) => impossible) })
      const { loss, ...rest } = output
      for (const tensor of [rest.startLogits, rest.endLogits, rest.unanswerableLogits, rest.offsets])
        tensor.dispose()
      return loss
    }
    const { loss, startLogits, endLogits, offsets } = spansOf(model).forward(input)
    for (const tensor of [startLogits, endLogits, offsets]) tensor.dispose()
    return loss
  }

  async outputs(model: ElectraPreTrainedModel, batch: readonly AnswerFeature[]): Promise<Outputs[]> {
    if (model instanceof ElectraForJointQuestionAnswering) {
      const found = await model.beams(featureRows(batch))
      return found.map(({ beams, unanswerable }) => ({ beams, unanswerable: Float32Array.of(unanswerable) }))
    }
    const { startLogits, endLogits, offsets } = spansOf(model).forward(featureRows(batch))
    offsets.dispose()
    const [starts, ends] = (await Promise.all([startLogits.data(), endLogits.data()])) as [
      Float32Array,
      Float32Array,
    ]
    startLogits.dispose()
    endLogits.dispose()
    let next = 0
    return batch.map(({ inputIds }) => {
      const from = next
      next += inputIds.length
      return { start: starts.subarray(from, next), end: ends.subarray(from, next) }
    })
  }

  decode(
    examples: readonly SquadExample[],
    features: readonly AnswerFeature[],
    outputs: readonly Outputs[],
  ): AnswerPrediction[] {
    const mayLack = this.#mayLack(examples)
    const { head } = this.#settings
    const windows: AnswerWindow[][] = examples.map(() => [])
    const said: Outputs[][] = examples.map(() => [])
    for (const [index, feature] of features.entries()) {
      windows[feature.example]?.push(feature)
      said[feature.example]?.push(outputs[index] ?? {})
    }
    return examples.map((_, index) => {
      const { answers, nullScore: none } = bestAnswers(windows[index] ?? [], said[index] ?? [], {
        ranking: 'logit',
        unanswerable: mayLack,
        maxContext: head === 'original',
      })
      const [answer] = answers
      const { text: best, start, end, score, logit } = answer ?? noAnswer
      const nullScore = head === 'original' ? none : none - logit
      return { text: mayLack && nullScore > this.#threshold ? '' : best, best, start, end, score, nullScore }
    })
  }

  metrics(
    examples: readonly SquadExample[],
    predictions: readonly AnswerPrediction[],
  ): Record<string, number> {
    if (this.#mayLack(examples)) return { ...answerMetricsV2(examples, predictions, this.#threshold) }
    return {
      ...squadV1Metrics(examples, new Map(examples.map(({ id }, at) => [id, predictions[at]?.text ?? '']))),
    }
  }

  report(): string {
    return ''
  }

  record({ id }: SquadExample, prediction: AnswerPrediction): Record<string, unknown> {
    const { text, start, end, score, nullScore } = prediction
    const place = text === '' ? {} : { start, end }
    return { id, prediction_text: text, ...place, score, null_score: nullScore }
  }

  official(examples: readonly SquadExample[], predictions: readonly AnswerPrediction[]): string {
    return `${JSON.stringify(squadPredictions(examples, predictions))}\n`
  }

  /** The threshold on the null score with the best F1. */
  calibrate(
    examples: readonly SquadExample[],
    features: readonly AnswerFeature[],
    outputs: readonly Outputs[],
  ): Partial<ElectraConfig> {
    if (!this.#mayLack(examples)) return {}
    return nullThresholdConfig(bestNullThreshold(examples, this.decode(examples, features, outputs)))
  }
}

/** Where the context has no token. */
const noAnswer = { text: '', start: 0, end: 0, score: 0, logit: 0 } as const

function spansOf(model: ElectraPreTrainedModel): ElectraForQuestionAnswering {
  if (model instanceof ElectraForQuestionAnswering) return model
  throw new VoltaicError(
    'ERR_ARGUMENT',
    `the model is an ${model.architecture}; expected an ElectraForQuestionAnswering or ElectraForJointQuestionAnswering`,
  )
}

/** The predictions in the form that SQuAD's evaluation scripts read: the text of each question's answer by its id. */
export function squadPredictions(
  examples: readonly Pick<SquadExample, 'id'>[],
  predictions: readonly Pick<AnswerPrediction, 'text'>[],
): Record<string, string> {
  return Object.fromEntries(examples.map(({ id }, at) => [id, predictions[at]?.text ?? '']))
}

/** Question answering, from files of SQuAD's JSON or tables of questions (`readAnswerExamples`). */
export function questionAnswering(
  options: AnsweringOptions = {},
): TaskKind<SquadExample, AnswerFeature, AnswerPrediction> {
  return {
    name: 'question-answering',
    defaults: { epochs: 2, maxLength: 512 },
    read: readAnswerExamples,
    learn(examples) {
      const version = options.version ?? (examples.some(hasNone) ? 2 : 1)
      return new QuestionAnswering({ version, head: options.head ?? 'huggingface', threshold: undefined })
    },
    restore(config) {
      const saved = config.architectures.includes(originalClass) ? 'original' : 'huggingface'
      const head = options.head ?? saved
      requireArchitecture(
        config,
        head === 'original' ? originalClass : huggingfaceClass,
        'question-answering',
      )
      return new QuestionAnswering({ version: options.version, head, threshold: nullThresholdOf(config) })
    },
  }
}
