/** A model's predictions of a set of examples: batches by length, outputs, decoding, metrics. */
import type { ElectraPreTrainedModel } from '../electra/index.js'
import { VoltaicError } from '../runtime/errors.js'
import { batchesByTokens } from './batches.js'
import type { Feature, Outputs, Task } from './task.js'

/** Tokens of a batch: enough to keep every core busy, little enough for any memory. */
const batchTokens = 4096

export interface OutputsOptions {
  /** Stops between two batches, with ERR_ABORTED. */
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((done: number, all: number) => void) | undefined
}

/** The outputs of all features, in their order. The model must be in evaluation mode. */
export async function outputsOf<F extends Feature>(
  task: Task<never, F, unknown>,
  model: ElectraPreTrainedModel,
  features: readonly F[],
  { signal, onProgress }: OutputsOptions = {},
): Promise<Outputs[]> {
  const lengths = features.map(({ inputIds }) => inputIds.length)
  const outputs = new Array<Outputs>(features.length)
  let done = 0
  const keep = async (batch: readonly number[], records: Promise<Outputs[]>): Promise<void> => {
    for (const [place, record] of (await records).entries()) outputs[batch[place] as number] = record
    done += batch.length
    onProgress?.(done, features.length)
  }
  // While one batch's numbers are read, the device works on the next.
  let previous: Promise<void> | undefined
  for (const batch of batchesByTokens(lengths, batchTokens)) {
    if (signal?.aborted) break
    const records = task.outputs(
      model,
      batch.map((index) => features[index] as F),
    )
    records.catch(() => undefined)
    await previous
    previous = keep(batch, records)
    previous.catch(() => undefined)
  }
  await previous
  if (signal?.aborted)
    throw new VoltaicError('ERR_ABORTED', 'interrupted while predicting', { cause: signal.reason })
  return outputs
}

/** The best of two values of a metric is the larger; NaN is worse than anything. */
export function isBetter(value: number, than: number): boolean {
  return Number.isNaN(than) ? !Number.isNaN(value) : value > than
}

/** JSON Lines of the predictions. */
export function predictionLines<Example, Prediction>(
  task: Pick<Task<Example, never, Prediction>, 'record'>,
  examples: readonly Example[],
  predictions: readonly Prediction[],
): string {
  const line = (example: Example, index: number): string =>
    `${JSON.stringify(task.record(example, predictions[index] as Prediction))}\n`
  return examples.map(line).join('')
}
