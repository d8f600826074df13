/** Classification where a text has any number of labels: each is a question of its own, answered yes from one half on. */
import { ElectraForSequenceClassification } from '../electra/index.js'
import { sigmoid } from './class-scores.js'
import { type MultiLabelReport, multiLabelReport } from './metrics-classification.js'
import { scoreTable } from './report-table.js'
import { classOf, labelsConfig, recordOf, type TextPrediction } from './single-label.js'
import type { Task } from './task.js'
import type { TextExample } from './text-examples.js'
import {
  predictionsOf,
  sequenceLogits,
  sequenceLoss,
  type TextFeature,
  targetOf,
  textFeatures,
} from './text-sequences.js'

/** Hugging Face's: where the logit is 0. */
const threshold = 0.5

export interface MultiLabelSettings {
  /** In the order of the classes. */
  readonly labels: readonly string[]
  readonly unordered: boolean
}

export function multiLabelTask({
  labels,
  unordered,
}: MultiLabelSettings): Task<TextExample, TextFeature<Float32Array>, TextPrediction> {
  const classes = new Map(labels.map((label, id) => [label, id]))
  const numbersOf = (label: unknown, line: number): number[] =>
    (Array.isArray(label) ? label : [label]).map((name) => classOf(name, line, classes))
  const reportOf = (
    examples: readonly TextExample[],
    predictions: readonly TextPrediction[],
  ): MultiLabelReport =>
    multiLabelReport(
      examples.map(({ label, line }) => numbersOf(label, line)),
      predictions.map(({ label }, at) => numbersOf(label, examples[at]?.line ?? 0)),
      labels,
    )

  return {
    name: 'text-classification',
    model: ElectraForSequenceClassification,
    config: { problemType: 'multi_label_classification', ...labelsConfig(labels) },
    metric: 'microF1',

    features: (examples, tokenizer, options) =>
      textFeatures(examples, tokenizer, options, {
        unordered,
        targetOf({ label, line }) {
          if (label === undefined) return undefined
          const row = new Float32Array(labels.length)
          for (const which of numbersOf(label, line)) row[which] = 1
          return row
        },
      }),

    loss: (model, batch) => sequenceLoss(model, batch, batch.map(targetOf)),
    outputs: sequenceLogits,

    decode: (examples, features, outputs) =>
      predictionsOf(examples, features, outputs, (logits) => {
        const scores = Float64Array.from(logits, sigmoid)
        const likeliest = [...scores.keys()].sort((a, b) => (scores[b] as number) - (scores[a] as number))
        const label = likeliest
          .filter((which) => (scores[which] as number) >= threshold)
          .map((which) => labels[which] as string)
        return { label, score: scores[likeliest[0] as number] as number, scores }
      }),

    metrics(examples, predictions) {
      const { subsetAccuracy, micro, macro, weighted } = reportOf(examples, predictions)
      return {
        microF1: micro.f1,
        microPrecision: micro.precision,
        microRecall: micro.recall,
        macroF1: macro.f1,
        weightedF1: weighted.f1,
        subsetAccuracy,
      }
    },

    report(examples, predictions) {
      const { byLabel, ...averages } = reportOf(examples, predictions)
      return scoreTable(
        byLabel,
        (['micro', 'macro', 'weighted'] as const).map((average) => ({
          label: `${average} average`,
          ...averages[average],
        })),
      )
    },

    record: (example, { label, scores }) => ({
      ...recordOf(example),
      prediction: label,
      scores: Object.fromEntries(labels.map((name, which) => [name, scores[which]])),
    }),
  }
}
