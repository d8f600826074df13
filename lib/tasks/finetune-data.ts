/** What a fine-tuning run learns from: the task's files, read and divided, its labels, and features of every part. */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createPermutation } from '../data/random.js'
import { VoltaicError } from '../runtime/errors.js'
import { ioError } from '../runtime/mapped-file.js'
import type { Tokenizer } from '../text/index.js'
import type { FinetuneSettings } from './finetune-options.js'
import type { Feature, FeatureOptions, Task, TaskExamples, TaskReadOptions } from './task.js'

/** A file's examples, and what was left out of it. */
export interface ReadFile extends TaskExamples {
  readonly file: string
  /** SHA-256 of its bytes, for the run's record. */
  readonly hash: string
}

/** Examples to predict, with their features. */
export interface Part {
  readonly examples: readonly unknown[]
  readonly features: readonly Feature[]
}

export interface FinetuneData {
  readonly task: Task
  /** Learned from. */
  readonly train: Part
  /** As many of the learned examples as there are in validation, to be predicted at the end. */
  readonly trainSample: Part
  readonly validation: Part
  readonly test: Part | undefined
}

export interface FinetuneFiles {
  readonly train: ReadFile
  readonly validation: ReadFile | undefined
  readonly test: ReadFile | undefined
}

async function hashOf(file: string): Promise<string> {
  try {
    return createHash('sha256')
      .update(await readFile(file))
      .digest('hex')
  } catch (cause) {
    throw ioError('read', file, cause)
  }
}

export async function readTaskExamples(
  { kind, columns, strict }: Pick<FinetuneSettings, 'kind' | 'columns' | 'strict'>,
  file: string,
  options: TaskReadOptions,
): Promise<ReadFile> {
  const read = await kind.read(file, { ...columns, strict, ...options })
  return { ...read, file, hash: await hashOf(file) }
}

/** The names of a task's labels; undefined for a task without any. */
export function labelNamesOfTask({ config: { id2label } }: Pick<Task, 'config'>): string[] | undefined {
  return id2label === undefined ? undefined : Object.values(id2label)
}

/**
 * Reads the run's files; labels that the training file does not have are malformed in the others.
 * @throws what the task's reading throws
 */
export async function readFinetuneFiles(
  settings: FinetuneSettings,
): Promise<{ readonly files: FinetuneFiles; readonly task: Task }> {
  const train = await readTaskExamples(settings, settings.train, { split: 'train' })
  const task = settings.kind.learn(train.examples)
  const labelNames = labelNamesOfTask(task)
  const read = (file: string | undefined): Promise<ReadFile> | undefined =>
    file === undefined ? undefined : readTaskExamples(settings, file, { split: 'dev', labelNames })
  const [validation, test] = [await read(settings.validation), await read(settings.test)]
  return { files: { train, validation, test }, task }
}

/** The training set without the part kept for validation, and that part; both in the file's order. */
function divided(
  examples: readonly unknown[],
  { validationFraction, seed, train }: FinetuneSettings,
): { readonly learned: readonly unknown[]; readonly kept: readonly unknown[] } {
  const { length } = examples
  if (length < 2) {
    throw new VoltaicError(
      'ERR_CONFIG',
      `${train} has one example, none of which can be kept for validation; name a validation file`,
    )
  }
  const itemAt = createPermutation(length, seed, 0)
  const count = Math.min(length - 1, Math.max(1, Math.round(length * validationFraction)))
  const kept = new Set(Array.from({ length: count }, (_, place) => itemAt(place)))
  return {
    learned: examples.filter((_, index) => !kept.has(index)),
    kept: examples.filter((_, index) => kept.has(index)),
  }
}

/** @throws ERR_CONFIG when nothing of the training set can be learned from */
export function makeFeatures(
  settings: FinetuneSettings,
  { train, validation, test }: FinetuneFiles,
  task: Task,
  tokenizer: Tokenizer,
  maxLength: number,
): FinetuneData {
  const parts =
    validation === undefined
      ? divided(train.examples, settings)
      : { learned: train.examples, kept: validation.examples }
  const part = (examples: readonly unknown[], training = false): Part => {
    const options: FeatureOptions = { maxLength, stride: settings.stride, training }
    return { examples, features: task.features(examples, tokenizer, options) }
  }
  const learned = part(parts.learned, true)
  if (learned.features.length === 0) {
    throw new VoltaicError(
      'ERR_CONFIG',
      `${settings.train}: none of its ${parts.learned.length} examples can be learned from at a length of ${maxLength} tokens`,
    )
  }
  const itemAt = createPermutation(parts.learned.length, settings.seed, 1)
  const sample = Array.from(
    { length: Math.min(parts.learned.length, parts.kept.length) },
    (_, place) => parts.learned[itemAt(place)],
  )
  return {
    task,
    train: learned,
    trainSample: part(sample),
    validation: part(parts.kept),
    test: test === undefined ? undefined : part(test.examples),
  }
}
