/**
 * Where a model's dropout comes from: a random state, and a number for each place with dropout, in order of construction. A model has
 * a state of its own until a training loop gives it one; the numbers of generator and discriminator start at different places then.
 */
import type { Device } from '../runtime/index.js'
import { type Dropout, RandomState, type Tensor } from '../tensor/index.js'

export class ModelRandomness {
  readonly #device: Device
  readonly #seed: number | bigint
  #state: RandomState | null = null
  #shared = false
  #firstSite = 0
  #sites = 0
  #step = 0

  constructor(device: Device, seed: number | bigint = 0) {
    this.#device = device
    this.#seed = seed
  }

  /** Places with dropout so far. */
  get sites(): number {
    return this.#sites
  }

  get #tensor(): Tensor {
    this.#state ??= new RandomState(this.#device, { seed: this.#seed })
    return this.#state.tensor
  }

  /** A place with dropout, under the next number. */
  next(probability: number): Dropout {
    const index = this.#sites++
    const site = (): number => this.#firstSite + index
    const state = (): Tensor => this.#tensor
    return {
      probability,
      get site() {
        return site()
      },
      get state() {
        return state()
      },
    }
  }

  /** From now on dropout follows this state, which whoever gave it moves on; places are numbered from `firstSite`. */
  follow(state: RandomState, firstSite = 0): void {
    if (!this.#shared) this.#state?.dispose()
    this.#state = state
    this.#shared = true
    this.#firstSite = firstSite
  }

  /** A state of the model's own moves on by one step, so that each forward pass in training drops other elements. */
  advance(): void {
    if (this.#shared) return
    this.#step++
    if (this.#state === null)
      this.#state = new RandomState(this.#device, { seed: this.#seed, step: this.#step })
    else this.#state.set({ seed: this.#seed, step: this.#step })
  }
}
