/** `text-classification`: labels and scores of a text or a pair of texts. Also for regression, where the score is the number itself. */
import type { ElectraForSequenceClassification } from '../electra/index.js'
import type { ElectraConfig } from '../formats/electra-config.js'
import { type Calibration, calibratedScores, calibrationOf, isOutOfScope } from '../tasks/calibration.js'
import { sigmoid, softmax } from '../tasks/class-scores.js'
import type { Sequence } from './gathering.js'
import { checkOptionNames, nameOption, textInput, topOption } from './options.js'
import { sequenceLogits } from './outputs.js'
import type { PipelineBase, Session, Submit } from './session.js'
import { pairWindows, textWindows, tokensOf, type WindowOptions, windowOptionNames } from './windows.js'

/** A text, or two that are classified together. */
export type TextInput = string | { readonly text: string; readonly text_pair?: string | undefined }

export type ScoreFunction = 'softmax' | 'sigmoid' | 'none'

export interface TextClassificationPipelineOptions extends WindowOptions {
  /** How many labels to give, the best first; null for all. Default 1. */
  readonly top_k?: number | null | undefined
  /**
   * From logits to scores. Default: `sigmoid` for several labels at once and for a single label, `none` for regression, else
   * `softmax`. A folder with a calibration has its scores by that, unless this says otherwise.
   */
  readonly function_to_apply?: ScoreFunction | undefined
}

export interface ClassScore {
  readonly label: string
  readonly score: number
}

export interface TextClassificationPipeline extends PipelineBase {
  /** The best labels of a text, in a list. */
  (text: TextInput, options?: TextClassificationPipelineOptions): Promise<ClassScore[]>
  /** The best label of each text. */
  (
    texts: readonly TextInput[],
    options?: TextClassificationPipelineOptions & { readonly top_k?: 1 | undefined },
  ): Promise<ClassScore[]>
  /** A list for each text, unless `top_k` is 1. */
  (
    texts: readonly TextInput[],
    options?: TextClassificationPipelineOptions,
  ): Promise<ClassScore[] | ClassScore[][]>
}

const optionNames = ['top_k', 'function_to_apply', ...windowOptionNames]

function defaultFunction({ problemType, numLabels }: ElectraConfig): ScoreFunction {
  if (problemType === 'regression') return 'none'
  return problemType === 'multi_label_classification' || numLabels === 1 ? 'sigmoid' : 'softmax'
}

function scoresOf(logits: Float64Array, apply: ScoreFunction): Float64Array {
  if (apply === 'softmax') return softmax(logits)
  return apply === 'sigmoid' ? logits.map(sigmoid) : logits
}

/** The labels of scores, the best first. */
function ranked(scores: Float64Array, { id2label }: ElectraConfig): ClassScore[] {
  const labelled = Array.from(scores, (score, label) => ({ label: id2label[label] as string, score }))
  return labelled.sort((a, b) => b.score - a.score)
}

/** By the folder's calibration; what is out of scope has that label first. */
function calibrated(logits: Float64Array, config: ElectraConfig, calibration: Calibration): ClassScore[] {
  const scores = calibratedScores(logits, calibration)
  const labels = ranked(scores, config)
  if (!isOutOfScope(scores, calibration)) return labels
  return [{ label: calibration.outOfScopeLabel, score: 1 - (labels[0]?.score ?? 0) }, ...labels]
}

/** The rows of a text or pair. */
export function inputWindows(session: Session, input: TextInput, options: WindowOptions): Sequence[] {
  const isPair = typeof input === 'object' && input !== null
  const { text, text_pair: pair } = isPair ? input : { text: input, text_pair: undefined }
  const first = textInput(session.task, 'the text', text)
  if (pair === undefined) return textWindows(session, tokensOf(session.tokenizer, first), options)
  return pairWindows(session, [first, textInput(session.task, 'text_pair', pair)], options)
}

/** The mean of the windows' logits. */
export async function meanLogits(
  submit: Submit<Float32Array>,
  windows: readonly Sequence[],
): Promise<Float64Array> {
  const rows = await submit(windows)
  return Float64Array.from(rows[0] ?? [], (_, label) => {
    return rows.reduce((sum, row) => sum + (row[label] as number), 0) / rows.length
  })
}

export function createTextClassification(
  session: Session<ElectraForSequenceClassification>,
): TextClassificationPipeline {
  const { task, model } = session
  const submit = session.gathered(sequenceLogits(model))
  const calibration = calibrationOf(model.config)

  async function classify(
    inputs: TextInput | readonly TextInput[],
    options: TextClassificationPipelineOptions = {},
  ): Promise<ClassScore[] | ClassScore[][]> {
    checkOptionNames(task, options, optionNames)
    const most = topOption(task, options.top_k, 1)
    const apply = nameOption(
      task,
      'function_to_apply',
      options.function_to_apply,
      ['softmax', 'sigmoid', 'none'],
      defaultFunction(model.config),
    )
    const results = await session.each(inputs, async (input) => {
      const logits = await meanLogits(submit, inputWindows(session, input, options))
      const labels =
        calibration !== undefined && options.function_to_apply === undefined
          ? calibrated(logits, model.config, calibration)
          : ranked(scoresOf(logits, apply), model.config)
      return labels.slice(0, most)
    })
    return Array.isArray(inputs) && most === 1 ? (results as ClassScore[][]).flat() : results
  }
  return session.pipeline(classify) as TextClassificationPipeline
}
