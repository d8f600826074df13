/** Helpers of the tensor tests: seeded numbers, the device under test, and gradients against central differences. */
import type { Test } from 'tap'
import { scope, Tensor, type TensorOptions, tensor } from '../../dist/tensor/index.js'

type DeviceName = NonNullable<TensorOptions['device']>

/** Every test runs on the device that VOLTAIC_TEST_DEVICE names. */
export const device: DeviceName = (process.env.VOLTAIC_TEST_DEVICE ?? 'cpu') as DeviceName

/** Uniform numbers in [low, high) from a seed (mulberry32). */
export function randomNumbers(seed: number, low = -1, high = 1): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return low + (((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * (high - low)
  }
}

export function product(shape: readonly number[]): number {
  return shape.reduce((size, dimension) => size * dimension, 1)
}

export interface Input {
  readonly shape: readonly number[]
  readonly low?: number
  readonly high?: number
  /** Instead of random numbers. */
  readonly values?: readonly number[]
}

export interface CheckOptions {
  readonly seed?: number
  /**
   * Allowed difference, relative to the largest slope of the input but at least to 1. Central differences with step 1/128 on float32
   * results err by about 1e-7 / step for rounding and by step² / 6 times the third derivative.
   */
  readonly tolerance?: number
}

const step = 1 / 128

function evaluate(
  compute: (...inputs: Tensor[]) => Tensor,
  data: readonly Float32Array[],
  inputs: readonly Input[],
): Float32Array {
  return scope(() => {
    const tensors = data.map((values, index) =>
      tensor(values, { device, shape: (inputs[index] as Input).shape }),
    )
    return Float32Array.from(compute(...tensors).dataSync())
  })
}

/** Compares what `backward` gives for the sum of weighted results with central differences, for every element of every input. */
export function checkGradients(
  t: Test,
  name: string,
  compute: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Input[],
  options: CheckOptions = {},
): void {
  const { seed = 7, tolerance = 1e-3 } = options
  const data = inputs.map((input, index) => {
    const next = randomNumbers(seed + index * 1000, input.low ?? -1, input.high ?? 1)
    return Float32Array.from(input.values ?? Array.from({ length: product(input.shape) }, next))
  })
  const gradients = scope(() => {
    const leaves = data.map((values, index) =>
      tensor(values, { device, shape: (inputs[index] as Input).shape, requiresGrad: true }),
    )
    const output = compute(...leaves)
    const next = randomNumbers(seed + 77, 0.5, 1.5)
    const weights = Float32Array.from({ length: output.size }, next)
    output.backward(tensor(weights, { device, shape: output.shape }))
    return { weights, slopes: leaves.map((leaf) => Float32Array.from(leaf.grad.dataSync())) }
  })
  data.forEach((values, index) => {
    const slopes = gradients.slopes[index] as Float32Array
    let worst = 0
    let largest = 1
    for (let i = 0; i < values.length; i++) {
      const original = values[i] as number
      values[i] = original + step
      const above = evaluate(compute, data, inputs)
      values[i] = original - step
      const below = evaluate(compute, data, inputs)
      values[i] = original
      let expected = 0
      for (let j = 0; j < above.length; j++) {
        expected +=
          ((gradients.weights[j] as number) * ((above[j] as number) - (below[j] as number))) / (2 * step)
      }
      const difference = Math.abs(expected - (slopes[i] as number))
      worst = Math.max(worst, Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference)
      largest = Math.max(largest, Math.abs(expected))
    }
    t.ok(
      worst <= tolerance * largest,
      `${name}: gradient of input ${index} (seed ${seed}) is off by ${worst.toExponential(2)} of ${largest.toPrecision(3)}`,
    )
  })
}

/** Numbers equal within an absolute difference; prints the worst. */
export function close(
  t: Test,
  actual: ArrayLike<number> | Tensor,
  expected: ArrayLike<number>,
  tolerance: number,
  name: string,
): void {
  const found = actual instanceof Tensor ? actual.dataSync() : actual
  let worst = found.length === expected.length ? 0 : Number.POSITIVE_INFINITY
  for (let i = 0; i < expected.length && i < found.length; i++) {
    const difference = Math.abs((found[i] as number) - (expected[i] as number))
    worst = Math.max(worst, Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference)
  }
  t.ok(worst <= tolerance, `${name} (off by ${worst.toExponential(2)}, allowed ${tolerance})`, {
    found: Array.from(found),
    expected: Array.from(expected),
  })
}
