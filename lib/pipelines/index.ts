/** Floor 8: text in, answers out, with the names and shapes of transformers.js. */
export type { AggregationStrategy, EntityGroup, TokenEntity } from '../tasks/entities.js'
export type {
  FeatureExtractionPipeline,
  FeatureExtractionPipelineOptions,
  Pooling,
} from './feature-extraction.js'
export { FeatureTensor, type NestedNumbers } from './feature-tensor.js'
export type { FilledMask, FillMaskPipeline, FillMaskPipelineOptions } from './fill-mask.js'
export type { InfilledToken } from './infilled-text.js'
export { type PipelineOptions, pipeline, pipelineTaskOf } from './pipeline.js'
export type {
  QuestionAnswer,
  QuestionAnsweringPipeline,
  QuestionAnsweringPipelineOptions,
} from './question-answering.js'
export type { DetectedToken, ReplacedTokenDetectionPipeline } from './replaced-token-detection.js'
export type { PipelineBase } from './session.js'
export {
  type AnyPipeline,
  type PipelineAliases,
  type Pipelines,
  type PipelineTask,
  pipelineTasks,
} from './tasks.js'
export type {
  ClassScore,
  ScoreFunction,
  TextClassificationPipeline,
  TextClassificationPipelineOptions,
  TextInput,
} from './text-classification.js'
export type { InfilledText, TextInfillingPipeline, TextInfillingPipelineOptions } from './text-infilling.js'
export type { RankedText, TextRankingPipeline, TextRankingPipelineOptions } from './text-ranking.js'
export type {
  TokenClassificationPipeline,
  TokenClassificationPipelineOptions,
} from './token-classification.js'
export type { WindowOptions } from './windows.js'
export type {
  ZeroShotClassificationPipeline,
  ZeroShotClassificationPipelineOptions,
  ZeroShotResult,
} from './zero-shot-classification.js'
