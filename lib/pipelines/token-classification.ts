/** `token-classification`: a label a token, or entities, with places that slice the text. */
import type { ElectraForTokenClassification } from '../electra/index.js'
import { softmax } from '../tasks/class-scores.js'
import {
  type AggregationStrategy,
  aggregateEntities,
  aggregationStrategies,
  type EntityGroup,
  type ScoredToken,
  type TokenEntity,
} from '../tasks/entities.js'
import { checkOptionNames, nameOption, refuse, shown, textInput } from './options.js'
import { tokenLogits } from './outputs.js'
import type { PipelineBase, Session } from './session.js'
import { bestPlaces, textWindows, tokensOf, type WindowOptions, windowOptionNames } from './windows.js'

export interface TokenClassificationPipelineOptions extends WindowOptions {
  /** Default 'none': each token by itself. */
  readonly aggregation_strategy?: AggregationStrategy | undefined
  /** Labels that are left out; of entities their types, without B- and I-. Default ['O']. */
  readonly ignore_labels?: readonly string[] | undefined
}

type Tokens = TokenClassificationPipelineOptions & { readonly aggregation_strategy?: 'none' | undefined }
type Groups = TokenClassificationPipelineOptions & {
  readonly aggregation_strategy: Exclude<AggregationStrategy, 'none'>
}

export interface TokenClassificationPipeline extends PipelineBase {
  (text: string, options?: Tokens): Promise<TokenEntity[]>
  (text: string, options: Groups): Promise<EntityGroup[]>
  (texts: readonly string[], options?: Tokens): Promise<TokenEntity[][]>
  (texts: readonly string[], options: Groups): Promise<EntityGroup[][]>
}

const optionNames = ['aggregation_strategy', 'ignore_labels', ...windowOptionNames]

export function createTokenClassification(
  session: Session<ElectraForTokenClassification>,
): TokenClassificationPipeline {
  const { task, model, tokenizer } = session
  const { numLabels, id2label } = model.config
  const labels = Array.from({ length: numLabels }, (_, id) => id2label[id] as string)
  const submit = session.gathered(tokenLogits(model))

  async function scoredTokens(text: string, options: WindowOptions): Promise<ScoredToken[]> {
    const tokens = tokensOf(tokenizer, textInput(task, 'the text', text))
    const windows = textWindows(session, tokens, options)
    const logits = await submit(windows)
    return bestPlaces(windows).map(({ window, place }, token) => ({
      index: (windows[0]?.first ?? 0) + token,
      word: tokenizer.convertIdsToTokens(tokens.ids[token] as number),
      start: tokens.offsets[2 * token] as number,
      end: tokens.offsets[2 * token + 1] as number,
      isSubword: token > 0 && tokens.words[token] === tokens.words[token - 1],
      scores: softmax(logits[window]?.subarray(place * numLabels, (place + 1) * numLabels) ?? []),
    }))
  }

  async function classify(
    inputs: string | readonly string[],
    options: TokenClassificationPipelineOptions = {},
  ): Promise<object> {
    checkOptionNames(task, options, optionNames)
    const { ignore_labels: ignored = ['O'] } = options
    const strategy = nameOption(
      task,
      'aggregation_strategy',
      options.aggregation_strategy,
      aggregationStrategies,
      'none',
    )
    if (!Array.isArray(ignored)) refuse(task, `ignore_labels is ${shown(ignored)}; expected a list of labels`)
    return session.each(inputs, async (text) =>
      aggregateEntities(await scoredTokens(text, options), strategy, text, labels, ignored),
    )
  }
  return session.pipeline(classify) as TokenClassificationPipeline
}
