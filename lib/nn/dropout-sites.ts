/** Gives every place with dropout, in order of construction, a number of its own and the random state of the step. */
import type { Dropout, RandomState, Tensor } from '../tensor/index.js'

export class DropoutSites {
  readonly random: RandomState
  #next: number

  /** @param first the first site's number; default 0. Sites that the caller numbers itself stand below. */
  constructor(random: RandomState, first = 0) {
    this.random = random
    this.#next = first
  }

  /** Takes `count` numbers in a row for other draws, and gives the first. */
  reserve(count: number): number {
    const site = this.#next
    this.#next += count
    return site
  }

  /** A dropout of its own number; it reads the state that is current when it is used. */
  next(probability: number): Dropout {
    const { random } = this
    const site = this.reserve(1)
    return {
      probability,
      site,
      get state(): Tensor {
        return random.tensor
      },
    }
  }
}
