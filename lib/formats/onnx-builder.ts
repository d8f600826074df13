/**
 * Builds an ONNX graph op by op: each function appends a node and gives the name of its output. Layers take their weights by the
 * names they have in model files; weights are laid out for ONNX (transposed, on request quantized) when they are written.
 *
 * int8 (dynamic quantization, onnxruntime's own scheme): a product of activations with a weight becomes
 *   DynamicQuantizeLinear(x) → MatMulInteger(·, int8 weight) → Cast · (scale of x · scale of the weight's column)
 * with the weight's columns scaled so that the largest of each is 127.
 */
import type { ActivationName } from './electra-config.js'
import {
  type OnnxAttributes,
  type OnnxGraph,
  type OnnxNode,
  type OnnxTensor,
  type OnnxType,
  type OnnxValue,
  onnxTypeNumber,
} from './onnx.js'

/** A model's weights, under their names in files. */
export interface OnnxWeights {
  shape(name: string): readonly number[]
  read(name: string): Float32Array | Promise<Float32Array>
}

export interface OnnxBuilderOptions {
  readonly quantize: 'int8' | null
}

/** A value of the graph, by its name. */
type Value = string

function transposed(values: Float32Array, rows: number, columns: number): Float32Array {
  const result = new Float32Array(values.length)
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      result[column * rows + row] = values[row * columns + column] as number
    }
  }
  return result
}

/** For each row of a weight [outputs, inputs] its largest absolute value / 127; 1 where all are 0. */
function rowScales(values: Float32Array, rows: number, columns: number): Float32Array {
  return Float32Array.from({ length: rows }, (_, row) => {
    let largest = 0
    for (let i = row * columns; i < (row + 1) * columns; i++) {
      largest = Math.max(largest, Math.abs(values[i] as number))
    }
    return largest === 0 ? 1 : largest / 127
  })
}

/** A weight [outputs, inputs] as int8 [inputs, outputs]. */
function quantizedTransposed(values: Float32Array, rows: number, columns: number): Int8Array {
  const scales = rowScales(values, rows, columns)
  const result = new Int8Array(values.length)
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const scaled = Math.round((values[row * columns + column] as number) / (scales[row] as number))
      result[column * rows + row] = Math.max(-127, Math.min(127, scaled))
    }
  }
  return result
}

export class OnnxBuilder {
  readonly #weights: OnnxWeights
  readonly #options: OnnxBuilderOptions
  readonly #nodes: OnnxNode[] = []
  readonly #initializers = new Map<string, OnnxTensor>()
  readonly #quantized = new Map<Value, readonly [values: Value, scale: Value, zero: Value]>()
  #count = 0

  constructor(weights: OnnxWeights, options: OnnxBuilderOptions) {
    this.#weights = weights
    this.#options = options
  }

  #fresh(op: string): Value {
    this.#count += 1
    return `${op}_${this.#count}`
  }

  #initializer(tensor: OnnxTensor): Value {
    if (!this.#initializers.has(tensor.name)) this.#initializers.set(tensor.name, tensor)
    return tensor.name
  }

  /** A node with one output, which is called `output` or anything. */
  op(
    op: string,
    inputs: readonly Value[],
    attributes: OnnxAttributes = {},
    output: Value = this.#fresh(op),
  ): Value {
    this.#nodes.push({ op, inputs, outputs: [output], attributes })
    return output
  }

  /** `parts` equal parts of x along an axis. */
  split(x: Value, parts: number, axis: number): Value[] {
    const outputs = Array.from({ length: parts }, () => this.#fresh('Split'))
    this.#nodes.push({ op: 'Split', inputs: [x], outputs, attributes: { axis } })
    return outputs
  }

  scalar(value: number): Value {
    const name = `scalar ${value}`
    return this.#initializer({ name, type: 'float32', shape: [], read: () => Float32Array.of(value) })
  }

  /** A list of whole numbers, such as a shape. */
  integers(...values: number[]): Value {
    const read = (): BigInt64Array => BigInt64Array.from(values, BigInt)
    return this.#initializer({
      name: `integers ${values.join(' ')}`,
      type: 'int64',
      shape: [values.length],
      read,
    })
  }

  /** A weight as the file has it. */
  weight(name: string): Value {
    const read = (): Float32Array | Promise<Float32Array> => this.#weights.read(name)
    return this.#initializer({ name, type: 'float32', shape: this.#weights.shape(name), read })
  }

  /** The sizes of x from axis `start` to below `end`, an int64 list. */
  sizes(x: Value, start: number, end: number): Value {
    return this.op('Shape', [x], { start, end })
  }

  cast(x: Value, type: OnnxType): Value {
    return this.op('Cast', [x], { to: onnxTypeNumber(type) })
  }

  /** x · weightᵀ of a weight [outputs, inputs]. */
  product(x: Value, weight: string, output?: string): Value {
    const { quantize } = this.#options
    if (quantize === 'int8') return this.#integerProduct(x, weight, output)
    return this.op('MatMul', [x, this.#transposedWeight(weight)], {}, output)
  }

  #transposedWeight(weight: string): Value {
    // A table that the graph reads elsewhere (the words', for the vocabulary's logits) stands in the file once.
    if (this.#initializers.has(weight)) return this.op('Transpose', [weight], { perm: [1, 0] })
    const [rows, columns] = this.#weights.shape(weight) as [number, number]
    return this.#initializer({
      name: `${weight} transposed`,
      type: 'float32',
      shape: [columns, rows],
      read: async () => transposed(await this.#weights.read(weight), rows, columns),
    })
  }

  #integerProduct(x: Value, weight: string, output?: string): Value {
    const [rows, columns] = this.#weights.shape(weight) as [number, number]
    const read = (): Float32Array | Promise<Float32Array> => this.#weights.read(weight)
    const values = this.#initializer({
      name: `${weight} int8`,
      type: 'int8',
      shape: [columns, rows],
      read: async () => quantizedTransposed(await read(), rows, columns),
    })
    const scales = this.#initializer({
      name: `${weight} scale`,
      type: 'float32',
      shape: [rows],
      read: async () => rowScales(await read(), rows, columns),
    })
    const zeros = this.#initializer({
      name: `int8 zeros ${rows}`,
      type: 'int8',
      shape: [rows],
      read: () => new Int8Array(rows),
    })
    const [quantized, scale, zero] = this.#quantize(x)
    const sums = this.op('MatMulInteger', [quantized, values, zero, zeros])
    const both = this.op('Mul', [scale, scales])
    return this.op('Mul', [this.cast(sums, 'float32'), both], {}, output)
  }

  #quantize(x: Value): readonly [values: Value, scale: Value, zero: Value] {
    const made = this.#quantized.get(x)
    if (made !== undefined) return made
    const outputs = [this.#fresh('quantized'), this.#fresh('scale'), this.#fresh('zero')] as const
    this.#nodes.push({ op: 'DynamicQuantizeLinear', inputs: [x], outputs, attributes: {} })
    this.#quantized.set(x, outputs)
    return outputs
  }

  /** x · weightᵀ + bias of the layer with that name. */
  linear(x: Value, name: string, output?: string): Value {
    return this.op('Add', [this.product(x, `${name}.weight`), this.weight(`${name}.bias`)], {}, output)
  }

  layerNorm(x: Value, name: string, epsilon: number): Value {
    const inputs = [x, this.weight(`${name}.weight`), this.weight(`${name}.bias`)]
    return this.op('LayerNormalization', inputs, { axis: -1, epsilon: { float: epsilon } })
  }

  activation(x: Value, name: ActivationName | null): Value {
    switch (name) {
      case null:
        return x
      case 'gelu': {
        // x (1 + erf(x / √2)) / 2, in the order that onnxruntime knows and fuses.
        const erf = this.op('Erf', [this.op('Div', [x, this.scalar(Math.SQRT2)])])
        return this.op('Mul', [this.op('Mul', [x, this.op('Add', [erf, this.scalar(1)])]), this.scalar(0.5)])
      }
      case 'gelu_new':
      case 'gelu_pytorch_tanh': {
        // x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2
        const cube = this.op('Mul', [this.op('Mul', [x, x]), x])
        const inner = this.op('Add', [x, this.op('Mul', [cube, this.scalar(0.044715)])])
        const tanh = this.op('Tanh', [this.op('Mul', [inner, this.scalar(Math.sqrt(2 / Math.PI))])])
        return this.op('Mul', [this.op('Mul', [x, this.op('Add', [tanh, this.scalar(1)])]), this.scalar(0.5)])
      }
      case 'relu':
        return this.op('Relu', [x])
      case 'tanh':
        return this.op('Tanh', [x])
      case 'sigmoid':
        return this.op('Sigmoid', [x])
    }
  }

  graph(name: string, inputs: readonly OnnxValue[], outputs: readonly OnnxValue[]): OnnxGraph {
    return { name, inputs, outputs, nodes: this.#nodes, initializers: [...this.#initializers.values()] }
  }
}
