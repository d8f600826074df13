/**
 * `zero-shot-classification`: which of any labels fits a text, by a model of natural language inference: each label becomes a
 * hypothesis, and counts as much as the text entails it (Yin et al., 2019).
 */
import type { ElectraForSequenceClassification } from '../electra/index.js'
import type { ElectraConfig } from '../formats/electra-config.js'
import { VoltaicError } from '../runtime/errors.js'
import { softmax } from '../tasks/class-scores.js'
import { checkOptionNames, refuse, shown, textInput } from './options.js'
import { sequenceLogits } from './outputs.js'
import type { PipelineBase, Session } from './session.js'
import { meanLogits } from './text-classification.js'
import { pairWindows, type WindowOptions, windowOptionNames } from './windows.js'

export interface ZeroShotClassificationPipelineOptions extends WindowOptions {
  /** Where `{}` stands, the label comes. Default 'This example is {}.' */
  readonly hypothesis_template?: string | undefined
  /** Several labels may fit: each is scored by itself. Default false: the scores sum to 1. */
  readonly multi_label?: boolean | undefined
}

export interface ZeroShotResult {
  readonly sequence: string
  /** The best first. */
  readonly labels: string[]
  readonly scores: number[]
}

export interface ZeroShotClassificationPipeline extends PipelineBase {
  (
    text: string,
    candidateLabels: string | readonly string[],
    options?: ZeroShotClassificationPipelineOptions,
  ): Promise<ZeroShotResult>
  (
    texts: readonly string[],
    candidateLabels: string | readonly string[],
    options?: ZeroShotClassificationPipelineOptions,
  ): Promise<ZeroShotResult[]>
}

/** The number of the label for entailment, and of the one that speaks against it. */
export function entailmentLabels(
  { numLabels, id2label }: ElectraConfig,
  task: string,
): { readonly entailment: number; readonly contradiction: number } {
  const names = Array.from({ length: numLabels }, (_, id) => (id2label[id] as string).toLowerCase())
  const find = (...starts: string[]): number =>
    names.findIndex((name) => starts.some((start) => name.startsWith(start)))
  const entailment = find('entail')
  const contradiction = find('contradict', 'not_entail', 'not-entail', 'not entail', 'non')
  if (entailment >= 0 && contradiction >= 0) return { entailment, contradiction }
  throw new VoltaicError(
    'ERR_CONFIG',
    `${task}: the model's labels are ${names.slice(0, 8).join(', ')}; expected one called entailment, and one called contradiction or ` +
      'not_entailment: a model fine-tuned on natural language inference (MNLI, RTE, QNLI)',
  )
}

function candidates(task: string, given: string | readonly string[]): readonly string[] {
  const labels = typeof given === 'string' ? [given] : given
  if (!Array.isArray(labels) || labels.length === 0) {
    refuse(task, `candidate labels are ${shown(given)}; expected a label or a list of labels`)
  }
  for (const label of labels) textInput(task, 'a candidate label', label)
  return labels
}

export function createZeroShotClassification(
  session: Session<ElectraForSequenceClassification>,
): ZeroShotClassificationPipeline {
  const { task, model } = session
  const { entailment, contradiction } = entailmentLabels(model.config, task)
  const submit = session.gathered(sequenceLogits(model))

  async function classify(
    inputs: string | readonly string[],
    candidateLabels: string | readonly string[],
    options: ZeroShotClassificationPipelineOptions = {},
  ): Promise<ZeroShotResult | ZeroShotResult[]> {
    checkOptionNames(task, options, ['hypothesis_template', 'multi_label', ...windowOptionNames])
    const { hypothesis_template: template = 'This example is {}.', multi_label: isMultiple = false } = options
    const labels = candidates(task, candidateLabels)
    if (!textInput(task, 'hypothesis_template', template).includes('{}')) {
      refuse(task, `hypothesis_template is ${shown(template)}; expected {} where the label comes`)
    }
    return session.each(inputs, async (sequence) => {
      const text = textInput(task, 'the text', sequence)
      const logits = await Promise.all(
        labels.map((label) =>
          meanLogits(submit, pairWindows(session, [text, template.replaceAll('{}', () => label)], options)),
        ),
      )
      const own = logits.map((row) => row[entailment] as number)
      const scores =
        isMultiple || labels.length === 1
          ? logits.map(
              (row, label) => softmax([row[contradiction] as number, own[label] as number])[1] as number,
            )
          : [...softmax(own)]
      const order = [...labels.keys()].sort((a, b) => (scores[b] as number) - (scores[a] as number))
      return {
        sequence: text,
        labels: order.map((label) => labels[label] as string),
        scores: order.map((label) => scores[label] as number),
      }
    })
  }
  return session.pipeline(classify) as ZeroShotClassificationPipeline
}
