/** How well a classifier knows its labels and what belongs to none of them, whatever the threshold. */
import { VoltaicError } from '../runtime/errors.js'

/** A text in scope: its best label's score, and whether that label is right. */
export interface ScoredText {
  readonly score: number
  readonly isRight: boolean
}

/** How many of these ascending numbers are below a value, and half of those that equal it. */
function countBelow(ascending: Float64Array, value: number): number {
  const firstNot = (fails: (number: number) => boolean): number => {
    let low = 0
    let high = ascending.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (fails(ascending[middle] as number)) high = middle
      else low = middle + 1
    }
    return low
  }
  return (firstNot((number) => number >= value) + firstNot((number) => number > value)) / 2
}

/**
 * The area under the open-set classification rate (Dhamija et al. 2018, Reducing network agnostophobia): of all pairs of a text in
 * scope and one out of scope, the part in which the former is labelled right and has the higher score; equal scores count half.
 * Without texts out of scope it is the accuracy of the others.
 * @param outOfScope the best labels' scores of the texts that belong to none
 * @throws ERR_ARGUMENT without texts in scope
 */
export function openSetAuc(inScope: readonly ScoredText[], outOfScope: readonly number[]): number {
  if (inScope.length === 0) {
    throw new VoltaicError('ERR_ARGUMENT', 'openSetAuc: no texts in scope; expected one or more')
  }
  const others = Float64Array.from(outOfScope).sort()
  let total = 0
  for (const { score, isRight } of inScope) {
    if (isRight) total += others.length === 0 ? 1 : countBelow(others, score) / others.length
  }
  return total / inScope.length
}
