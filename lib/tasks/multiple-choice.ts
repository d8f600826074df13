/** Multiple choice: the question goes with each of its choices into the model, and the choices' scores compete. */
import { ElectraForMultipleChoice, type ElectraPreTrainedModel, type Rows } from '../electra/index.js'
import { VoltaicError } from '../runtime/errors.js'
import { add, mul, type Tensor } from '../tensor/index.js'
import { type ChoiceExample, readChoiceExamples } from './choice-examples.js'
import { bestClass, softmax } from './class-scores.js'
import { accuracy } from './metrics-classification.js'
import { skippedPlaces } from './row-checks.js'
import type { Feature, Task, TaskKind } from './task.js'
import { predictionsOf, requireArchitecture, targetOf } from './text-sequences.js'

/** A question: the sequences of its choices, one behind the other. */
export interface ChoiceFeature extends Feature {
  /** Where each choice's sequence ends. */
  readonly ends: readonly number[]
  /** In training. */
  readonly target?: number
}

export interface ChoicePrediction {
  /** From 0. */
  readonly choice: number
  /** Its probability among the choices. */
  readonly score: number
  readonly scores: Float64Array
}

function choiceModelOf(model: ElectraPreTrainedModel): ElectraForMultipleChoice {
  if (model instanceof ElectraForMultipleChoice) return model
  throw new VoltaicError(
    'ERR_ARGUMENT',
    `the model is an ${model.architecture}; expected an ElectraForMultipleChoice`,
  )
}

function joined(rows: readonly Int32Array[]): Int32Array {
  const all = new Int32Array(rows.reduce((length, row) => length + row.length, 0))
  let at = 0
  for (const row of rows) {
    all.set(row, at)
    at += row.length
  }
  return all
}

const partsOf = (row: Int32Array, ends: readonly number[]): Int32Array[] =>
  ends.map((end, choice) => row.subarray(ends[choice - 1] ?? 0, end))

function inputOf(batch: readonly ChoiceFeature[]): { inputIds: Rows[]; tokenTypeIds: Rows[] } {
  return {
    inputIds: batch.map(({ inputIds, ends }) => partsOf(inputIds, ends)),
    tokenTypeIds: batch.map(({ tokenTypeIds, ends }) => partsOf(tokenTypeIds, ends)),
  }
}

function lossOf(model: ElectraForMultipleChoice, batch: readonly ChoiceFeature[]): Tensor {
  const { loss, logits } = model.forward({ ...inputOf(batch), labels: batch.map(targetOf) })
  logits.dispose()
  return loss
}

/** The mean over all questions. The model takes questions with as many choices, so those with more or fewer go by themselves. */
function meanLoss(model: ElectraForMultipleChoice, batch: readonly ChoiceFeature[]): Tensor {
  const counts = new Set(batch.map(({ ends }) => ends.length))
  const groups = [...counts].map((count) => batch.filter(({ ends }) => ends.length === count))
  const [only] = groups
  if (groups.length === 1 && only !== undefined) return lossOf(model, only)
  const parts = groups.map((group) => {
    const loss = lossOf(model, group)
    const part = mul(loss, group.length / batch.length)
    loss.dispose()
    return part
  })
  return parts.reduce((total, part) => {
    const sum = add(total, part)
    total.dispose()
    part.dispose()
    return sum
  })
}

/** @throws ERR_ARGUMENT for an example without a label */
function labelOf({ label, line }: ChoiceExample): number {
  if (label !== undefined) return label
  throw new VoltaicError(
    'ERR_ARGUMENT',
    `the example of line ${line} has no label; expected the right choice`,
  )
}

const task: Task<ChoiceExample, ChoiceFeature, ChoicePrediction> = {
  name: 'multiple-choice',
  model: ElectraForMultipleChoice,
  config: { architectures: ['ElectraForMultipleChoice'] },
  metric: 'accuracy',

  features: (examples, tokenizer, { maxLength, training }) =>
    examples.flatMap(({ text, choices, label }, example): ChoiceFeature[] => {
      if (training && label === undefined) return []
      const questions = choices.map(() => text)
      const { inputIds, tokenTypeIds } = tokenizer(questions, { textPair: choices, maxLength })
      let end = 0
      const ends = inputIds.map(({ length }) => {
        end += length
        return end
      })
      const target = training && label !== undefined ? { target: label } : {}
      return [{ example, inputIds: joined(inputIds), tokenTypeIds: joined(tokenTypeIds), ends, ...target }]
    }),

  loss: (model, batch) => meanLoss(choiceModelOf(model), batch),

  async outputs(model, batch) {
    // Without a loss the choices do not meet, so one row takes those of all questions.
    const { inputIds, tokenTypeIds } = inputOf(batch)
    const rows = { inputIds: [inputIds.flat()], tokenTypeIds: [tokenTypeIds.flat()] }
    const { logits, offsets } = choiceModelOf(model).forward(rows)
    offsets.dispose()
    const data = (await logits.data()) as Float32Array
    logits.dispose()
    let at = 0
    return batch.map(({ ends }) => {
      at += ends.length
      return { logits: data.subarray(at - ends.length, at) }
    })
  },

  decode: (examples, features, outputs) =>
    predictionsOf(examples, features, outputs, (logits) => {
      const scores = softmax(logits)
      const choice = bestClass(scores)
      return { choice, score: scores[choice] as number, scores }
    }),

  metrics: (examples, predictions) => ({
    accuracy: accuracy(
      examples.map(labelOf),
      predictions.map(({ choice }) => choice),
    ),
  }),

  report: () => '',

  record: ({ line, text, choices, label }, { choice, scores }) => ({
    line,
    text,
    choices,
    ...(label === undefined ? {} : { label }),
    prediction: choice,
    scores: [...scores],
  }),
}

export function multipleChoice(): TaskKind<ChoiceExample, ChoiceFeature, ChoicePrediction> {
  return {
    name: 'multiple-choice',
    // The original has no such task: its defaults for the others.
    defaults: { epochs: 3, maxLength: 128 },
    async read(file, { split: _, labelNames: __, ...options }) {
      const { examples, skipped } = await readChoiceExamples(file, options)
      return { examples, skipped: skippedPlaces(skipped) }
    },
    learn: () => task,
    restore(config) {
      requireArchitecture(config, 'ElectraForMultipleChoice', 'multiple-choice')
      return task
    },
  }
}
