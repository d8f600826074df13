/** Floor 6: text to tokens and back; knows no tensor. */
export type { UnicodeEdition } from '../runtime/tokenizer.js'
export {
  AutoTokenizer,
  ElectraTokenizer,
  type LoadTokenizerOptions,
  loadTokenizer,
  loadVocabulary,
} from './auto-tokenizer.js'
export type { EncodeOptions, Encoding, TokenizerInput } from './encoding.js'
export type {
  AddedToken,
  Template,
  TemplatePiece,
  TokenizerOptions,
  TokenizerSpecification,
} from './specification.js'
export { createTokenizer, type DecodeOptions, type Tokenizer } from './tokenizer.js'
export { tokenizerFiles } from './tokenizer-files.js'
export type { TruncationStrategy } from './truncation.js'
export { type TrainVocabularyOptions, trainVocabulary } from './vocabulary-training.js'
