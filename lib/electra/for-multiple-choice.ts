/** Multiple choice: each choice is a sequence, the scores of a question's choices compete. */
import type { ElectraConfig } from '../formats/electra-config.js'
import { Linear, Module } from '../nn/index.js'
import { VoltaicError } from '../runtime/index.js'
import {
  type Activation,
  activate,
  crossEntropy,
  type Dropout,
  reshape,
  type Tensor,
} from '../tensor/index.js'
import { type Rows, toDeviceBatch, upload } from './batch.js'
import { activationOf, type BuildOptions } from './encoder.js'
import { dropped, sequenceNumbers } from './heads.js'
import { ElectraModel, type ForwardOptions } from './model.js'
import { ElectraPreTrainedModel, type ModelOptions } from './pretrained.js'

export interface MultipleChoiceInput extends ForwardOptions {
  /** For each question the rows of its choices; every question has as many. */
  readonly inputIds: readonly Rows[]
  /** The same with types. Default: all 0. */
  readonly tokenTypeIds?: readonly Rows[] | undefined
}

export interface ChoiceLabels {
  /** For each question the right choice; -100: ignored. */
  readonly labels: readonly number[] | Int32Array
}

export interface MultipleChoiceOutput {
  /** float32 [questions, choices] */
  readonly logits: Tensor
  readonly hiddenStates?: readonly Tensor[]
  /** Of the choices' sequences, one after the other. */
  readonly offsets: Tensor
}

/** first token → dense + activation → dropout */
class SequenceSummary extends Module {
  readonly summary: Linear | null
  readonly activation: Activation | undefined
  readonly lastDropout: Dropout

  constructor(config: ElectraConfig, { device, initializers, randomness }: BuildOptions) {
    super()
    const { hiddenSize: width, summaryActivation } = config
    if (config.summaryType !== 'first') {
      throw new VoltaicError(
        'ERR_UNSUPPORTED',
        `multiple choice: summary_type is "${config.summaryType}"; this version has "first" only`,
      )
    }
    this.lastDropout = randomness.next(config.summaryLastDropout)
    this.activation = summaryActivation === null ? undefined : activationOf(summaryActivation)
    this.summary = config.summaryUseProj
      ? new Linear({
          inputs: width,
          outputs: width,
          activation: this.activation,
          device,
          initializer: initializers.output,
        })
      : null
  }

  /** Frees `first`, the first tokens, [sequences, hiddenSize]. */
  forward(first: Tensor): Tensor {
    const summary = this.#summarize(first)
    if (summary !== first) first.dispose()
    return dropped(summary, this.lastDropout, this.training)
  }

  #summarize(first: Tensor): Tensor {
    if (this.summary !== null) return this.summary.forward(first)
    return this.activation === undefined ? first : activate(first, this.activation)
  }
}

/** The choices of all questions as sequences, and how many each question has. */
function choiceRows(
  name: string,
  questions: readonly Rows[],
): { readonly rows: Rows; readonly choices: number } {
  const choices = Array.isArray(questions) && Array.isArray(questions[0]) ? questions[0].length : 0
  if (choices === 0 || questions.some((rows) => !Array.isArray(rows) || rows.length !== choices)) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `${name}: expected for each question the rows of its choices, as many for every question ` +
        '(such as [[[2, 7, 3], [2, 8, 9, 3]]] for one question with two)',
    )
  }
  return { rows: questions.flat(), choices }
}

export class ElectraForMultipleChoice extends ElectraPreTrainedModel {
  readonly architecture: string = 'ElectraForMultipleChoice'
  readonly electra: ElectraModel
  readonly sequenceSummary: SequenceSummary
  readonly classifier: Linear

  constructor(config: ElectraConfig, options: ModelOptions = {}) {
    super(config, options)
    const { part, ...build } = this.building()
    this.electra = new ElectraModel(config, part)
    this.sequenceSummary = new SequenceSummary(config, build)
    this.classifier = new Linear({
      inputs: config.hiddenSize,
      outputs: 1,
      device: build.device,
      initializer: build.initializers.output,
    })
    this.seeded(options)
  }

  /** `loss`, with labels: mean cross-entropy over the choices of each question, a scalar. */
  forward(input: MultipleChoiceInput & ChoiceLabels): MultipleChoiceOutput & { readonly loss: Tensor }
  forward(input: MultipleChoiceInput): MultipleChoiceOutput
  forward(
    input: MultipleChoiceInput & Partial<ChoiceLabels>,
  ): MultipleChoiceOutput & { readonly loss?: Tensor } {
    const { rows, choices } = choiceRows('inputIds', input.inputIds)
    const types =
      input.tokenTypeIds === undefined ? undefined : choiceRows('tokenTypeIds', input.tokenTypeIds).rows
    const batch = toDeviceBatch({ inputIds: rows, tokenTypeIds: types }, this.config, this.device)
    const questions = input.inputIds.length
    const targets =
      input.labels === undefined
        ? null
        : upload(
            sequenceNumbers('labels', input.labels, questions, () => choices),
            this.device,
          )
    return this.pass(batch, input, targets !== null, () => {
      const { first, ...states } = this.electra.encodeFirst(batch, input)
      const summary = this.sequenceSummary.forward(first)
      const scores = this.classifier.forward(summary, { outputDtype: 'float32' })
      summary.dispose()
      const logits = reshape(scores, [questions, choices])
      scores.dispose()
      const common = { ...states, logits, offsets: batch.offsets }
      if (targets === null) return common
      const loss = crossEntropy(logits, targets)
      targets.dispose()
      return { ...common, loss }
    })
  }
}
