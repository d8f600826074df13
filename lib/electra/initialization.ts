/**
 * First values of the weights. 'original' is what the authors' code does: a truncated normal for tables, encoder and the heads'
 * hidden layers, Glorot's uniform for the embedding projection and every output layer. 'sinusoidal': the same, but the position table
 * begins as waves, so that neighbours are told apart from the first step. 'huggingface': a normal for all, and a zero row for the
 * padding token.
 */
import type { ElectraConfig } from '../formats/electra-config.js'
import {
  glorotUniformInitializer,
  type Initializer,
  type Module,
  normalInitializer,
  parameterNames,
  sinusoidalInitializer,
  truncatedNormalInitializer,
} from '../nn/index.js'
import { run, VoltaicError } from '../runtime/index.js'
import { RandomState, zeros } from '../tensor/index.js'
import { tensorValue } from '../tensor/tensor.js'

export const initializations = ['original', 'sinusoidal', 'huggingface'] as const
export type Initialization = (typeof initializations)[number]

function withZeroRow(initializer: Initializer, row: number): Initializer {
  return (parameter, random) => {
    initializer(parameter, random)
    const zero = zeros([1, parameter.shape[1] as number], { device: parameter.device })
    run('slice_assign', [tensorValue(zero).handle, tensorValue(parameter.value).handle], [0, row])
    zero.dispose()
  }
}

/**
 * The initializer of each kind of weight; biases are 0 and LayerNorm weights 1 everywhere. While `deferred`, nothing is drawn: for
 * models whose weights come from a file, or from a seed once they are built.
 */
export class FirstValues {
  readonly wordTable: Initializer
  readonly positionTable: Initializer
  readonly typeTable: Initializer
  readonly hidden: Initializer
  readonly projection: Initializer
  readonly output: Initializer
  deferred: boolean

  /** @throws ERR_ARGUMENT for an unknown style */
  constructor(config: ElectraConfig, style: Initialization = 'original', deferred = false) {
    this.deferred = deferred
    const std = config.initializerRange
    const unlessDeferred =
      (initializer: Initializer): Initializer =>
      (parameter, random) => {
        if (!this.deferred) initializer(parameter, random)
      }
    if (style === 'original' || style === 'sinusoidal') {
      this.hidden = unlessDeferred(truncatedNormalInitializer({ std }))
      this.output = unlessDeferred(glorotUniformInitializer)
      this.wordTable = this.hidden
      this.projection = this.output
    } else if (style === 'huggingface') {
      const normal = normalInitializer({ std })
      this.hidden = unlessDeferred(normal)
      this.output = this.hidden
      this.wordTable = unlessDeferred(withZeroRow(normal, config.padTokenId))
      this.projection = this.hidden
    } else {
      throw new VoltaicError(
        'ERR_ARGUMENT',
        `initialization is ${JSON.stringify(style)}; expected 'original', 'sinusoidal' or 'huggingface'`,
      )
    }
    this.positionTable =
      style === 'sinusoidal' ? unlessDeferred(sinusoidalInitializer({ amplitude: std })) : this.hidden
    this.typeTable = this.hidden
  }
}

/** FNV-1a over the UTF-16 units. */
function hash(text: string): number {
  let value = 0x811c9dc5
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193)
  return value >>> 0
}

/** A micro-batch number that no training step has, so that first values and dropout never share numbers. */
const initializationStream = 65535

/**
 * Draws all first values anew. A parameter's depend on the seed, on `prefix` and on its first name alone: not on which head the body
 * has, nor on the order of construction.
 */
export function initializeByName(
  module: Module,
  options: {
    readonly seed: number | bigint
    readonly prefix?: string | undefined
    /** Only parameters of these names. Default: all. */
    readonly only?: readonly string[] | undefined
  },
): void {
  const names = parameterNames([module])
  const [first] = names.keys()
  if (first === undefined) return
  const state = new RandomState(first.device, { seed: options.seed, microBatch: initializationStream })
  try {
    for (const [parameter, [name = '']] of names) {
      if (options.only?.includes(name) === false) continue
      parameter.initializer(parameter, { state: state.tensor, site: hash(`${options.prefix ?? ''}${name}`) })
      parameter.refreshWorking()
    }
  } finally {
    state.dispose()
  }
}
