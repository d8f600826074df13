/** Corpora, shards, segments and batches: text files in, flat runs of token ids out. Knows no tensor. */
export {
  type Batch,
  type BatchOptions,
  type BatchState,
  type BatchStream,
  type BatchStreamOptions,
  createBatchStream,
  type LanguageState,
  validationBatches,
} from './batches.js'
export {
  type Corpus,
  type CorpusDocument,
  type CorpusFile,
  type CorpusOptions,
  type CorpusWarning,
  openCorpus,
} from './corpus.js'
export { type CorpusInspection, type InspectOptions, type InspectProgress, inspectCorpus } from './inspect.js'
export type { LanguageShare, ScriptShare } from './inspect-languages.js'
export type { HistogramBin, LengthSummary } from './inspect-lengths.js'
export type { NearDuplicate, NearDuplicateSummary } from './inspect-near-duplicates.js'
export type { Oddity, OddityExample, OddityKind } from './inspect-oddities.js'
export type { RepeatedText, RepeatSummary } from './inspect-repeats.js'
export type { VocabularyCoverage } from './inspect-vocabulary.js'
export { createLanguageBatchStream, type LanguageStreamOptions } from './language-batches.js'
export {
  checkLanguages,
  defaultLanguageExponent,
  type LanguageFiles,
  type LanguageSegments,
  languageShares,
} from './languages.js'
export {
  type DataStatistics,
  type LanguageStatistics,
  type PartStatistics,
  type PrepareDataOptions,
  type PreparedData,
  type PrepareProgress,
  prepareData,
} from './prepare.js'
export type { SegmentKind, Segments } from './segments.js'
export type { DocumentTokenizer } from './tokenize.js'
