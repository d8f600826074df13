/**
 * AdamW over a ParameterArena: the global gradient norm and the clipped update are one launch each.
 *
 *   g = gradient · scale · min(1, maxGradientNorm / norm)
 *   m = β1 m + (1 - β1) g,   v = β2 v + (1 - β2) g²
 *   u = (m / c1) / (sqrt(v / c2) + ε) + decay · p,   p = p - rate · multiplier · u
 *
 * `original` is ELECTRA's own form, without bias correction (c1 = c2 = 1, ε outside of any scaling); `pytorch` has c = 1 - βᵗ
 * (Loshchilov and Hutter, 2019).
 */

import { type Module, type Parameter, ParameterArena } from '../nn/index.js'
import { exportBytes, importBytes, segmentAlignment } from '../nn/parameter-arena.js'
import { run, upload, VoltaicError } from '../runtime/index.js'
import { type Tensor, tensor, zeros } from '../tensor/index.js'
import { unscoped } from '../tensor/scope.js'
import { tensorValue } from '../tensor/tensor.js'

export interface AdamWOptions {
  /** 'original' (ELECTRA's, no bias correction, ε 1e-6) or 'pytorch' (bias correction, ε 1e-8). Default 'pytorch'. */
  readonly form?: 'original' | 'pytorch' | undefined
  /** Default [0.9, 0.999]. */
  readonly betas?: readonly [number, number] | undefined
  readonly epsilon?: number | undefined
  /** Decoupled decay. Default 0.01. */
  readonly weightDecay?: number | undefined
  /**
   * Whether a parameter of these names decays. Default: none with LayerNorm, layer_norm or bias in its name.
   */
  readonly decays?: ((names: readonly string[]) => boolean) | undefined
  /** Factor of a parameter's learning rate, such as layerwiseDecay's; 0 freezes it, its moments too. Default 1. */
  readonly multiplier?: ((names: readonly string[], parameter: Parameter) => number) | undefined
  /** Gradients are scaled down to this global norm. Default 0: no clipping. */
  readonly maxGradientNorm?: number | undefined
}

export interface StepOptions {
  readonly learningRate: number
  /** Factor of all gradients before clipping, such as 1 / micro-batches. Default 1. */
  readonly gradientScale?: number | undefined
}

/** What a checkpoint keeps of an optimizer; moments as little-endian float32 in the arena's layout. */
export interface AdamWState {
  readonly step: number
  readonly firstMoment: Uint8Array
  readonly secondMoment: Uint8Array
}

/** The original's rule: LayerNorm and biases do not decay, everything else does, embeddings too. */
export function decaysByDefault(names: readonly string[]): boolean {
  return !names.some((name) => /LayerNorm|layer_norm|bias/.test(name))
}

function checkRange(name: string, value: number, holds: boolean, expected: string): number {
  if (!holds) throw new VoltaicError('ERR_ARGUMENT', `AdamW: ${name} is ${value}, expected ${expected}`)
  return value
}

export class AdamW {
  readonly arena: ParameterArena
  readonly form: 'original' | 'pytorch'
  readonly betas: readonly [number, number]
  readonly epsilon: number
  readonly maxGradientNorm: number
  /** float32 [1]: the last step's global norm of the scaled gradients, before clipping. */
  readonly gradientNorm: Tensor
  readonly #ownsArena: boolean
  readonly #firstMoment: Tensor
  readonly #secondMoment: Tensor
  readonly #segmentStarts: Tensor
  readonly #segmentRates: Tensor
  readonly #rates: Tensor
  #steps = 0

  /** @param parameters an arena, or what to make one of: a module, or modules and parameters. */
  constructor(
    parameters: ParameterArena | Module | readonly (Module | Parameter)[],
    options: AdamWOptions = {},
  ) {
    this.form = options.form ?? 'pytorch'
    const [beta1, beta2] = options.betas ?? [0.9, 0.999]
    checkRange('beta1', beta1, beta1 >= 0 && beta1 < 1, 'from 0 to below 1')
    checkRange('beta2', beta2, beta2 >= 0 && beta2 < 1, 'from 0 to below 1')
    this.betas = [beta1, beta2]
    const epsilon = options.epsilon ?? (this.form === 'original' ? 1e-6 : 1e-8)
    this.epsilon = checkRange('epsilon', epsilon, epsilon >= 0, 'from 0')
    const norm = options.maxGradientNorm ?? 0
    this.maxGradientNorm = checkRange('maxGradientNorm', norm, norm >= 0, 'from 0 (0: no clipping)')
    const decay = options.weightDecay ?? 0.01
    checkRange('weightDecay', decay, decay >= 0, 'from 0')
    const decays = options.decays ?? decaysByDefault
    const multiplier = options.multiplier ?? (() => 1)
    this.#ownsArena = !(parameters instanceof ParameterArena)
    this.arena = parameters instanceof ParameterArena ? parameters : new ParameterArena(parameters)
    const { device, segments, length } = this.arena
    const starts = Int32Array.from(segments, (segment) => segment.offset / segmentAlignment)
    const rates = new Float32Array(segments.length * 2)
    segments.forEach(({ names, parameter }, index) => {
      const factor = parameter.requiresGrad ? multiplier(names, parameter) : 0
      rates[index * 2] = checkRange(`the multiplier of ${names[0]}`, factor, factor >= 0, 'from 0')
      rates[index * 2 + 1] = decays(names) ? decay : 0
    })
    const make = (body: () => Tensor): Tensor => unscoped(body)
    this.#firstMoment = make(() => zeros([length], { device }))
    this.#secondMoment = make(() => zeros([length], { device }))
    this.#segmentStarts = make(() => tensor(starts, { device }))
    this.#segmentRates = make(() => tensor(rates, { device, shape: [segments.length, 2] }))
    this.#rates = make(() => zeros([4], { device }))
    this.gradientNorm = make(() => zeros([1], { device }))
  }

  /** float32 [arena.length] each; as they are now in stream order. */
  get moments(): { readonly firstMoment: Tensor; readonly secondMoment: Tensor } {
    return { firstMoment: this.#firstMoment, secondMoment: this.#secondMoment }
  }

  /** Updates taken so far. */
  get steps(): number {
    return this.#steps
  }

  /** One update of all parameters from the gradients in the arena, which stay: set them to 0 before the next backward. */
  step(options: StepOptions): void {
    this.prepare(options)
    this.update(options.gradientScale)
  }

  /** The part of a step that changes from step to step: counts it, and uploads its rates. */
  prepare(options: StepOptions): void {
    const { learningRate, gradientScale = 1 } = options
    checkRange('learningRate', learningRate, Number.isFinite(learningRate), 'a finite number')
    checkRange('gradientScale', gradientScale, Number.isFinite(gradientScale), 'a finite number')
    this.#steps++
    const corrects = this.form === 'pytorch'
    const [beta1, beta2] = this.betas
    const rates = new Float32Array([
      learningRate,
      corrects ? 1 - beta1 ** this.#steps : 1,
      corrects ? 1 - beta2 ** this.#steps : 1,
      gradientScale,
    ])
    upload(tensorValue(this.#rates).handle, rates)
  }

  /** The part of a prepared step that a captured graph may hold. @param gradientScale that of `prepare` */
  update(gradientScale = 1): void {
    const [beta1, beta2] = this.betas
    const { values, gradients, working } = this.arena
    const gradient = tensorValue(gradients).handle
    const norm = tensorValue(this.gradientNorm).handle
    run('global_norm', [gradient, norm], [gradientScale])
    run(
      'adamw',
      [
        tensorValue(values).handle,
        gradient,
        tensorValue(this.#firstMoment).handle,
        tensorValue(this.#secondMoment).handle,
        working === null ? null : tensorValue(working).handle,
        tensorValue(this.#segmentStarts).handle,
        tensorValue(this.#segmentRates).handle,
        norm,
        tensorValue(this.#rates).handle,
      ],
      [beta1, beta2, this.epsilon, this.maxGradientNorm],
    )
  }

  /** Sets all gradients to 0. */
  zeroGrad(): void {
    this.arena.zeroGradients()
  }

  /** Moments and step count, after all queued work. */
  async exportState(): Promise<AdamWState> {
    const [firstMoment, secondMoment] = await Promise.all([
      exportBytes(this.#firstMoment),
      exportBytes(this.#secondMoment),
    ])
    return { step: this.#steps, firstMoment, secondMoment }
  }

  /** Takes moments and step count back. @throws ERR_FORMAT when they belong to another layout. */
  importState(state: AdamWState): void {
    if (!Number.isSafeInteger(state.step) || state.step < 0) {
      throw new VoltaicError(
        'ERR_FORMAT',
        `optimizer state: step ${state.step}, expected a whole number from 0`,
      )
    }
    importBytes(this.#firstMoment, state.firstMoment, 'first moment')
    importBytes(this.#secondMoment, state.secondMoment, 'second moment')
    this.#steps = state.step
  }

  /** Frees the moments, and the arena if the optimizer made it (the parameters with it). */
  dispose(): void {
    const own = [this.#firstMoment, this.#secondMoment, this.#segmentStarts, this.#segmentRates, this.#rates]
    for (const each of own) each.dispose()
    this.gradientNorm.dispose()
    if (this.#ownsArena) this.arena.dispose()
  }
}
