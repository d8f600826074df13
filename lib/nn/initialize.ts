/** Draws the first values of whole models anew, so that they follow from the seed and each parameter's position alone. */
import { RandomState } from '../tensor/index.js'
import { Module, parameterNames } from './module.js'

/** A micro-batch number that no training step has, so that first values and dropout never share numbers. */
const initializationStream = 65535

/**
 * Runs the initializer of every parameter of one or more modules, shared ones once. The n-th parameter draws from site n of the
 * seed: the result depends on nothing else.
 */
export function initializeParameters(
  modules: Module | readonly Module[],
  options: { readonly seed: number | bigint },
): void {
  const parameters = [...parameterNames(modules instanceof Module ? [modules] : modules).keys()]
  const [first] = parameters
  if (first === undefined) return
  const state = new RandomState(first.device, { seed: options.seed, microBatch: initializationStream })
  try {
    parameters.forEach((parameter, site) => {
      parameter.initializer(parameter, { state: state.tensor, site })
      parameter.refreshWorking()
    })
  } finally {
    state.dispose()
  }
}
