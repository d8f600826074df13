/** Activation functions. In `linear` they run inside the product. */
import { VoltaicError } from '../runtime/index.js'
import { checkFloat, nodes, result } from './operands.js'
import { type Tensor, tensorValue } from './tensor.js'
import { newValue, produce } from './value.js'

/** `gelu` is exact (erf); `geluTanh` the tanh form that configurations call `gelu_new`. */
export type Activation = 'gelu' | 'geluTanh' | 'relu' | 'tanh' | 'sigmoid'

const kinds: Readonly<Record<Activation, number>> = { gelu: 0, geluTanh: 1, relu: 2, tanh: 3, sigmoid: 4 }

/** The kernel table's number of an activation. */
export function activationKind(op: string, activation: Activation): number {
  const kind = kinds[activation]
  if (kind === undefined) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `${op}: there is no activation '${activation}'; expected one of ${Object.keys(kinds).join(', ')}`,
    )
  }
  return kind
}

/** Applies an activation function element by element. */
export function activate(x: Tensor, activation: Activation): Tensor {
  const kind = activationKind('activate', activation)
  checkFloat(activation, 'x', x)
  const input = tensorValue(x)
  const output = newValue(input.device, input.dtype, input.shape)
  produce(output, 'activation_forward', [input.handle, output.handle], [kind])
  return result(activation, output, nodes(x), [input], (node, gradient) => {
    const toInput = newValue(input.device, input.dtype, input.shape)
    node.give(
      0,
      produce(toInput, 'activation_backward', [input.handle, gradient.handle, toInput.handle], [kind]),
    )
  })
}

/** x Φ(x), exact. */
export function gelu(x: Tensor): Tensor {
  return activate(x, 'gelu')
}

/** The tanh form of GELU. */
export function geluTanh(x: Tensor): Tensor {
  return activate(x, 'geluTanh')
}

/** max(x, 0) */
export function relu(x: Tensor): Tensor {
  return activate(x, 'relu')
}

/** Hyperbolic tangent. */
export function tanh(x: Tensor): Tensor {
  return activate(x, 'tanh')
}

/** 1 / (1 + exp(-x)) */
export function sigmoid(x: Tensor): Tensor {
  return activate(x, 'sigmoid')
}
