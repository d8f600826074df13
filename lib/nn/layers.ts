/** Linear, LayerNorm, Embedding and SelfAttention. */
import { type Device, type DeviceName, VoltaicError } from '../runtime/index.js'
import {
  type Activation,
  attention,
  type Dropout,
  embedding,
  type LinearOptions,
  layerNorm,
  linear,
  type Tensor,
} from '../tensor/index.js'
import {
  type Initializer,
  onesInitializer,
  truncatedNormalInitializer,
  zerosInitializer,
} from './initializers.js'
import { Module } from './module.js'
import { Parameter } from './parameter.js'

interface LayerOptions {
  /** Of the weight. Default: truncated normal, std 0.02. Biases start at 0. */
  readonly initializer?: Initializer | undefined
  /** Default 'cpu'. */
  readonly device?: DeviceName | Device | undefined
}

export interface LinearLayerOptions extends LayerOptions {
  readonly inputs: number
  readonly outputs: number
  /** Default true. */
  readonly bias?: boolean | undefined
  /** Runs in the same pass; none when left out. */
  readonly activation?: Activation | undefined
}

/** x weightᵀ + bias; weight [outputs, inputs]. */
export class Linear extends Module {
  readonly weight: Parameter
  readonly bias: Parameter | null
  readonly activation: Activation | undefined

  constructor(options: LinearLayerOptions) {
    super()
    const { inputs, outputs, device, initializer = truncatedNormalInitializer() } = options
    this.weight = new Parameter([outputs, inputs], { initializer, device })
    this.bias = options.bias === false ? null : new Parameter([outputs], { device })
    this.activation = options.activation
  }

  /** [..., inputs] to [..., outputs]. */
  forward(x: Tensor, options: Omit<LinearOptions, 'activation'> = {}): Tensor {
    return linear(x, this.weight, this.bias, { ...options, activation: this.activation })
  }
}

export interface LayerNormLayerOptions {
  readonly width: number
  /** Default 1e-12. */
  readonly epsilon?: number | undefined
  readonly device?: DeviceName | Device | undefined
}

/** LayerNorm over the last axis; weight starts at 1, bias at 0. */
export class LayerNorm extends Module {
  readonly weight: Parameter
  readonly bias: Parameter
  readonly epsilon: number

  constructor(options: LayerNormLayerOptions) {
    super()
    const { width, device } = options
    this.weight = new Parameter([width], { initializer: onesInitializer, device })
    this.bias = new Parameter([width], { initializer: zerosInitializer, device })
    this.epsilon = options.epsilon ?? 1e-12
  }

  forward(x: Tensor): Tensor {
    return layerNorm(x, this.weight, this.bias, { epsilon: this.epsilon })
  }
}

export interface EmbeddingLayerOptions extends LayerOptions {
  readonly rows: number
  readonly width: number
}

/** A table of rows, looked up by int32 ids. */
export class Embedding extends Module {
  readonly weight: Parameter

  constructor(options: EmbeddingLayerOptions) {
    super()
    const { rows, width, device, initializer = truncatedNormalInitializer() } = options
    this.weight = new Parameter([rows, width], { initializer, device })
  }

  /** ids of any shape to [...shape, width]. */
  forward(ids: Tensor, options: { readonly dtype?: 'float32' | 'bfloat16' | undefined } = {}): Tensor {
    return embedding(ids, this.weight, options)
  }
}

export interface SelfAttentionOptions extends LayerOptions {
  readonly width: number
  readonly heads: number
  /** Dropout of the probabilities, active in training mode. */
  readonly dropout?: Dropout | undefined
}

/**
 * Multi-head self-attention without its output projection. Queries, keys and values are one product; in checkpoints the packed
 * weight and bias are `query`, `key` and `value`.
 */
export class SelfAttention extends Module {
  readonly weight: Parameter
  readonly bias: Parameter
  readonly heads: number
  readonly dropout: Dropout | undefined

  constructor(options: SelfAttentionOptions) {
    super()
    const { width, heads, device, initializer = truncatedNormalInitializer() } = options
    if (width % heads !== 0) {
      throw new VoltaicError(
        'ERR_CONFIG',
        `self-attention: width ${width} does not divide into ${heads} heads`,
      )
    }
    const parts = ['query', 'key', 'value']
    const named = (what: string): string[] => parts.map((part) => `${part}.${what}`)
    this.weight = new Parameter([3 * width, width], { initializer, device, parts: named('weight') })
    this.bias = new Parameter([3 * width], { device, parts: named('bias') })
    this.heads = heads
    this.dropout = options.dropout
  }

  /**
   * @param x [tokens, width]. @param offsets int32 [sequences + 1]. @returns the context, [tokens, width].
   */
  forward(x: Tensor, offsets: Tensor, options: { readonly longest?: number | undefined } = {}): Tensor {
    const qkv = linear(x, this.weight, this.bias)
    const context = attention(qkv, offsets, {
      heads: this.heads,
      dropout: this.training ? this.dropout : null,
      longest: options.longest,
    })
    qkv.dispose()
    return context
  }
}
