/** Small fine-tuning runs for tests: a model folder of one layer, files that it can learn, and what a run left behind. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  configOfSize,
  ElectraForPreTraining,
  ElectraTokenizer,
  type FinetuneResult,
  type FinetuneRun,
  type FinetuneStep,
  finetune,
  type Task,
  type TaskKind,
} from 'voltaic'
import { type Row, repeatable, sha256 } from './training.js'

const fillers = 'the a film was with some very old new long short and of its cast story music'.split(' ')
const praise = ['good', 'fine', 'great', 'lovely']
const blame = ['bad', 'poor', 'awful', 'dull']

export const vocabulary: readonly string[] = [
  '[PAD]',
  '[UNK]',
  '[CLS]',
  '[SEP]',
  '[MASK]',
  ...fillers,
  ...praise,
  ...blame,
]

/** Rows of 3 to 14 words, one of which decides the label; the same for the same numbers. */
export function reviews(count: number, seed = 1): string {
  let state = seed
  const pick = <T>(list: readonly T[]): T => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return list[Math.floor((state / 2 ** 32) * list.length)] as T
  }
  const row = (): string => {
    const words = Array.from({ length: pick([2, 3, 4, 6, 9, 13]) }, () => pick(fillers))
    const isGood = pick([true, false])
    words.splice(pick([0, 1, 2]), 0, pick(isGood ? praise : blame))
    return `${words.join(' ')}\t${isGood ? 'good' : 'bad'}`
  }
  return `text\tlabel\n${Array.from({ length: count }, row).join('\n')}\n`
}

/** Writes a model folder of one layer of 32 with its tokenizer, and `train.tsv` and `dev.tsv` beside it. */
export async function smallFiles(
  folder: string,
): Promise<{ readonly model: string; readonly train: string; readonly validation: string }> {
  const model = join(folder, 'small')
  const config = configOfSize('tiny', {
    vocabSize: vocabulary.length,
    numHiddenLayers: 1,
    hiddenSize: 32,
    numAttentionHeads: 2,
    intermediateSize: 64,
    embeddingSize: 16,
    maxPositionEmbeddings: 64,
  })
  const electra = new ElectraForPreTraining(config, { seed: 5 })
  await electra.savePretrained(model)
  electra.dispose()
  await ElectraTokenizer.fromVocabulary(vocabulary).save(model)
  const [train, validation] = [join(folder, 'train.tsv'), join(folder, 'dev.tsv')]
  writeFileSync(train, reviews(200))
  writeFileSync(validation, reviews(60, 7))
  return { model, train, validation }
}

/** 4 epochs of 13 steps: two tenths of a second, and five checkpoints. */
export const smallRun = {
  task: 'text-classification',
  epochs: 4,
  batchSize: 16,
  learningRate: 5e-3,
  layerwiseDecay: 1,
  maxLength: 32,
  logEvery: 5,
  saveEvery: 100,
  threads: 1,
  device: 'cpu',
  // 'auto' depends on the processor.
  precision: 'fp32',
} as const satisfies Partial<FinetuneRun>

export interface FinishedRun {
  readonly steps: readonly FinetuneStep[]
  readonly result: FinetuneResult
}

/** Runs to the end. */
export async function tune(options: FinetuneRun): Promise<FinishedRun> {
  const steps: FinetuneStep[] = []
  const run = finetune(options)
  for (;;) {
    const next = await run.next()
    if (next.done) return { steps, result: next.value }
    steps.push(next.value)
  }
}

/** What must be the same however often a run was interrupted. */
export function leftBy(output: string): object {
  const read = (name: string): string => readFileSync(join(output, name), 'utf8')
  const rows = read('metrics.jsonl')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Row)
  return {
    weights: sha256(join(output, 'model.safetensors')),
    config: read('config.json'),
    metrics: read('metrics.json'),
    predictions: read('predictions.jsonl'),
    rows: repeatable(rows).map((row) => ({ ...row, sequences_per_second: undefined })),
  }
}

/** A kind whose tasks differ in what `change` says. */
export function changedKind(kind: TaskKind, change: (task: Task) => Partial<Task>): TaskKind {
  const changed = (task: Task): Task => {
    const changes = change(task)
    return new Proxy(task, {
      get: (target, name) => {
        const value = Reflect.get(Object.hasOwn(changes, name) ? changes : target, name)
        return typeof value === 'function' ? value.bind(target) : value
      },
    })
  }
  return {
    name: kind.name,
    defaults: kind.defaults,
    read: (file, options) => kind.read(file, options),
    learn: (examples) => changed(kind.learn(examples)),
    restore: (config) => changed(kind.restore(config)),
  }
}
