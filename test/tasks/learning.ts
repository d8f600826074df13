/** A small model that learns a task's examples and predicts them: enough to see that features, loss, outputs and decoding fit. */
import type { Feature, Task } from '../../dist/tasks/index.js'
import type { Tokenizer } from '../../dist/text/index.js'
import { device, learn as fineTune, smallConfig } from './small-task.js'

export async function learn<Example, F extends Feature, Prediction>(
  task: Task<Example, F, Prediction>,
  examples: readonly Example[],
  tokenizer: Tokenizer,
  { steps, maxLength, stride }: { steps: number; maxLength: number; stride?: number },
) {
  const config = smallConfig({ ...task.config, vocabSize: tokenizer.vocabularySize, initializerRange: 0.1 })
  const model = new task.model(config, { device, seed: 1 })
  const options = { maxLength, stride }
  const learned = task.features(examples, tokenizer, { ...options, training: true })
  const losses = await fineTune(task, model, learned, steps)
  const features = task.features(examples, tokenizer, { ...options, training: false })
  const outputs = await task.outputs(model, features)
  return { losses, features, outputs, predictions: task.decode(examples, features, outputs) }
}
