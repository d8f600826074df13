/** Model folders with random weights and a small vocabulary, for the tests of pipelines. */
import { mkdtempSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import {
  createTokenizer,
  defineElectraConfig,
  type ElectraConfig,
  type ElectraPreTrainedModel,
  type ModelClass,
  type Tokenizer,
  tokenizerFiles,
} from 'voltaic'

const letters = 'abcdefghijklmnopqrstuvwxyz0123456789'.split('')
const words =
  'the a chef cooked ate meal fish boat was in on red green film good bad who what where and'.split(' ')

/** Letters as words and as continuations, some words, marks, accents (which lower-casing takes off), Chinese, emoji. */
export const vocabulary: readonly string[] = [
  ...['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '[unused0]'],
  ...letters,
  ...letters.map((letter) => `##${letter}`),
  ...words.filter((word) => word.length > 1),
  ...['##ing', '##ed', '.', ',', '?', '!', '-', '中', '文', '学', '🚢', '😀'],
]

export const tokenizer: Tokenizer = createTokenizer({ vocabulary })

/** 2 layers of 32 and 40 positions; no calls of random numbers. */
export function tinyConfig(options: Partial<ElectraConfig> = {}): ElectraConfig {
  return defineElectraConfig({
    vocabSize: vocabulary.length,
    embeddingSize: 16,
    hiddenSize: 32,
    numHiddenLayers: 2,
    numAttentionHeads: 2,
    intermediateSize: 48,
    maxPositionEmbeddings: 40,
    // Large enough that scores differ from text to text.
    initializerRange: 0.5,
    ...options,
  })
}

const folders = new WeakMap<Test, string>()

/** A test's own folder, empty at first. (tap empties it whenever it is asked.) */
export function folderOf(t: Test): string {
  const folder = folders.get(t) ?? t.testdir()
  folders.set(t, folder)
  return folder
}

/** Writes a model folder with random weights; gives its path. */
export async function saveModel<M extends ElectraPreTrainedModel>(
  t: Test,
  Class: ModelClass<M>,
  options: Partial<ElectraConfig> = {},
  change: (model: M) => void = () => undefined,
): Promise<string> {
  const folder = mkdtempSync(join(folderOf(t), 'model-'))
  const model = new Class(tinyConfig(options), { seed: 5, device: 'cpu' })
  change(model)
  await model.savePretrained(folder, { files: tokenizerFiles(tokenizer.specification) })
  model.dispose()
  return folder
}

/** Labels by number, as a configuration has them. */
export function labels(...names: string[]): Pick<ElectraConfig, 'id2label' | 'label2id' | 'numLabels'> {
  return {
    numLabels: names.length,
    id2label: Object.fromEntries(names.entries()),
    label2id: Object.fromEntries(names.map((name, id) => [name, id])),
  }
}

/** A text of so many words. */
export function textOf(count: number, salt = 0): string {
  return Array.from({ length: count }, (_, i) => words[(i * 7 + salt * 3 + i * i) % words.length]).join(' ')
}
