/** Metrics of tagging: entity by entity as seqeval's default mode has it, and tag by tag. */
import { VoltaicError } from '../runtime/errors.js'
import { entitySpans } from './entity-spans.js'
import {
  averageScores,
  type Counts,
  requireSameLength,
  type Scores,
  scoresOf,
} from './metrics-classification.js'

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
  readonly byType: readonly (Scores & { readonly label: string })[]
  readonly macro: Scores
  readonly weighted: Scores
}

/**
 * Precision, recall and F1 of whole entities: right when type, start and end are. The scores on top are `micro`, over all entities.
 */
export function entityReport(labels: TagRows, predictions: TagRows): EntityReport {
  requireSameShape(labels, predictions)
  const types = new Map<string, { correct: number; predicted: number; actual: number }>()
  const countOf = (type: string): { correct: number; predicted: number; actual: number } => {
    const count = types.get(type) ?? { correct: 0, predicted: 0, actual: 0 }
    types.set(type, count)
    return count
  }
  for (const [at, tags] of labels.entries()) {
    const actual = entitySpans(tags)
    const keys = new Set(actual.map(({ type, start, end }) => `${start} ${end} ${type}`))
    for (const { type } of actual) countOf(type).actual += 1
    for (const { type, start, end } of entitySpans(predictions[at] as readonly string[])) {
      const count = countOf(type)
      count.predicted += 1
      if (keys.has(`${start} ${end} ${type}`)) count.correct += 1
    }
  }
  const sorted = [...types].sort(([a], [b]) => (a < b ? -1 : 1))
  const counts: Counts[] = sorted.map(([, count]) => count)
  return {
    ...averageScores(counts, 'micro'),
    byType: sorted.map(([label, count]) => ({ label, ...scoresOf(count) })),
    macro: averageScores(counts, 'macro'),
    weighted: averageScores(counts, 'weighted'),
  }
}
