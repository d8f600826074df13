/** One forward pass over gathered sequences, and its numbers sorted out by sequence. The tensors are freed, the event loop stays free. */
import {
  ElectraForJointQuestionAnswering,
  type ElectraForMaskedLM,
  type ElectraForMultipleChoice,
  type ElectraForPreTraining,
  type ElectraForQuestionAnswering,
  type ElectraForSequenceClassification,
  type ElectraForTokenClassification,
  type ElectraModel,
  type RaggedInput,
} from '../electra/index.js'
import type { Outputs } from '../tasks/task.js'
import { scope, type Tensor } from '../tensor/index.js'
import type { RunBatch, Sequence } from './gathering.js'

const inputOf = (batch: readonly Sequence[]): RaggedInput => ({
  inputIds: batch.map(({ inputIds }) => inputIds),
  tokenTypeIds: batch.map(({ tokenTypeIds }) => tokenTypeIds),
})

/** Runs `forward`; gives its result's numbers once they are there. */
const read = (forward: () => Tensor): Promise<Float32Array> =>
  scope(() => forward().data() as Promise<Float32Array>)

/** Consecutive parts of the numbers, views on them. */
function parts(numbers: Float32Array, lengths: readonly number[]): Float32Array[] {
  let end = 0
  return lengths.map((length) => {
    end += length
    return numbers.subarray(end - length, end)
  })
}

/** [labels] of each sequence. */
export function sequenceLogits(model: ElectraForSequenceClassification): RunBatch<Float32Array> {
  return async (batch) =>
    parts(
      await read(() => model.forward(inputOf(batch)).logits),
      batch.map(() => model.config.numLabels),
    )
}

/** The score of each sequence as a choice: [1]. Choices compete in the loss alone, so those of one pass need not belong together. */
export function choiceLogits(model: ElectraForMultipleChoice): RunBatch<Float32Array> {
  return async (batch) => {
    const { inputIds, tokenTypeIds } = inputOf(batch)
    const logits = await read(
      () => model.forward({ inputIds: [inputIds], tokenTypeIds: tokenTypeIds && [tokenTypeIds] }).logits,
    )
    return parts(
      logits,
      batch.map(() => 1),
    )
  }
}

/** [tokens · labels] of each sequence. */
export function tokenLogits(model: ElectraForTokenClassification): RunBatch<Float32Array> {
  return async (batch) =>
    parts(
      await read(() => model.forward(inputOf(batch)).logits),
      batch.map(({ inputIds }) => inputIds.length * model.config.numLabels),
    )
}

/** [tokens] of each sequence; above 0 means replaced. */
export function replacedLogits(model: ElectraForPreTraining): RunBatch<Float32Array> {
  return async (batch) =>
    parts(
      await read(() => model.forward(inputOf(batch)).logits),
      batch.map(({ inputIds }) => inputIds.length),
    )
}

/** [masked positions · vocabulary] of each sequence. */
export function maskedLogits(model: ElectraForMaskedLM): RunBatch<Float32Array> {
  return async (batch) => {
    const maskedPositions = batch.map(({ maskedPositions = new Int32Array(0) }) => maskedPositions)
    return parts(
      await read(() => model.forward({ ...inputOf(batch), maskedPositions }).logits),
      maskedPositions.map(({ length }) => length * model.config.vocabSize),
    )
  }
}

/** The last layer, [tokens · hiddenSize] of each sequence. */
export function hiddenStates(body: ElectraModel): RunBatch<Float32Array> {
  return async (batch) =>
    parts(
      await read(() => body.forward(inputOf(batch)).lastHiddenState),
      batch.map(({ inputIds }) => inputIds.length * body.config.hiddenSize),
    )
}

/** Of each sequence what `bestAnswers` takes: `start` and `end`, a logit a token; of the original's head its beams. */
export function answerOutputs(
  model: ElectraForQuestionAnswering | ElectraForJointQuestionAnswering,
): RunBatch<Outputs> {
  return async (batch) => {
    if (model instanceof ElectraForJointQuestionAnswering) {
      const found = await model.beams(inputOf(batch))
      return found.map(({ beams, unanswerable }) => ({ beams, unanswerable: Float32Array.of(unanswerable) }))
    }
    const [starts, ends] = await scope(() => {
      const { startLogits, endLogits } = model.forward(inputOf(batch))
      return Promise.all([startLogits, endLogits].map((logits) => logits.data() as Promise<Float32Array>))
    })
    const lengths = batch.map(({ inputIds }) => inputIds.length)
    const end = parts(ends as Float32Array, lengths)
    return parts(starts as Float32Array, lengths).map((start, row) => ({
      start,
      end: end[row] as Float32Array,
    }))
  }
}
