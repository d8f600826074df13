/** First values of parameters: given, or drawn from Philox by seed and position. */
import { run } from '../runtime/index.js'
import { type RandomSite, tensor } from '../tensor/index.js'
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

/** The longest wave of a table of positions, in units of 2π rows. */
const longestWave = 1000

/**
 * Sines and cosines side by side for a table [positions, width], the pair k of them with waves of 2π · 1000^(2k / width) rows (Vaswani
 * et al., 2017, section 3.5, with a shorter longest wave): positions at one distance differ alike everywhere in the table. Draws
 * nothing. Default amplitude 0.02.
 */
export function sinusoidalInitializer(options: { readonly amplitude?: number } = {}): Initializer {
  const { amplitude = 0.02 } = options
  return (parameter) => {
    const [rows = 1, width = 1] = parameter.shape
    const values = new Float32Array(rows * width)
    for (let at = 0; at < values.length; at++) {
      const column = at % width
      const angle = Math.floor(at / width) / longestWave ** ((column - (column % 2)) / width)
      values[at] = amplitude * (column % 2 === 0 ? Math.sin(angle) : Math.cos(angle))
    }
    const table = tensor(values, { shape: [rows, width], device: parameter.device })
    run('slice_assign', [tensorValue(table).handle, tensorValue(parameter.value).handle], [0, 0])
    table.dispose()
  }
}
