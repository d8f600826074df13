/** A small network over pairs of hidden states, of the original's question answering. */
import type { ElectraConfig } from '../formats/electra-config.js'
import { Linear, Module } from '../nn/index.js'
import { gelu, linear, narrow, reshape, type Tensor } from '../tensor/index.js'
import type { BuildOptions } from './encoder.js'

const features = 512

/**
 * f(x, y) = w₂ gelu(W₁ [x; y] + b₁) + b₂, with 512 features. W₁ [x; y] is a product with x and one with y, so that many pairs may share
 * either.
 */
export class PairPredictions extends Module {
  readonly dense: Linear
  readonly densePrediction: Linear

  constructor({ hiddenSize }: ElectraConfig, { device, initializers }: BuildOptions) {
    super()
    const initializer = initializers.output
    this.dense = new Linear({ inputs: 2 * hiddenSize, outputs: features, device, initializer })
    this.densePrediction = new Linear({ inputs: features, outputs: 1, device, initializer })
  }

  /** The products with the first of each pair, float32 [rows, 512]. */
  first(x: Tensor): Tensor {
    return linear(x, this.#half(0), null, { outputDtype: 'float32' })
  }

  /** The products with the second of each pair, and the bias. */
  second(y: Tensor): Tensor {
    return linear(y, this.#half(1), this.dense.bias, { outputDtype: 'float32' })
  }

  #half(index: 0 | 1): Tensor {
    const width = this.dense.weight.shape[1] as number
    return narrow(this.dense.weight.value, 1, (index * width) / 2, width / 2)
  }

  /** Sums of both [..., 512] to logits [...]. */
  logits(sums: Tensor): Tensor {
    return reshape(this.densePrediction.forward(gelu(sums)), sums.shape.slice(0, -1))
  }
}
