/** Metrics of tagging: entity by entity as seqeval's default mode has it, and tag by tag. */
import { VoltaicError } from '../runtime/errors.js'
import { type EntitySpan, entitySpans } from './entity-spans.js'
import { averageScores, requireSameLength, type Scores, scoresOf, Tally } from './metric-counts.js'
import type { LabelScores } from './metrics-classification.js'

/** Sentences of tags. */
export type TagRows = readonly (readonly string[])[]

function requireSameShape(labels: TagRows, predictions: TagRows): void {
  requireSameLength(labels, predictions, 'sentences')
  for (const [at, tags] of labels.entries()) {
    const predicted = predictions[at] as readonly string[]
    if (predicted.length !== tags.length) {
      throw new VoltaicError(
        'ERR_ARGUMENT',
        `sentence ${at} has ${tags.length} tags and ${predicted.length} predictions`,
      )
    }
  }
}

/** The part of words whose tag is right, O included; for part-of-speech tags, their accuracy. */
export function tokenAccuracy(labels: TagRows, predictions: TagRows): number {
  requireSameShape(labels, predictions)
  let words = 0
  let right = 0
  for (const [at, tags] of labels.entries()) {
    words += tags.length
    for (const [word, tag] of tags.entries()) if (predictions[at]?.[word] === tag) right += 1
  }
  return words === 0 ? 0 : right / words
}

export interface EntityReport extends Scores {
  /** One row a type, sorted by name. */
  readonly byType: readonly LabelScores[]
  readonly macro: Scores
  readonly weighted: Scores
}

const keyOf = ({ type, start, end }: EntitySpan): string => `${start} ${end} ${type}`

/**
 * Precision, recall and F1 of whole entities: right when type, start and end are. The scores on top are `micro`, over all entities.
 */
export function entityReport(labels: TagRows, predictions: TagRows): EntityReport {
  requireSameShape(labels, predictions)
  const tally = new Tally<string>()
  for (const [at, tags] of labels.entries()) {
    const actual = entitySpans(tags)
    const keys = new Set(actual.map(keyOf))
    for (const { type } of actual) tally.add(type, 'actual')
    for (const span of entitySpans(predictions[at] as readonly string[])) {
      tally.add(span.type, 'predicted')
      if (keys.has(keyOf(span))) tally.add(span.type, 'correct')
    }
  }
  const types = tally.classes().sort()
  return {
    ...averageScores(tally.counts(), 'micro'),
    byType: types.map((label) => ({ label, ...scoresOf(tally.get(label)) })),
    macro: averageScores(tally.counts(), 'macro'),
    weighted: averageScores(tally.counts(), 'weighted'),
  }
}
