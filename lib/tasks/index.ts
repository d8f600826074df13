/** Tasks: their files, and their metrics (as `metrics`). */
export { type BootstrapOptions, bootstrapMean, type Estimate } from './bootstrap.js'
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
  type GlueSplit,
  type GlueTask,
  glueMetrics,
  glueTask,
  glueTaskNames,
  readGlue,
} from './glue.js'
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
export type { RowOptions, SkippedRow } from './row-checks.js'
export {
  readSquad,
  type SkippedQuestion,
  type SquadAnswer,
  type SquadExample,
  type SquadFile,
  type SquadOptions,
} from './squad-files.js'
export { readTaskFile, type TaskFileOptions, type TaskRow, type TaskTable } from './task-files.js'
export {
  labelNamesOf,
  readTextExamples,
  type TextExample,
  type TextExampleOptions,
  type TextExamples,
} from './text-examples.js'
