/** ELECTRA: configuration and sizes, the body, every task's model, and the joint model of pre-training. */
export {
  BatchBuffers,
  type BatchInput,
  type BatchPadding,
  type DeviceBatch,
  type FlatInput,
  type RaggedInput,
  type Rows,
  toDeviceBatch,
} from './batch.js'
export {
  type AnswerBeams,
  ElectraForJointQuestionAnswering,
  type JointAnswerLabels,
  type JointQuestionAnsweringOutput,
} from './for-joint-question-answering.js'
export {
  ElectraForMaskedLM,
  type MaskedLmLabels,
  type MaskedLmOptions,
  type MaskedLmOutput,
} from './for-masked-lm.js'
export {
  type ChoiceLabels,
  ElectraForMultipleChoice,
  type MultipleChoiceInput,
  type MultipleChoiceOutput,
} from './for-multiple-choice.js'
export { ElectraForPreTraining, type PreTrainingLabels, type PreTrainingOutput } from './for-pre-training.js'
export {
  type AnswerPositions,
  ElectraForQuestionAnswering,
  type QuestionAnsweringOutput,
} from './for-question-answering.js'
export {
  ElectraForSequenceClassification,
  type SequenceClassificationOutput,
  type SequenceLabels,
} from './for-sequence-classification.js'
export {
  ElectraForTokenClassification,
  type TokenClassificationOutput,
  type TokenLabels,
} from './for-token-classification.js'
export { type Initialization, initializations, initializeByName } from './initialization.js'
export {
  ElectraForJointPreTraining,
  type GivenCorruption,
  type JointForwardOptions,
  type JointObjective,
  type JointOutput,
} from './joint.js'
export { type JointOptions, type JointSettings, maskedCapacity } from './joint-options.js'
export { ElectraModel, type Encoded, type ForwardOptions, type ModelOutput } from './model.js'
export {
  ElectraPreTrainedModel,
  type FromPretrainedOptions,
  type LoadReport,
  type ModelClass,
  type ModelOptions,
  type OnnxOptions,
  type Precision,
  resolvePrecision,
} from './pretrained.js'
export {
  configOfSize,
  defaultGeneratorSize,
  generatorConfig,
  type SizeName,
  sizeNames,
  type TrainingDefaults,
  trainingDefaults,
} from './sizes.js'
export {
  planVocabularyTransfer,
  type TransferCounts,
  type TransferOptions,
  type TransferredModel,
  type TransferTokenizer,
  transferRows,
  transferVocabulary,
  type VocabularyTransfer,
} from './vocabulary-transfer.js'
