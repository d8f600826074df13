/**
 * Regression: one number for a text or a pair, as similarity in STS-B. The model learns the numbers as they stand in the file, with
 * Hugging Face's mean squared error; the original code divides those of STS-B by 5.
 */
import { ElectraForSequenceClassification } from '../electra/index.js'
import { VoltaicError } from '../runtime/errors.js'
import type { GlueTask } from './glue.js'
import { meanSquaredError, pearsonCorrelation, spearmanCorrelation } from './metrics-regression.js'
import { recordOf } from './single-label.js'
import type { Task, TaskKind } from './task.js'
import { readTexts, textDefaults } from './text-classification.js'
import type { TextExample } from './text-examples.js'
import {
  predictionsOf,
  requireArchitecture,
  sequenceLogits,
  sequenceLoss,
  type TextFeature,
  targetOf,
  textFeatures,
} from './text-sequences.js'

export interface RegressionOptions {
  /** Pairs may be swapped: both orders are learned from. Default false, but for STS-B. */
  readonly unordered?: boolean | undefined
}

type RegressionTask = Task<TextExample, TextFeature<number>, number>

/** @throws ERR_ARGUMENT for an example without a number */
function numberOf({ label, line }: TextExample): number {
  if (typeof label === 'number') return label
  throw new VoltaicError(
    'ERR_ARGUMENT',
    `the example of line ${line} has ${label === undefined ? 'no label' : 'a name as its label'}; expected a number`,
  )
}

function regressionTask(unordered: boolean): RegressionTask {
  return {
    name: 'text-regression',
    model: ElectraForSequenceClassification,
    config: {
      architectures: ['ElectraForSequenceClassification'],
      problemType: 'regression',
      numLabels: 1,
    },
    metric: 'spearman',

    features: (examples, tokenizer, options) =>
      textFeatures(examples, tokenizer, options, {
        unordered,
        targetOf: (example) => (example.label === undefined ? undefined : numberOf(example)),
      }),

    loss: (model, batch) => sequenceLoss(model, batch, batch.map(targetOf)),
    outputs: sequenceLogits,
    decode: (examples, features, outputs) =>
      predictionsOf(examples, features, outputs, (logits) => logits[0] as number),

    /** A correlation with something constant, or of one example, is NaN. */
    metrics(examples, predictions) {
      const labels = examples.map(numberOf)
      const isDefined = labels.length > 1
      return {
        spearman: isDefined ? spearmanCorrelation(labels, predictions) : Number.NaN,
        pearson: isDefined ? pearsonCorrelation(labels, predictions) : Number.NaN,
        meanSquaredError: meanSquaredError(labels, predictions),
      }
    },

    report: () => '',
    record: (example, prediction) => ({ ...recordOf(example), prediction }),
  }
}

export function textRegression(
  options: RegressionOptions = {},
  glue?: GlueTask,
): TaskKind<TextExample, TextFeature<number>, number> {
  const unordered = options.unordered ?? glue?.unordered ?? false
  return {
    name: 'text-regression',
    defaults: textDefaults(glue),
    read: (file, { labelNames: _, ...reading }) => readTexts(file, { ...reading, labels: 'number' }, glue),
    learn: () => regressionTask(unordered),
    restore(config) {
      requireArchitecture(config, 'ElectraForSequenceClassification', 'text-regression')
      const { problemType, numLabels } = config
      if (numLabels !== 1 || (problemType !== null && problemType !== 'regression')) {
        throw new VoltaicError(
          'ERR_CONFIG',
          `the model has ${numLabels} labels; a regression has one. Evaluate it as text-classification`,
        )
      }
      return regressionTask(unordered)
    },
  }
}
