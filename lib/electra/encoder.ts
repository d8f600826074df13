/** The transformer encoder: post-LayerNorm layers over flat tokens (Vaswani et al., 2017; Devlin et al., 2019). */
import type { ActivationName, ElectraConfig } from '../formats/electra-config.js'
import { LayerNorm, Linear, Module, SelfAttention } from '../nn/index.js'
import type { Device } from '../runtime/index.js'
import {
  type Activation,
  type Dropout,
  dropoutResidualLayerNorm,
  firstTokens,
  type Tensor,
} from '../tensor/index.js'
import type { DeviceBatch } from './batch.js'
import type { FirstValues } from './initialization.js'
import type { ModelRandomness } from './randomness.js'

const activations: Readonly<Record<ActivationName, Activation>> = {
  gelu: 'gelu',
  gelu_new: 'geluTanh',
  gelu_pytorch_tanh: 'geluTanh',
  relu: 'relu',
  tanh: 'tanh',
  sigmoid: 'sigmoid',
}

/** The activation that a configuration names. */
export function activationOf(name: ActivationName): Activation {
  return activations[name]
}

/** What building a part of a model takes. */
export interface BuildOptions {
  readonly device: Device
  readonly initializers: FirstValues
  readonly randomness: ModelRandomness
}

/**
 *   middle = LayerNorm(dropout(attention(x) Wₒ + bₒ) + x)
 *   y      = LayerNorm(dropout(act(middle W₁ + b₁) W₂ + b₂) + middle)
 */
export class ElectraLayer extends Module {
  readonly attention: SelfAttention
  readonly attentionOutput: Linear
  readonly attentionNorm: LayerNorm
  readonly intermediate: Linear
  readonly output: Linear
  readonly outputNorm: LayerNorm
  readonly attentionDropout: Dropout
  readonly outputDropout: Dropout

  protected override get checkpointNames(): Readonly<Record<string, string>> {
    return {
      attention: 'attention.self',
      attentionOutput: 'attention.output.dense',
      attentionNorm: 'attention.output.LayerNorm',
      intermediate: 'intermediate.dense',
      output: 'output.dense',
      outputNorm: 'output.LayerNorm',
    }
  }

  constructor(config: ElectraConfig, { device, initializers, randomness }: BuildOptions) {
    super()
    const { hiddenSize: width, intermediateSize } = config
    const initializer = initializers.hidden
    const norm = (): LayerNorm => new LayerNorm({ width, epsilon: config.layerNormEps, device })
    this.attention = new SelfAttention({
      width,
      heads: config.numAttentionHeads,
      dropout: randomness.next(config.attentionProbsDropoutProb),
      device,
      initializer,
    })
    this.attentionOutput = new Linear({ inputs: width, outputs: width, device, initializer })
    this.attentionDropout = randomness.next(config.hiddenDropoutProb)
    this.attentionNorm = norm()
    this.intermediate = new Linear({
      inputs: width,
      outputs: intermediateSize,
      activation: activationOf(config.hiddenAct),
      device,
      initializer,
    })
    this.output = new Linear({ inputs: intermediateSize, outputs: width, device, initializer })
    this.outputDropout = randomness.next(config.hiddenDropoutProb)
    this.outputNorm = norm()
  }

  /** x [tokens, hiddenSize] to the same shape. */
  forward(x: Tensor, batch: Pick<DeviceBatch, 'offsets' | 'longest'>): Tensor {
    const context = this.attention.forward(x, batch.offsets, { longest: batch.longest })
    return this.#behindAttention(context, x)
  }

  /** The same for each sequence's first token alone, [sequences, hiddenSize]: the others are only attended to. */
  forwardFirst(x: Tensor, batch: Pick<DeviceBatch, 'offsets' | 'longest'>): Tensor {
    const all = this.attention.forward(x, batch.offsets, { longest: batch.longest })
    const context = firstTokens(all, batch.offsets)
    all.dispose()
    const residual = firstTokens(x, batch.offsets)
    const y = this.#behindAttention(context, residual)
    residual.dispose()
    return y
  }

  /** Frees `context`. */
  #behindAttention(context: Tensor, x: Tensor): Tensor {
    const attended = this.attentionOutput.forward(context)
    context.dispose()
    const middle = this.#close(attended, x, this.attentionNorm, this.attentionDropout)
    const wide = this.intermediate.forward(middle)
    const transformed = this.output.forward(wide)
    wide.dispose()
    const y = this.#close(transformed, middle, this.outputNorm, this.outputDropout)
    middle.dispose()
    return y
  }

  #close(x: Tensor, residual: Tensor, norm: LayerNorm, dropout: Dropout): Tensor {
    const y = dropoutResidualLayerNorm(x, residual, norm.weight, norm.bias, {
      epsilon: norm.epsilon,
      dropout: this.training ? dropout : null,
    })
    x.dispose()
    return y
  }
}

export class ElectraEncoder extends Module {
  readonly layer: readonly ElectraLayer[]

  constructor(config: ElectraConfig, options: BuildOptions) {
    super()
    this.layer = Array.from({ length: config.numHiddenLayers }, () => new ElectraLayer(config, options))
  }

  /**
   * x [tokens, hiddenSize] (freed, unless states are kept) to the same shape.
   * @param keep when given: takes `x` and every layer's output
   */
  forward(x: Tensor, batch: Pick<DeviceBatch, 'offsets' | 'longest'>, keep?: Tensor[]): Tensor {
    let hidden = x
    keep?.push(hidden)
    for (const layer of this.layer) {
      const next = layer.forward(hidden, batch)
      if (keep === undefined) hidden.dispose()
      else keep.push(next)
      hidden = next
    }
    return hidden
  }

  /** x [tokens, hiddenSize] (freed) to the first tokens' output, [sequences, hiddenSize]: the last layer computes no others. */
  forwardFirst(x: Tensor, batch: Pick<DeviceBatch, 'offsets' | 'longest'>): Tensor {
    let hidden = x
    for (const [index, layer] of this.layer.entries()) {
      const isLast = index === this.layer.length - 1
      const next = isLast ? layer.forwardFirst(hidden, batch) : layer.forward(hidden, batch)
      hidden.dispose()
      hidden = next
    }
    return hidden
  }
}
