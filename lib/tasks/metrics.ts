/** Every metric of the tasks, by its official definition: pure functions over arrays. Fractions, but SQuAD's are percent. */
export { type EntitySpan, entitySpans, type TagScheme, tagsOfSpans } from './entity-spans.js'
export type { Scores } from './metric-counts.js'
export {
  accuracy,
  type Classes,
  type ClassificationReport,
  classificationReport,
  confusionMatrix,
  type LabelScores,
  type MultiLabelReport,
  matthewsCorrelation,
  multiLabelReport,
  type PrecisionRecallOptions,
  precisionRecallF1,
} from './metrics-classification.js'
export { type EntityReport, entityReport, type TagRows, tokenAccuracy } from './metrics-entities.js'
export { openSetAuc, type ScoredText } from './metrics-open-set.js'
export { meanSquaredError, pearsonCorrelation, spearmanCorrelation } from './metrics-regression.js'
export {
  type AnsweredQuestion,
  normalizeAnswer,
  type SquadV1Metrics,
  type SquadV2Metrics,
  type SquadV2Options,
  squadV1Metrics,
  squadV2Metrics,
} from './metrics-squad.js'
