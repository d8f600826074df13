/** Pre-training: options, the run as an async iterator, its events. */
export type { DetectorMetrics } from './detector-metrics.js'
export type { ModelPair } from './initial-models.js'
export type { StepNumbers, ValidationNumbers } from './joint-trainer.js'
export type { PretrainOptions } from './options.js'
export type { TrainingPlan } from './plan.js'
export { pretrain } from './pretrain.js'
export type { PretrainEvent, PretrainResult, PretrainRun, PretrainStep } from './pretrain-events.js'
export {
  type BalancedCorpus,
  type LanguageCorpus,
  openLanguages,
  type TrainTokenizerOptions,
  trainTokenizer,
} from './vocabulary.js'
