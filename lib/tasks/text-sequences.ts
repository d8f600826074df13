/** What the tasks over texts and pairs share: their sequences, and the passes through a model with one row of logits a sequence. */
import {
  ElectraForSequenceClassification,
  type ElectraPreTrainedModel,
  type SequenceLabels,
} from '../electra/index.js'
import type { ElectraConfig } from '../formats/electra-config.js'
import { VoltaicError } from '../runtime/errors.js'
import type { Tensor } from '../tensor/index.js'
import type { Tokenizer } from '../text/index.js'
import { featureRows } from './feature-rows.js'
import type { Feature, FeatureOptions, Outputs, TaskName } from './task.js'
import type { TextExample } from './text-examples.js'

/** A text or a pair, with what is learned from it. */
export interface TextFeature<Target = unknown> extends Feature {
  /** In training. */
  readonly target?: Target
}

/**
 * Sequences of the examples, cut to `maxLength` at the longer text's end. For training those that have a target, and with
 * `unordered` all pairs once more the other way round, behind the others, as the original has MRPC and STS.
 */
export function textFeatures<Target>(
  examples: readonly TextExample[],
  tokenizer: Tokenizer,
  { maxLength, training }: FeatureOptions,
  {
    unordered,
    targetOf,
  }: {
    readonly unordered: boolean
    targetOf(example: TextExample): Target | undefined
  },
): TextFeature<Target>[] {
  const features: TextFeature<Target>[] = []
  const push = (example: number, text: string, pair: string | undefined, target: Target | undefined) => {
    const options = pair === undefined ? { maxLength } : { maxLength, textPair: pair }
    const { inputIds, tokenTypeIds } = tokenizer(text, options)
    features.push({
      example,
      inputIds: inputIds[0] as Int32Array,
      tokenTypeIds: tokenTypeIds[0] as Int32Array,
      ...(target === undefined ? {} : { target }),
    })
  }
  const targets = examples.map((example) => (training ? targetOf(example) : undefined))
  examples.forEach(({ text, pair }, at) => {
    if (!training || targets[at] !== undefined) push(at, text, pair, targets[at])
  })
  if (!training || !unordered) return features
  examples.forEach(({ text, pair }, at) => {
    if (pair !== undefined && targets[at] !== undefined) push(at, pair, text, targets[at])
  })
  return features
}

/** The target of a feature that is learned from. @throws ERR_ARGUMENT for features that were not made for training */
export function targetOf<Target>({ target }: TextFeature<Target>): Target {
  if (target !== undefined) return target
  throw new VoltaicError(
    'ERR_ARGUMENT',
    'loss: a feature without a target; expected features made with training: true',
  )
}

function classifierOf(model: ElectraPreTrainedModel): ElectraForSequenceClassification {
  if (model instanceof ElectraForSequenceClassification) return model
  throw new VoltaicError(
    'ERR_ARGUMENT',
    `the model is an ${model.architecture}; expected an ElectraForSequenceClassification`,
  )
}

/** The mean loss of a batch, on the tape. */
export function sequenceLoss(
  model: ElectraPreTrainedModel,
  batch: readonly Feature[],
  labels: SequenceLabels['labels'],
): Tensor {
  const { loss, logits } = classifierOf(model).forward({ ...featureRows(batch), labels })
  logits.dispose()
  return loss
}

/** The logits of a batch, one row a sequence. */
export async function sequenceLogits(
  model: ElectraPreTrainedModel,
  batch: readonly Feature[],
): Promise<Outputs[]> {
  const { logits, offsets } = classifierOf(model).forward(featureRows(batch))
  offsets.dispose()
  const [, width = 0] = logits.shape
  const data = (await logits.data()) as Float32Array
  logits.dispose()
  return batch.map((_, row) => ({ logits: data.subarray(row * width, (row + 1) * width) }))
}

/** The logits of a record. @throws ERR_ARGUMENT when it has none */
export function logitsOf(outputs: Outputs | undefined): Float32Array {
  const logits = outputs?.logits
  if (logits !== undefined) return logits
  throw new VoltaicError('ERR_ARGUMENT', 'outputs: a record without logits; expected one for each feature')
}

/** One prediction an example, from the logits of its feature. */
export function predictionsOf<Prediction>(
  examples: readonly unknown[],
  features: readonly Feature[],
  outputs: readonly Outputs[],
  predict: (logits: Float32Array) => Prediction,
): Prediction[] {
  const found = new Map(features.map(({ example }, at) => [example, logitsOf(outputs[at])]))
  return examples.map((_, example) => {
    const logits = found.get(example)
    if (logits !== undefined) return predict(logits)
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `decode: example ${example} has no feature; expected features made with training: false`,
    )
  })
}

/** @throws ERR_CONFIG when the model's configuration names other classes than the task's */
export function requireArchitecture(
  { architectures }: ElectraConfig,
  architecture: string,
  task: TaskName,
): void {
  if (architectures.length === 0 || architectures.includes(architecture)) return
  throw new VoltaicError(
    'ERR_CONFIG',
    `the model is an ${architectures.join(', ')}; ${task} needs an ${architecture}. ` +
      'Fine-tune it for this task, or name the task that it was fine-tuned for',
  )
}
