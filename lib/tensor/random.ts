/**
 * Random tensors and dropout from Philox: every number is a function of (seed, step, micro-batch, site, element), on every device.
 * A RandomState is what training loops hold, with a site for each place that draws; a Generator is the convenient form: each
 * draw is the next step of its seed.
 */
import { type Device, type Shape, upload, VoltaicError } from '../runtime/index.js'
import { created, deviceFrom, type TensorOptions } from './creation.js'
import { checkDropout, checkProbability, type Dropout, type RandomSite } from './dropout-site.js'
import { checkFloat, nodes, resultWith } from './operands.js'
import { consumeToDType } from './raw.js'
import { unscoped } from './scope.js'
import { checkShape } from './shapes.js'
import { type Tensor, tensorValue, wrap } from './tensor.js'
import { newValue, produce, releaseValue, retain, type Value } from './value.js'

export interface RandomPosition {
  /** A whole number from 0; a bigint for the upper bits of 64. */
  readonly seed: number | bigint
  /** Default 0. */
  readonly step?: number
  /** Default 0; below 65536. */
  readonly microBatch?: number
}

function words(position: RandomPosition): Int32Array {
  const { seed, step = 0, microBatch = 0 } = position
  if (typeof seed === 'number' && !(Number.isSafeInteger(seed) && seed >= 0)) {
    throw new VoltaicError('ERR_ARGUMENT', `seed ${seed}: expected a whole number from 0`)
  }
  const bits = BigInt.asUintN(64, BigInt(seed))
  return new Int32Array([Number(bits & 0xffffffffn), Number(bits >> 32n), step, microBatch])
}

function stateValue(device: Device, position: RandomPosition): Value {
  const value = newValue(device, 'int32', [4])
  upload(value.handle, words(position))
  return value
}

/**
 * The random state of a training run on its device: seed, step and micro-batch. It may have several places, so that one captured graph
 * holds passes with different positions; `tensor` is the one selected.
 */
export class RandomState {
  readonly device: Device
  readonly #places: Tensor[] = []
  #selected = 0

  constructor(device: Device, position: RandomPosition) {
    this.device = device
    this.#places.push(this.#make(position))
  }

  #make(position: RandomPosition): Tensor {
    return unscoped(() => wrap(stateValue(this.device, position)))
  }

  /** int32 [4], for kernels. */
  get tensor(): Tensor {
    return this.#places[this.#selected] as Tensor
  }

  /** Moves on. Tapes recorded before keep the state they were recorded with. */
  set(position: RandomPosition): void {
    const next = this.#make(position)
    this.tensor.dispose()
    this.#places[this.#selected] = next
  }

  /**
   * Moves on in the same memory, for captured graphs, and selects the place: backward of anything recorded with it before must have
   * been queued.
   * @param place 0 at first; a new one is made when it is the next number
   */
  update(position: RandomPosition, place = 0): void {
    if (place === this.#places.length) {
      this.#places.push(this.#make(position))
      this.#selected = place
      return
    }
    this.select(place)
    upload(tensorValue(this.tensor).handle, words(position))
  }

  /** What is computed next draws from a place as it was updated last. @throws ERR_ARGUMENT when there is none */
  select(place: number): void {
    if (this.#places[place] === undefined)
      throw new VoltaicError(
        'ERR_ARGUMENT',
        `RandomState: there is no place ${place}; expected 0 to ${this.#places.length - 1}`,
      )
    this.#selected = place
  }

  dispose(): void {
    for (const place of this.#places) place.dispose()
  }
}

/** A row of random draws from a seed: the n-th draw of two generators with one seed is the same. */
export class Generator {
  readonly seed: number | bigint
  #draws = 0

  constructor(seed: number | bigint) {
    words({ seed })
    this.seed = seed
  }

  /** The state of the next draw; the caller's to release. */
  next(device: Device): Value {
    return stateValue(device, { seed: this.seed, step: this.#draws++ })
  }
}

let defaultGenerator = new Generator(0)

/** Starts the default generator anew: what is drawn without a generator follows from the seed. It is 0 at the start. */
export function setSeed(seed: number | bigint): void {
  defaultGenerator = new Generator(seed)
}

/** The next draw of the default generator; the caller disposes the state. */
export function defaultDraw(device: Device): RandomSite {
  return { state: unscoped(() => wrap(defaultGenerator.next(device))), site: 0 }
}

export interface RandomOptions extends TensorOptions {
  /** Where the numbers come from: a generator (default: the one `setSeed` starts), or a site of a random state. */
  readonly from?: Generator | RandomSite | undefined
}

interface Draw {
  readonly state: Value
  readonly site: number
}

/** The caller releases the state. */
function draw(device: Device, from: Generator | RandomSite | undefined): Draw {
  if (from === undefined || from instanceof Generator) {
    return { state: (from ?? defaultGenerator).next(device), site: 0 }
  }
  return { state: retain(tensorValue(from.state)), site: from.site }
}

function random(op: string, shape: Shape, parameters: readonly number[], options: RandomOptions): Value {
  checkShape(op, shape)
  const device = deviceFrom(options.device)
  const { state, site } = draw(device, options.from)
  try {
    const value = newValue(
      device,
      op === 'bernoulli' ? 'uint8' : op === 'permutation' ? 'int32' : 'float32',
      [...shape],
    )
    return produce(value, op, [state.handle, value.handle], [...parameters, site])
  } finally {
    releaseValue(state)
  }
}

function floats(op: string, shape: Shape, parameters: readonly number[], options: RandomOptions): Tensor {
  const value = random(op, shape, parameters, options)
  return created(consumeToDType(value, options.dtype ?? 'float32'), options)
}

/** Uniform numbers between `low` (default 0) and `high` (default 1). */
export function uniform(
  shape: Shape,
  options: RandomOptions & { readonly low?: number; readonly high?: number } = {},
): Tensor {
  return floats('uniform', shape, [options.low ?? 0, options.high ?? 1], options)
}

/** Normal numbers of `mean` (default 0) and `std` (default 1). */
export function normal(
  shape: Shape,
  options: RandomOptions & { readonly mean?: number; readonly std?: number } = {},
): Tensor {
  return floats('normal', shape, [options.mean ?? 0, options.std ?? 1], options)
}

/** Normal numbers cut at two standard deviations. */
export function truncatedNormal(
  shape: Shape,
  options: RandomOptions & { readonly mean?: number; readonly std?: number } = {},
): Tensor {
  return floats('truncated_normal', shape, [options.mean ?? 0, options.std ?? 1], options)
}

/** 1 with `probability` (default 0.5), else 0, as uint8. */
export function bernoulli(
  shape: Shape,
  options: RandomOptions & { readonly probability?: number } = {},
): Tensor {
  return wrap(random('bernoulli', shape, [options.probability ?? 0.5], options))
}

/** The numbers from 0 to n - 1 in random order, as int32. */
export function permutation(n: number, options: RandomOptions = {}): Tensor {
  return wrap(random('permutation', [n], [], options))
}

/**
 * Sets elements to 0 with a probability and scales the others to keep the mean.
 * @param dropout a probability, drawn from the default generator, or a dropout site.
 */
export function dropout(x: Tensor, dropout: number | Dropout): Tensor {
  checkFloat('dropout', 'x', x)
  const input = tensorValue(x)
  let probability: number
  let drawn: Draw
  if (typeof dropout === 'number') {
    checkProbability('dropout', dropout)
    if (dropout === 0) return wrapThrough(x)
    probability = dropout
    drawn = draw(input.device, undefined)
  } else {
    const given = checkDropout('dropout', dropout)
    if (given.state === null) return wrapThrough(x)
    probability = given.probability
    drawn = { state: retain(given.state), site: given.site }
  }
  const { state, site } = drawn
  const output = newValue(input.device, input.dtype, input.shape)
  produce(output, 'dropout', [input.handle, state.handle, output.handle], [probability, site])
  return resultWith('dropout', output, nodes(x), [state], (node, gradient) => {
    const toInput = newValue(gradient.device, gradient.dtype, gradient.shape)
    node.give(
      0,
      produce(toInput, 'dropout', [gradient.handle, state.handle, toInput.handle], [probability, site]),
    )
  })
}

/** The tensor as it is, as a result of its own. */
function wrapThrough(x: Tensor): Tensor {
  return resultWith('dropout', retain(tensorValue(x)), nodes(x), [], (node, gradient) =>
    node.give(0, retain(gradient)),
  )
}
