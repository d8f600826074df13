/** What a run's models look like: by size and overrides, or as the models that the run goes on from. */
import { configOfSize, generatorConfig, type SizeName, sizeNames } from '../electra/sizes.js'
import { defineElectraConfig, type ElectraConfig } from '../formats/electra-config.js'
import { refuse } from './option-checks.js'
import type { PretrainOptions, PretrainSettings } from './options.js'

/** What the models that a run goes on from say of it. */
export interface InitialConfigs {
  readonly discriminator: ElectraConfig
  readonly generator: ElectraConfig | undefined
  /** The folder of their tokenizer. */
  readonly tokenizer: string
}

/** The size whose recipe fits models of a width: the largest that is not wider. */
export function sizeLike({ hiddenSize }: ElectraConfig): SizeName {
  return sizeNames.findLast((name) => configOfSize(name).hiddenSize <= hiddenSize) ?? 'tiny'
}

/** What models that are there already decide is not asked for. */
export function checkInitial(options: PretrainOptions, initial: InitialConfigs | undefined): void {
  if (initial === undefined) {
    if (options.trainedPositions !== undefined)
      refuse('trainedPositions', options.trainedPositions, 'nothing without from: new models have none')
    return
  }
  if (options.size !== undefined)
    refuse('size', options.size, 'nothing with from: its models have their size')
  if (options.generatorSize !== undefined && initial.generator !== undefined)
    refuse('generatorSize', options.generatorSize, 'nothing where from has a generator')
  if (options.initialization !== undefined && initial.generator !== undefined)
    refuse('initialization', options.initialization, 'nothing with from: its models have their weights')
  const fixed = Object.keys(options.model ?? {}).find((name) => !/DropoutProb$/.test(name))
  if (fixed !== undefined)
    refuse(
      `model.${fixed}`,
      options.model?.[fixed as keyof ElectraConfig],
      'hiddenDropoutProb or attentionProbsDropoutProb alone with from: its models have their architecture',
    )
  if (options.training === 'two-stage')
    refuse(
      'training',
      options.training,
      "joint with from: the second stage would replace the discriminator's weights by the generator's",
    )
  if (options.trainedPositions !== undefined && options.positions === undefined)
    refuse('trainedPositions', options.trainedPositions, 'positions beside it')
}

/** The configuration of a model that goes on: its architecture, without the labels of a task it may have been trained for. */
function continued(
  { numLabels: _, id2label: __, label2id: ___, ...config }: ElectraConfig,
  changes: Partial<ElectraConfig>,
): ElectraConfig {
  return defineElectraConfig({ ...config, problemType: null, ...changes })
}

/** Both models' configurations for a vocabulary. Throws ERR_CONFIG when the sequence does not fit the position table. */
export function modelConfigs(
  settings: PretrainSettings,
  vocabSize: number,
  padTokenId: number,
): { readonly discriminator: ElectraConfig; readonly generator: ElectraConfig } {
  const { initial, positions } = settings
  const changes = {
    ...(positions !== undefined && { maxPositionEmbeddings: positions }),
    ...settings.model,
    vocabSize,
    padTokenId,
  }
  const discriminator =
    initial === undefined
      ? configOfSize(settings.size, changes)
      : continued(initial.discriminator, { ...changes, architectures: ['ElectraForPreTraining'] })
  if (settings.sequenceLength > discriminator.maxPositionEmbeddings)
    refuse(
      'sequenceLength',
      settings.sequenceLength,
      `at most the ${discriminator.maxPositionEmbeddings} positions of the model; raise positions`,
    )
  const generator =
    initial?.generator === undefined
      ? generatorConfig(discriminator, settings.generatorSize)
      : continued(initial.generator, { ...changes, architectures: ['ElectraForMaskedLM'] })
  return { discriminator, generator }
}
