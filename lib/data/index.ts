/** Corpora, shards, segments and batches: text files in, flat runs of token ids out. Knows no tensor. */
export {
  type Batch,
  type BatchOptions,
  type BatchState,
  type BatchStream,
  type BatchStreamOptions,
  createBatchStream,
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
export {
  type DataStatistics,
  type PartStatistics,
  type PrepareDataOptions,
  type PreparedData,
  type PrepareProgress,
  prepareData,
} from './prepare.js'
export type { SegmentKind, Segments } from './segments.js'
export type { DocumentTokenizer } from './tokenize.js'
