/**
 * `text-ranking`: candidates in the order in which they fit a query, for search and for the choice of a response in a dialogue. A
 * model with a head for pairs reads query and candidate together (classes, a number, or multiple choice); any other embeds each and
 * compares directions. Results have the shape of Sentence Transformers' `rank`.
 */
import {
  ElectraForMultipleChoice,
  ElectraForSequenceClassification,
  type ElectraPreTrainedModel,
} from '../electra/index.js'
import type { ElectraConfig } from '../formats/electra-config.js'
import { VoltaicError } from '../runtime/errors.js'
import { sigmoid, softmax } from '../tasks/class-scores.js'
import { bodyOf, embed } from './feature-extraction.js'
import { checkOptionNames, refuse, shown, textInput, topOption } from './options.js'
import { choiceLogits, hiddenStates, sequenceLogits } from './outputs.js'
import type { PipelineBase, Session } from './session.js'
import { pairWindows, type WindowOptions, windowOptionNames } from './windows.js'

export interface TextRankingPipelineOptions extends WindowOptions {
  /** Candidates to give, the best first. Default null: all. */
  readonly top_k?: number | null | undefined
  /** Also give the candidates' texts. Default false. */
  readonly return_documents?: boolean | undefined
  /** Of a classifier with several labels: the one that means that a candidate fits. Default: found by its name. */
  readonly label?: string | undefined
}

export interface RankedText {
  /** The candidate's place in the list that was given. */
  readonly corpus_id: number
  /**
   * Classes: the label's probability; regression: the number; multiple choice: the probability among the candidates; embeddings: the
   * cosine. Of a text in windows the best one counts.
   */
  readonly score: number
  /** With `return_documents`. */
  readonly text?: string
}

export interface TextRankingPipeline extends PipelineBase {
  (query: string, candidates: readonly string[], options?: TextRankingPipelineOptions): Promise<RankedText[]>
}

/** Names of the label that says that a pair fits, in lower case. */
const fittingNames = [
  'relevant',
  'entailment',
  'match',
  'duplicate',
  'equivalent',
  'positive',
  'yes',
  'true',
  '1',
  'label_1',
]

function fittingLabel(
  { numLabels, id2label }: ElectraConfig,
  task: string,
  asked: string | undefined,
): number {
  const names = Array.from({ length: numLabels }, (_, id) => id2label[id] as string)
  const found =
    asked === undefined
      ? names.findIndex((name) => fittingNames.includes(name.toLowerCase()))
      : names.indexOf(asked)
  if (found >= 0) return found
  const problem = asked === undefined ? 'none of them says that a candidate fits' : `none is '${asked}'`
  throw new VoltaicError(
    'ERR_ARGUMENT',
    `${task}: the model's labels are ${names.slice(0, 8).join(', ')}, and ${problem}; give one of them as the option label`,
  )
}

/** Scores of candidates. */
type Score = (
  query: string,
  candidates: readonly string[],
  options: TextRankingPipelineOptions,
) => Promise<number[]>

const best = (rows: readonly Float32Array[], score: (row: Float32Array) => number): number =>
  rows.reduce((most, row) => Math.max(most, score(row)), Number.NEGATIVE_INFINITY)

function byClasses(session: Session<ElectraForSequenceClassification>): Score {
  const { task, model } = session
  const { problemType, numLabels } = model.config
  const submit = session.gathered(sequenceLogits(model))
  return (query, candidates, options) => {
    const label = numLabels === 1 ? 0 : fittingLabel(model.config, task, options.label)
    const score = (row: Float32Array): number => {
      const logit = row[label] as number
      if (problemType === 'regression') return logit
      const isAlone = numLabels === 1 || problemType === 'multi_label_classification'
      return isAlone ? sigmoid(logit) : (softmax(row)[label] as number)
    }
    return session.map(candidates, async (candidate) =>
      best(await submit(pairWindows(session, [query, candidate], options)), score),
    )
  }
}

function byChoice(session: Session<ElectraForMultipleChoice>): Score {
  const submit = session.gathered(choiceLogits(session.model))
  return async (query, candidates, options) => {
    const logits = await session.map(candidates, async (candidate) =>
      best(await submit(pairWindows(session, [query, candidate], options)), ([logit]) => logit as number),
    )
    return [...softmax(logits)]
  }
}

function byEmbeddings(session: Session): Score {
  const submit = session.gathered(hiddenStates(bodyOf(session.model)))
  return async (query, candidates, { max_length, stride }) => {
    const settings = { pooling: 'mean', normalize: true, max_length, stride } as const
    const [first, ...others] = await session.map([query, ...candidates], (text) =>
      embed(session, submit, text, settings),
    )
    return others.map((vector) =>
      vector.reduce((sum, value, i) => sum + value * ((first as Float32Array)[i] as number), 0),
    )
  }
}

function scoring(session: Session<ElectraPreTrainedModel>): Score {
  const { model } = session
  if (model instanceof ElectraForSequenceClassification) {
    return byClasses(session as Session<ElectraForSequenceClassification>)
  }
  return model instanceof ElectraForMultipleChoice
    ? byChoice(session as Session<ElectraForMultipleChoice>)
    : byEmbeddings(session)
}

export function createTextRanking(session: Session): TextRankingPipeline {
  const { task } = session
  const score = scoring(session)

  async function rank(
    query: string,
    candidates: readonly string[],
    options: TextRankingPipelineOptions = {},
  ): Promise<RankedText[]> {
    checkOptionNames(task, options, ['top_k', 'return_documents', 'label', ...windowOptionNames])
    const most = topOption(task, options.top_k, Number.POSITIVE_INFINITY)
    textInput(task, 'the query', query)
    if (!Array.isArray(candidates))
      refuse(task, `candidates are ${shown(candidates)}; expected a list of texts`)
    for (const candidate of candidates) textInput(task, 'a candidate', candidate)
    const scores = await score(query, candidates, options)
    const ranked = scores.map((score, corpus_id) => ({
      corpus_id,
      score,
      ...(options.return_documents === true && { text: candidates[corpus_id] as string }),
    }))
    return ranked.sort((a, b) => b.score - a.score).slice(0, most)
  }
  return session.pipeline(rank)
}
