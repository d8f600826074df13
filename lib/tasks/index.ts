/** Tasks: their kinds by name, their files, and their metrics (as `metrics`). */
export { readAnswerExamples } from './answer-examples.js'
export {
  type Answer,
  type AnswerOptions,
  type AnswerWindow,
  type AnswerWindowOptions,
  answerWindows,
  type BestAnswers,
  bestAnswers,
} from './answers.js'
export { type BootstrapOptions, bootstrapMean, type Estimate } from './bootstrap.js'
export { type Calibration, calibrationOf } from './calibration.js'
export {
  type ChoiceExample,
  type ChoiceExampleOptions,
  type ChoiceExamples,
  readChoiceExamples,
} from './choice-examples.js'
export {
  type ConllOptions,
  type ConlluOptions,
  readConll,
  readConllu,
  type TaggedSentence,
  type TaggedSentences,
  tagNamesOf,
} from './conll.js'
export {
  type AggregationStrategy,
  aggregateEntities,
  type Entity,
  type EntityGroup,
  type ScoredToken,
  type TokenEntity,
} from './entities.js'
export { type EvaluateOptions, type Evaluation, evaluate, taskNameOf } from './evaluate.js'
export { finetune } from './finetune.js'
export type {
  FileReport,
  FinetuneEvent,
  FinetuneResult,
  FinetuneRun,
  FinetuneStep,
  RunMetrics,
  SeedsMetrics,
} from './finetune-events.js'
export type { FinetuneOptions } from './finetune-options.js'
export {
  type GlueSplit,
  type GlueTask,
  glueMetrics,
  glueTask,
  glueTaskNames,
  readGlue,
} from './glue.js'
export { kindOptionsOf, type TaskKindOptions, taskKind, taskNames } from './kinds.js'
export * as metrics from './metrics.js'
export { type MinimalPair, type MinimalPairs, readMinimalPairs } from './minimal-pair-files.js'
export { builtInPairs } from './minimal-pair-templates.js'
export {
  type MinimalPairOptions,
  type MinimalPairReport,
  minimalPairs,
  type PairGroup,
  type ScoredPair,
  summarizePairs,
} from './minimal-pairs.js'
export type { ChoiceFeature, ChoicePrediction } from './multiple-choice.js'
export { type AnswerPrediction, nullThresholdOf } from './null-threshold.js'
export { type AnswerFeature, type AnsweringOptions, squadPredictions } from './question-answering.js'
export type { RowOptions, SkippedRow } from './row-checks.js'
export type { TextPrediction } from './single-label.js'
export {
  readSquad,
  type SkippedQuestion,
  type SquadAnswer,
  type SquadExample,
  type SquadFile,
  type SquadOptions,
} from './squad-files.js'
export { readTagged } from './tagged-examples.js'
export type {
  Feature,
  FeatureOptions,
  Outputs,
  Task,
  TaskDefaults,
  TaskExamples,
  TaskKind,
  TaskName,
  TaskReadOptions,
} from './task.js'
export { readTaskFile, type TaskFileOptions, type TaskRow, type TaskTable } from './task-files.js'
export type { ClassificationOptions } from './text-classification.js'
export {
  labelNamesOf,
  readTextExamples,
  type TextExample,
  type TextExampleOptions,
  type TextExamples,
} from './text-examples.js'
export type { RegressionOptions } from './text-regression.js'
export type { TextFeature } from './text-sequences.js'
export type { TaggedFeature, TaggingOptions } from './token-classification.js'
