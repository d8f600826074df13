/**
 * What a task is to `finetune` and `evaluate`: examples become features, features a loss or logits, logits predictions, predictions
 * metrics. One file a task implements it; neither of the two knows more of a task than stands here.
 */
import type { ElectraPreTrainedModel, ModelClass } from '../electra/index.js'
import type { ElectraConfig } from '../formats/electra-config.js'
import type { Tensor } from '../tensor/index.js'
import type { Tokenizer } from '../text/index.js'

export type TaskName =
  | 'text-classification'
  | 'text-regression'
  | 'token-classification'
  | 'question-answering'
  | 'multiple-choice'

/**
 * One sequence of an example, as the model takes it. An example may give several, such as windows of a long text, and any of them may
 * be in any batch; what has to be computed together, such as the choices of a question, is one feature, one behind the other.
 */
export interface Feature {
  /** Index of the example it comes from. */
  readonly example: number
  readonly inputIds: Int32Array
  readonly tokenTypeIds: Int32Array
}

export interface FeatureOptions {
  /** Tokens of a sequence at most, special tokens included. */
  readonly maxLength: number
  /** Tokens that a window of a long text shares with the one before. Default: the task's own. */
  readonly stride?: number | undefined
  /** Whether the features are learned from: they carry targets then, and examples that cannot be learned from are left out. */
  readonly training: boolean
}

/** What a model says of one feature, by name: `logits`, or `start` and `end`. */
export type Outputs = Readonly<Record<string, Float32Array>>

/** How a file is read. What a task's files do not have is ignored. */
export interface TaskReadOptions {
  /** GLUE: which of the files it is. Default 'dev'. */
  readonly split?: 'train' | 'dev' | 'test' | undefined
  readonly textColumn?: string | undefined
  readonly pairColumn?: string | undefined
  readonly labelColumn?: string | undefined
  /** A malformed row ends the reading. Default false: it is left out, and listed. */
  readonly strict?: boolean | undefined
  /** Whether examples without labels will do, as for predictions. Default false. */
  readonly unlabelled?: boolean | undefined
  /** The labels that may occur; a row with another is malformed. Default: any. */
  readonly labelNames?: readonly string[] | undefined
}

export interface TaskExamples<Example = unknown> {
  readonly examples: readonly Example[]
  /** What was left out, and where it stands in the file: a line, or a place such as data[0].paragraphs[2]. */
  readonly skipped: readonly { readonly place: string; readonly problem: string }[]
}

/** Defaults of fine-tuning that depend on the task (the original's). */
export interface TaskDefaults {
  readonly epochs: number
  readonly maxLength: number
}

/** A kind of task, before its labels are known. Found by name: `taskKind('text-classification')`, `taskKind('sst-2')`. */
export interface TaskKind<Example = unknown, F extends Feature = Feature, Prediction = unknown> {
  readonly name: TaskName
  readonly defaults: TaskDefaults
  /** @throws ERR_CONFIG for missing columns, ERR_IO, ERR_FORMAT with file and line; ERR_FORMAT for a file without an example */
  read(file: string, options: TaskReadOptions): Promise<TaskExamples<Example>>
  /** The task that these examples teach: the labels are those that occur, or those of the kind (GLUE). */
  learn(examples: readonly Example[]): Task<Example, F, Prediction>
  /** The task of a fine-tuned model. @throws ERR_CONFIG when the model was made for another one */
  restore(config: ElectraConfig): Task<Example, F, Prediction>
}

/** A task with its labels. */
export interface Task<Example = unknown, F extends Feature = Feature, Prediction = unknown> {
  readonly name: TaskName
  /** The class of its models. */
  readonly model: ModelClass<ElectraPreTrainedModel>
  /** What its head asks of the configuration: its class's name, labels, problem type. */
  readonly config: Partial<ElectraConfig>
  /** The metric that decides which checkpoint is best; more is better, and NaN (a correlation with a constant) is the worst. */
  readonly metric: string
  features(examples: readonly Example[], tokenizer: Tokenizer, options: FeatureOptions): F[]
  /** The mean loss of a batch, a scalar on the tape; the model is in training mode. */
  loss(model: ElectraPreTrainedModel, batch: readonly F[]): Tensor
  /** Queues a forward pass and reads its logits, one record a feature. The tensors are freed. */
  outputs(model: ElectraPreTrainedModel, batch: readonly F[]): Promise<Outputs[]>
  /** One prediction an example. @param outputs one record a feature, in the features' order */
  decode(examples: readonly Example[], features: readonly F[], outputs: readonly Outputs[]): Prediction[]
  /** Fractions, but SQuAD's percent. */
  metrics(examples: readonly Example[], predictions: readonly Prediction[]): Record<string, number>
  /** A table for people: by label, or a confusion matrix. Empty where there is nothing to tell beside the metrics. */
  report(examples: readonly Example[], predictions: readonly Prediction[]): string
  /** A line of the predictions file. */
  record(example: Example, prediction: Prediction): Readonly<Record<string, unknown>>
  /** The predictions as the file that the task's own evaluation script reads, where it has one. */
  official?(examples: readonly Example[], predictions: readonly Prediction[]): string
  /**
   * What the best model's validation outputs add to its configuration, such as a threshold; members of `extra` go beside those that
   * are there. The task that uses it is the one that `restore` makes of the configuration. Only where a task has something to
   * calibrate.
   */
  calibrate?(
    examples: readonly Example[],
    features: readonly F[],
    outputs: readonly Outputs[],
  ): Partial<ElectraConfig>
}
