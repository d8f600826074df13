/** Tensors and autograd: the general ops with NumPy's broadcasting, the fused ones of ELECTRA, scopes and the tape. */
import './methods.js'

export * from './activation.js'
export { type AttentionOptions, attention } from './attention.js'
export {
  type CorruptMaskOptions,
  type CorruptMaskOutput,
  type CorruptReplaceOutput,
  corruptMask,
  corruptReplace,
} from './corruption.js'
export { arange, fromBuffer, full, ones, type TensorOptions, tensor, zeros } from './creation.js'
export {
  type DiscriminatorLossOptions,
  type DiscriminatorLossOutput,
  discriminatorLoss,
  discriminatorMetricsSize,
} from './discriminator-head.js'
export type { Dropout, RandomSite } from './dropout-site.js'
export * from './elementwise.js'
export {
  type EmbeddingBlockOptions,
  type EmbeddingIndices,
  type EmbeddingTables,
  embedding,
  embeddingBlock,
} from './embedding.js'
export { type LinearOptions, linear, matmul } from './gemm.js'
export {
  type DropoutResidualLayerNormOptions,
  dropoutResidualLayerNorm,
  type LayerNormOptions,
  layerNorm,
} from './layer-norm.js'
export { binaryCrossEntropyWithLogits, meanSquaredError } from './losses.js'
export type { Weight } from './operands.js'
export {
  bernoulli,
  dropout,
  Generator,
  normal,
  permutation,
  type RandomOptions,
  type RandomPosition,
  RandomState,
  setSeed,
  truncatedNormal,
  uniform,
} from './random.js'
export { argmax, max, mean, type ReductionOptions, sum } from './reduction.js'
export {
  concat,
  firstTokens,
  flatten,
  indexSelect,
  narrow,
  permute,
  type Range,
  reshape,
  slice,
  squeeze,
  stack,
  transpose,
  unsqueeze,
} from './rows.js'
export { scope, TensorScope } from './scope.js'
export { logSoftmax, raggedCrossEntropy, softmax } from './softmax.js'
export { noGrad } from './tape.js'
export { type NestedArray, type ParameterLike, Tensor, type TensorData } from './tensor.js'
export {
  crossEntropy,
  type SamplingOptions,
  type VocabularyCrossEntropyOptions,
  type VocabularyCrossEntropyOutput,
  type VocabularyHeadOptions,
  vocabularyCrossEntropy,
  vocabularyHead,
} from './vocabulary-head.js'
