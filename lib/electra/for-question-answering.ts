/** Extractive question answering: where the answer starts and ends in each sequence (Hugging Face's head, without an answerability score). */
import type { ElectraConfig } from '../formats/electra-config.js'
import { Linear } from '../nn/index.js'
import { add, mul, narrow, raggedCrossEntropy, reshape, type Tensor } from '../tensor/index.js'
import { type BatchInput, type DeviceBatch, toDeviceBatch, upload } from './batch.js'
import { sequenceNumbers } from './heads.js'
import { ElectraModel, type ForwardOptions } from './model.js'
import { ElectraPreTrainedModel, type ModelOptions } from './pretrained.js'

export interface AnswerPositions {
  /** For each sequence the answer's first token, counted from the sequence's first; -100: ignored. */
  readonly startPositions: readonly number[] | Int32Array
  /** For each sequence the answer's last token. */
  readonly endPositions: readonly number[] | Int32Array
}

export interface QuestionAnsweringOutput {
  /** float32 [tokens] */
  readonly startLogits: Tensor
  /** float32 [tokens] */
  readonly endLogits: Tensor
  readonly hiddenStates?: readonly Tensor[]
  readonly offsets: Tensor
}

export class ElectraForQuestionAnswering extends ElectraPreTrainedModel {
  readonly architecture: string = 'ElectraForQuestionAnswering'
  readonly electra: ElectraModel
  readonly qaOutputs: Linear

  constructor(config: ElectraConfig, options: ModelOptions = {}) {
    super(config, options)
    const { part, device, initializers } = this.building()
    this.electra = new ElectraModel(config, part)
    this.qaOutputs = new Linear({
      inputs: config.hiddenSize,
      outputs: 2,
      device,
      initializer: initializers.output,
    })
    this.seeded(options)
  }

  /**
   * `loss`, with both positions, a scalar: half the sum of the mean cross-entropies of starts and ends, each over the tokens of its
   * own sequence.
   */
  forward(
    input: BatchInput & ForwardOptions & AnswerPositions,
  ): QuestionAnsweringOutput & { readonly loss: Tensor }
  forward(input: BatchInput & ForwardOptions): QuestionAnsweringOutput
  forward(
    input: BatchInput & ForwardOptions & Partial<AnswerPositions>,
  ): QuestionAnsweringOutput & { readonly loss?: Tensor } {
    const batch = toDeviceBatch(input, this.config, this.device)
    const { startPositions, endPositions } = input
    const targets =
      startPositions === undefined || endPositions === undefined
        ? null
        : [
            this.#targets('startPositions', startPositions, batch),
            this.#targets('endPositions', endPositions, batch),
          ]
    return this.pass(batch, input, targets !== null, () => {
      const { lastHiddenState, ...states } = this.electra.encode(batch, input)
      const pairs = this.qaOutputs.forward(lastHiddenState, { outputDtype: 'float32' })
      if (states.hiddenStates === undefined) lastHiddenState.dispose()
      const [startLogits, endLogits] = [column(pairs, 0), column(pairs, 1)]
      pairs.dispose()
      const common = { ...states, startLogits, endLogits, offsets: batch.offsets }
      if (targets === null) return common
      const [starts, ends] = targets as [Tensor, Tensor]
      const startLoss = raggedCrossEntropy(startLogits, batch.offsets, starts)
      const endLoss = raggedCrossEntropy(endLogits, batch.offsets, ends)
      const sum = add(startLoss, endLoss)
      const loss = mul(sum, 0.5)
      for (const tensor of [startLoss, endLoss, sum, starts, ends]) tensor.dispose()
      return { ...common, loss }
    })
  }

  #targets(name: string, positions: readonly number[] | Int32Array, batch: DeviceBatch): Tensor {
    const { bounds, sequences } = batch
    const length = (sequence: number): number =>
      (bounds[sequence + 1] as number) - (bounds[sequence] as number)
    return upload(sequenceNumbers(name, positions, sequences, length), this.device)
  }
}

function column(pairs: Tensor, index: number): Tensor {
  const part = narrow(pairs, 1, index, 1)
  const flat = reshape(part, [pairs.shape[0] as number])
  part.dispose()
  return flat
}
