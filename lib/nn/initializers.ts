/** First values of parameters, drawn from Philox by seed and position. */
import { run } from '../runtime/index.js'
import type { RandomSite } from '../tensor/index.js'
import { tensorValue } from '../tensor/tensor.js'
import type { Parameter } from './parameter.js'

/** Writes a parameter's first value; random ones read only `random`. */
export type Initializer = (parameter: Parameter, random: RandomSite) => void

function filled(fill: number): Initializer {
  return (parameter) => run('fill', [tensorValue(parameter.value).handle], [fill])
}

/** All 0. */
export const zerosInitializer: Initializer = filled(0)

/** All 1. */
export const onesInitializer: Initializer = filled(1)

function drawn(op: string, first: number, second: number): Initializer {
  return (parameter, random) =>
    run(
      op,
      [tensorValue(random.state).handle, tensorValue(parameter.value).handle],
      [first, second, random.site],
    )
}

/** Normal; default mean 0, std 0.02. */
export function normalInitializer(
  options: { readonly mean?: number; readonly std?: number } = {},
): Initializer {
  return drawn('normal', options.mean ?? 0, options.std ?? 0.02)
}

/** Normal cut at two standard deviations, the original ELECTRA's; default mean 0, std 0.02. */
export function truncatedNormalInitializer(
  options: { readonly mean?: number; readonly std?: number } = {},
): Initializer {
  return drawn('truncated_normal', options.mean ?? 0, options.std ?? 0.02)
}

/** Uniform within ±sqrt(6 / (inputs + outputs)) for a weight [outputs, inputs] (Glorot and Bengio, 2010). */
export const glorotUniformInitializer: Initializer = (parameter, random) => {
  const [rows = 1, inputs = 1] = parameter.shape
  const outputs = rows / Math.max(1, parameter.parts.length)
  const limit = Math.sqrt(6 / (inputs + outputs))
  drawn('uniform', -limit, limit)(parameter, random)
}
