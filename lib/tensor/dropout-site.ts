/** Where a place that draws random numbers gets them: the random state of the step, and the place's own number. */
import { VoltaicError } from '../runtime/index.js'
import { checkDType } from './operands.js'
import { type Tensor, tensorValue } from './tensor.js'
import type { Value } from './value.js'

export interface RandomSite {
  /** int32 [4]: seed low, seed high, step, micro-batch. */
  readonly state: Tensor
  /** The number of the place; two places with one number draw the same. A whole number below 2^32. */
  readonly site: number
}

export interface Dropout extends RandomSite {
  /** Elements become 0 with this probability, from 0 to below 1; the others grow to keep the mean. */
  readonly probability: number
}

/** The arguments a kernel takes; a probability of 0 leaves the state out. */
export interface DropoutArguments {
  readonly state: Value | null
  readonly probability: number
  readonly site: number
}

const noDropout: DropoutArguments = { state: null, probability: 0, site: 0 }

export function checkProbability(op: string, probability: number): void {
  if (!(probability >= 0 && probability < 1)) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `${op}: dropout probability ${probability}, expected from 0 to below 1`,
    )
  }
}

export function checkDropout(op: string, dropout: Dropout | null | undefined): DropoutArguments {
  if (dropout == null) return noDropout
  checkProbability(op, dropout.probability)
  if (dropout.probability === 0) return noDropout
  const { state, probability, site } = dropout
  checkDType(op, 'the random state', state, 'int32')
  return { state: tensorValue(state), probability, site }
}
