/** A small model on a task, all examples a step: enough to see that features, loss, outputs and decoding fit together. */
import { setImmediate } from 'node:timers/promises'
import { defineElectraConfig } from '../../dist/formats/electra-config.js'
import { AdamW } from '../../dist/optim/index.js'
import type { Feature, Task } from '../../dist/tasks/index.js'
import type { Tokenizer } from '../../dist/text/index.js'

export async function learn<Example, F extends Feature, Prediction>(
  task: Task<Example, F, Prediction>,
  examples: readonly Example[],
  tokenizer: Tokenizer,
  { steps, maxLength, stride }: { steps: number; maxLength: number; stride?: number },
) {
  const config = defineElectraConfig({
    ...task.config,
    vocabSize: tokenizer.vocabularySize,
    embeddingSize: 32,
    hiddenSize: 32,
    numHiddenLayers: 1,
    numAttentionHeads: 2,
    intermediateSize: 64,
    maxPositionEmbeddings: 64,
    hiddenDropoutProb: 0,
    attentionProbsDropoutProb: 0,
    initializerRange: 0.1,
  })
  const model = new task.model(config, { seed: 1 })
  const optimizer = new AdamW(model)
  const features = task.features(examples, tokenizer, { maxLength, stride, training: true })
  const losses: number[] = []
  model.train()
  for (let step = 0; step < steps; step++) {
    const loss = task.loss(model, features)
    losses.push(((await loss.data()) as Float32Array)[0]!)
    loss.backward()
    loss.dispose()
    optimizer.step({ learningRate: 5e-3 })
    optimizer.zeroGrad()
    await setImmediate()
  }
  model.eval()
  const evaluated = task.features(examples, tokenizer, { maxLength, stride, training: false })
  const outputs = await task.outputs(model, evaluated)
  return {
    model,
    losses,
    features: evaluated,
    outputs,
    predictions: task.decode(examples, evaluated, outputs),
  }
}
