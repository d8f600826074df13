/** A tokenizer of a few words, models of one small layer, and a plain loop that fine-tunes them: what the tests of tasks share. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { ElectraPreTrainedModel, ModelOptions } from '../../dist/electra/index.js'
import { defineElectraConfig, type ElectraConfig } from '../../dist/formats/electra-config.js'
import { AdamW } from '../../dist/optim/index.js'
import { type DeviceName, resolveDevice } from '../../dist/runtime/index.js'
import type { Feature, Outputs, Task } from '../../dist/tasks/index.js'
import { scope } from '../../dist/tensor/index.js'
import { createTokenizer, type Tokenizer } from '../../dist/text/index.js'

export const device = resolveDevice((process.env.VOLTAIC_TEST_DEVICE ?? 'cpu') as DeviceName)

const words = 'a b c d e f g h good bad warm cold no the film is was very'.split(' ')

export const tokenizer: Tokenizer = createTokenizer({
  vocabulary: ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', ...words],
})

/** The words of a row, special tokens included. */
export const wordsOf = (feature: Feature | undefined): string =>
  tokenizer.convertIdsToTokens(feature?.inputIds ?? []).join(' ')

const folder = t.testdir()

/** A file in a folder of the test's own. */
export function fileOf(name: string, content: string): string {
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}

/** One layer of 32, 32 positions, no dropout. */
export function smallConfig(changes: Partial<ElectraConfig> = {}): ElectraConfig {
  return defineElectraConfig({
    vocabSize: tokenizer.vocabularySize,
    embeddingSize: 16,
    hiddenSize: 32,
    numHiddenLayers: 1,
    numAttentionHeads: 2,
    intermediateSize: 64,
    maxPositionEmbeddings: 32,
    hiddenDropoutProb: 0,
    attentionProbsDropoutProb: 0,
    summaryLastDropout: 0,
    ...changes,
  })
}

/** A model for a task, of first values that follow from the seed. */
export function modelFor(task: Task, options: ModelOptions = {}): ElectraPreTrainedModel {
  return new task.model(smallConfig(task.config), { device, seed: 1, ...options })
}

/** Fine-tunes on all features at once, so many times; gives the losses. */
export async function learn<F extends Feature>(
  task: Task<never, F, unknown>,
  model: ElectraPreTrainedModel,
  features: readonly F[],
  steps: number,
): Promise<number[]> {
  model.train()
  const optimizer = new AdamW(model, { maxGradientNorm: 1 })
  const losses: number[] = []
  for (let step = 0; step < steps; step++) {
    const loss = await scope(() => {
      optimizer.zeroGrad()
      const loss = task.loss(model, features)
      loss.backward()
      optimizer.step({ learningRate: 3e-3 })
      return loss.data()
    })
    losses.push(loss[0] as number)
  }
  model.eval()
  return losses
}

/** Predictions of examples. */
export async function predict<Example, F extends Feature, Prediction>(
  task: Task<Example, F, Prediction>,
  model: ElectraPreTrainedModel,
  examples: readonly Example[],
): Promise<Prediction[]> {
  const features = task.features(examples, tokenizer, { maxLength: 32, training: false })
  return task.decode(examples, features, await task.outputs(model, features))
}

/** Records of made logits, a row a feature. */
export const madeOutputs = (rows: readonly (readonly number[])[]): Outputs[] =>
  rows.map((row) => ({ logits: Float32Array.from(row) }))
