/**
 * From a label a token to entities in a text, as Hugging Face's token classification defines its aggregation strategies, with places
 * that slice the text exactly.
 */
import { VoltaicError } from '../runtime/errors.js'
import { bestClass } from './class-scores.js'

/** A token with a score for each label. Special tokens are left out before. */
export interface ScoredToken {
  /** Its place in the sequence, [CLS] included. */
  readonly index: number
  /** The piece as in the vocabulary (##ing). */
  readonly word: string
  /** Its place in the text, in UTF-16 units. */
  readonly start: number
  readonly end: number
  /** Whether it continues the word of the token before. */
  readonly isSubword: boolean
  /** Probabilities, one a label. */
  readonly scores: Float64Array
}

/**
 * `none`: every token by itself. `simple`: neighbouring tokens of one type. The others give a word one label first: that of its
 * `first` token, of the `average` of its tokens' scores, or of its token with the highest score (`max`).
 */
export type AggregationStrategy = 'none' | 'simple' | 'first' | 'average' | 'max'

export const aggregationStrategies: readonly AggregationStrategy[] = [
  'none',
  'simple',
  'first',
  'average',
  'max',
]

/** A token with its label: what `none` gives. */
export interface TokenEntity {
  readonly entity: string
  readonly score: number
  readonly index: number
  readonly word: string
  readonly start: number
  readonly end: number
}

/** An entity: what all other strategies give. `word` is the text itself, not joined pieces: case and accents stay. */
export interface EntityGroup {
  readonly entity_group: string
  readonly score: number
  readonly word: string
  readonly start: number
  readonly end: number
}

export type Entity = TokenEntity | EntityGroup

interface Labelled {
  readonly label: string
  readonly score: number
  readonly start: number
  readonly end: number
}

export interface TagParts {
  /** B, I, E or S; '' for a tag without. */
  readonly prefix: string
  readonly type: string
}

/** B-PER is B and PER. A tag without a prefix is its own type. */
export function tagParts(tag: string): TagParts {
  return /^[BIES]-./u.test(tag) ? { prefix: tag.slice(0, 1), type: tag.slice(2) } : { prefix: '', type: tag }
}

/** The words of a text: runs of tokens, of which only the first is no subword. */
function wordsOf(tokens: readonly ScoredToken[]): ScoredToken[][] {
  const words: ScoredToken[][] = []
  for (const token of tokens) {
    const last = words.at(-1)
    if (last === undefined || !token.isSubword) words.push([token])
    else last.push(token)
  }
  return words
}

/** The scores that decide about a word. */
function wordScores(word: readonly ScoredToken[], strategy: 'first' | 'average' | 'max'): Float64Array {
  const [first, ...rest] = word as [ScoredToken, ...ScoredToken[]]
  if (strategy === 'first') return first.scores
  if (strategy === 'max') {
    const top = ({ scores }: ScoredToken): number => scores[bestClass(scores)] as number
    return rest.reduce((best, token) => (top(token) > top(best) ? token : best), first).scores
  }
  const sums = Float64Array.from(first.scores)
  for (const { scores } of rest)
    for (const [label, score] of scores.entries()) sums[label] = (sums[label] as number) + score
  return sums.map((sum) => sum / word.length)
}

/** Whether an entity ends between two neighbours. B and S open one, E and S close one, and a change of type parts two. */
function parts(before: TagParts, now: TagParts): boolean {
  return (
    before.type !== now.type ||
    now.prefix === 'B' ||
    now.prefix === 'S' ||
    before.prefix === 'E' ||
    before.prefix === 'S'
  )
}

function grouped(labelled: readonly Labelled[], text: string): EntityGroup[] {
  const groups: Labelled[][] = []
  let before: TagParts | undefined
  for (const each of labelled) {
    const now = tagParts(each.label)
    if (before === undefined || parts(before, now)) groups.push([each])
    else groups.at(-1)?.push(each)
    before = now
  }
  return groups.map((group) => {
    const [first] = group as [Labelled]
    const { start } = first
    const { end } = group.at(-1) as Labelled
    return {
      entity_group: tagParts(first.label).type,
      score: group.reduce((sum, { score }) => sum + score, 0) / group.length,
      word: text.slice(start, end),
      start,
      end,
    }
  })
}

/**
 * The entities of a text, in its order. `none` gives a `TokenEntity` a token, the others an `EntityGroup` a run of neighbours whose
 * labels have one type: I- goes on, B- opens another, and so do what stands behind E- and S- and an S- itself.
 * @param labels the label of each score
 * @param ignoreLabels labels (of groups: types) that are left out
 * @throws ERR_ARGUMENT for an unknown strategy, or scores that do not match the labels
 */
export function aggregateEntities(
  tokens: readonly ScoredToken[],
  strategy: AggregationStrategy,
  text: string,
  labels: readonly string[],
  ignoreLabels: readonly string[] = ['O'],
): Entity[] {
  if (!aggregationStrategies.includes(strategy)) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `aggregation strategy is '${strategy}', expected one of ${aggregationStrategies.join(', ')}`,
    )
  }
  const wrong = tokens.find(({ scores }) => scores.length !== labels.length)
  if (wrong !== undefined) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `token ${wrong.index} has ${wrong.scores.length} scores for ${labels.length} labels; expected one a label`,
    )
  }
  const labelled = (scores: Float64Array, start: number, end: number): Labelled => {
    const best = bestClass(scores)
    return { label: labels[best] as string, score: scores[best] as number, start, end }
  }
  const ignored = new Set(ignoreLabels)
  if (strategy === 'none' || strategy === 'simple') {
    const each = tokens.map(({ scores, start, end }) => labelled(scores, start, end))
    if (strategy === 'simple') return grouped(each, text).filter((group) => !ignored.has(group.entity_group))
    return each
      .map(({ label, score, start, end }, at): TokenEntity => {
        const { index, word } = tokens[at] as ScoredToken
        return { entity: label, score, index, word, start, end }
      })
      .filter(({ entity }) => !ignored.has(entity))
  }
  const words = wordsOf(tokens).map((word) => {
    const [first] = word as [ScoredToken]
    return labelled(wordScores(word, strategy), first.start, (word.at(-1) as ScoredToken).end)
  })
  return grouped(words, text).filter((group) => !ignored.has(group.entity_group))
}
