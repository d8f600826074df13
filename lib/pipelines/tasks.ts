/** The tasks by name: which models each takes, how its pipeline is made, and which task a model folder is for. */
import {
  ElectraForJointQuestionAnswering,
  ElectraForMaskedLM,
  ElectraForMultipleChoice,
  ElectraForPreTraining,
  ElectraForQuestionAnswering,
  ElectraForSequenceClassification,
  ElectraForTokenClassification,
  ElectraModel,
  type ElectraPreTrainedModel,
} from '../electra/index.js'
import { VoltaicError } from '../runtime/errors.js'
import { createFeatureExtraction, type FeatureExtractionPipeline } from './feature-extraction.js'
import { createFillMask, type FillMaskPipeline } from './fill-mask.js'
import { createQuestionAnswering, type QuestionAnsweringPipeline } from './question-answering.js'
import {
  createReplacedTokenDetection,
  type ReplacedTokenDetectionPipeline,
} from './replaced-token-detection.js'
import type { Session } from './session.js'
import { createTextClassification, type TextClassificationPipeline } from './text-classification.js'
import { createTextInfilling, type TextInfillingPipeline } from './text-infilling.js'
import { createTextRanking, type TextRankingPipeline } from './text-ranking.js'
import { createTokenClassification, type TokenClassificationPipeline } from './token-classification.js'
import {
  createZeroShotClassification,
  type ZeroShotClassificationPipeline,
} from './zero-shot-classification.js'

/** The pipelines by their tasks' names. */
export interface Pipelines {
  'text-classification': TextClassificationPipeline
  'token-classification': TokenClassificationPipeline
  'question-answering': QuestionAnsweringPipeline
  'fill-mask': FillMaskPipeline
  'feature-extraction': FeatureExtractionPipeline
  'zero-shot-classification': ZeroShotClassificationPipeline
  'text-ranking': TextRankingPipeline
  'replaced-token-detection': ReplacedTokenDetectionPipeline
  'text-infilling': TextInfillingPipeline
}

export type PipelineTask = keyof Pipelines
export type AnyPipeline = Pipelines[PipelineTask]

/** Other names of the same pipelines. */
export interface PipelineAliases {
  'sentiment-analysis': 'text-classification'
  'text-regression': 'text-classification'
  ner: 'token-classification'
  embeddings: 'feature-extraction'
  'multiple-choice': 'text-ranking'
}

const aliases: { readonly [Name in keyof PipelineAliases]: PipelineAliases[Name] } = {
  'sentiment-analysis': 'text-classification',
  'text-regression': 'text-classification',
  ner: 'token-classification',
  embeddings: 'feature-extraction',
  'multiple-choice': 'text-ranking',
}

type LoadableClass = {
  new (...given: ConstructorParameters<typeof ElectraModel>): ElectraPreTrainedModel
  readonly fromPretrained: typeof ElectraPreTrainedModel.fromPretrained
}

export interface Architecture {
  readonly model: LoadableClass
  readonly task: PipelineTask
}

/** The models by the class name that files carry, with the task that each is for. */
export const architectures: Readonly<Record<string, Architecture>> = {
  ElectraForSequenceClassification: { model: ElectraForSequenceClassification, task: 'text-classification' },
  ElectraForTokenClassification: { model: ElectraForTokenClassification, task: 'token-classification' },
  ElectraForQuestionAnswering: { model: ElectraForQuestionAnswering, task: 'question-answering' },
  ElectraForJointQuestionAnswering: { model: ElectraForJointQuestionAnswering, task: 'question-answering' },
  ElectraForMaskedLM: { model: ElectraForMaskedLM, task: 'fill-mask' },
  ElectraForPreTraining: { model: ElectraForPreTraining, task: 'replaced-token-detection' },
  ElectraForMultipleChoice: { model: ElectraForMultipleChoice, task: 'text-ranking' },
  ElectraModel: { model: ElectraModel, task: 'feature-extraction' },
}

interface TaskEntry {
  /** Class names of the models that it takes; empty: any. */
  readonly models: readonly string[]
  readonly create: (session: Session<never>) => AnyPipeline
  /** What to do with a folder of another model. */
  readonly remedy: string
}

const fineTune = 'fine-tune it first (voltaic finetune)'
const generator = 'give the folder of a generator'

export const tasks: Readonly<Record<PipelineTask, TaskEntry>> = {
  'text-classification': {
    models: ['ElectraForSequenceClassification'],
    create: createTextClassification,
    remedy: fineTune,
  },
  'token-classification': {
    models: ['ElectraForTokenClassification'],
    create: createTokenClassification,
    remedy: fineTune,
  },
  'question-answering': {
    models: ['ElectraForQuestionAnswering', 'ElectraForJointQuestionAnswering'],
    create: createQuestionAnswering,
    remedy: fineTune,
  },
  'fill-mask': { models: ['ElectraForMaskedLM'], create: createFillMask, remedy: generator },
  'feature-extraction': { models: [], create: createFeatureExtraction, remedy: '' },
  'zero-shot-classification': {
    models: ['ElectraForSequenceClassification'],
    create: createZeroShotClassification,
    remedy: 'fine-tune it on natural language inference first (voltaic finetune --task mnli)',
  },
  'text-ranking': { models: [], create: createTextRanking, remedy: '' },
  'replaced-token-detection': {
    models: ['ElectraForPreTraining'],
    create: createReplacedTokenDetection,
    remedy: 'give the folder of a discriminator',
  },
  'text-infilling': { models: ['ElectraForMaskedLM'], create: createTextInfilling, remedy: generator },
}

/** The tasks' names. */
export const pipelineTasks: readonly PipelineTask[] = Object.keys(tasks) as PipelineTask[]

/** Names that `pipeline` takes. */
export const pipelineNames: readonly string[] = [...pipelineTasks, ...Object.keys(aliases)]

/** The task of a name. @throws ERR_ARGUMENT for an unknown one */
export function taskOfName(name: string): PipelineTask {
  if (Object.hasOwn(tasks, name)) return name as PipelineTask
  if (Object.hasOwn(aliases, name)) return aliases[name as keyof PipelineAliases]
  throw new VoltaicError(
    'ERR_ARGUMENT',
    `pipeline: no task '${name.slice(0, 80)}'; expected one of ${pipelineNames.join(', ')}`,
  )
}
