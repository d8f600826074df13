/**
 * ONNX files: a graph of operators with its weights, as a ModelProto (onnx.proto of IR version 8, operator set 17). Weights are
 * inside, read when their turn comes and written as a stream; so a file holds less than 2 GiB, which is what readers take.
 */
import type { FileHandle } from 'node:fs/promises'
import { writeFileAtomically, writeFully } from '../runtime/atomic-file.js'
import { VoltaicError } from '../runtime/errors.js'
import { packageVersion } from '../version.js'
import { bytesField, floatField, integerField, lengthPrefix } from './protobuf.js'

/** IR version 8 came with operator set 17, the first with LayerNormalization. */
const irVersion = 8
export const onnxOperatorSet = 17

/** TensorProto.DataType and bytes an element. */
const elementTypes = {
  float32: { number: 1, bytes: 4 },
  int8: { number: 3, bytes: 1 },
  int64: { number: 7, bytes: 8 },
} as const

export type OnnxType = keyof typeof elementTypes

/** What `Cast` calls a type. */
export const onnxTypeNumber = (type: OnnxType): number => elementTypes[type].number

export interface OnnxTensor {
  readonly name: string
  readonly type: OnnxType
  readonly shape: readonly number[]
  /** The elements, row-major. */
  readonly read: () => ArrayBufferView | Promise<ArrayBufferView>
}

export interface OnnxNode {
  readonly op: string
  readonly inputs: readonly string[]
  readonly outputs: readonly string[]
  readonly attributes: OnnxAttributes
}

/** Whole numbers and lists of them; a number that is none is written `{ float: value }`. */
export type OnnxAttributes = Readonly<Record<string, number | readonly number[] | { readonly float: number }>>

/** An input or output of the graph; a size that varies has a name. */
export interface OnnxValue {
  readonly name: string
  readonly type: OnnxType
  readonly shape: readonly (number | string)[]
}

export interface OnnxGraph {
  readonly name: string
  readonly nodes: readonly OnnxNode[]
  readonly initializers: readonly OnnxTensor[]
  readonly inputs: readonly OnnxValue[]
  readonly outputs: readonly OnnxValue[]
}

// AttributeProto: 1 name, 2 f, 3 i, 8 ints, 20 type (1 FLOAT, 2 INT, 7 INTS).
function attributeField([name, value]: [string, OnnxAttributes[string]]): Buffer {
  const parts = [bytesField(1, name)]
  if (typeof value === 'number') parts.push(integerField(3, value), integerField(20, 2))
  else if ('float' in value) parts.push(floatField(2, value.float), integerField(20, 1))
  else parts.push(...value.map((each) => integerField(8, each)), integerField(20, 7))
  return bytesField(5, ...parts)
}

// NodeProto: 1 input, 2 output, 3 name, 4 op_type, 5 attribute.
function nodeField({ op, inputs, outputs, attributes }: OnnxNode): Buffer {
  return bytesField(
    1,
    ...inputs.map((name) => bytesField(1, name)),
    ...outputs.map((name) => bytesField(2, name)),
    bytesField(3, outputs[0] ?? op),
    bytesField(4, op),
    ...Object.entries(attributes).map(attributeField),
  )
}

// ValueInfoProto: 1 name, 2 TypeProto { 1 Tensor { 1 elem_type, 2 TensorShapeProto { 1 dim { 1 dim_value, 2 dim_param } } } }.
function valueField(field: number, { name, type, shape }: OnnxValue): Buffer {
  const sizes = shape.map((size) =>
    bytesField(1, typeof size === 'number' ? integerField(1, size) : bytesField(2, size)),
  )
  const tensor = bytesField(1, integerField(1, onnxTypeNumber(type)), bytesField(2, ...sizes))
  return bytesField(field, bytesField(1, name), bytesField(2, tensor))
}

/** A tensor's field of the graph: what stands before its elements, and how long they are. */
interface Placed {
  readonly tensor: OnnxTensor
  readonly before: Buffer
  readonly byteLength: number
}

// TensorProto: 1 dims, 2 data_type, 8 name, 9 raw_data.
function placed(tensor: OnnxTensor): Placed {
  const { name, type, shape } = tensor
  const byteLength = shape.reduce((product, size) => product * size, elementTypes[type].bytes)
  const head = Buffer.concat([
    ...shape.map((size) => integerField(1, size)),
    integerField(2, onnxTypeNumber(type)),
    bytesField(8, name),
    lengthPrefix(9, byteLength),
  ])
  return { tensor, byteLength, before: Buffer.concat([lengthPrefix(5, head.length + byteLength), head]) }
}

async function writeTensor(
  handle: FileHandle,
  { tensor, before, byteLength }: Placed,
  path: string,
): Promise<void> {
  const data = await tensor.read()
  if (data.byteLength !== byteLength) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `write ${path}: tensor ${tensor.name} has ${data.byteLength} bytes; shape [${tensor.shape.join(', ')}] of ${tensor.type} takes ${byteLength}`,
    )
  }
  await writeFully(handle, before)
  await writeFully(handle, new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
}

/** Protocol buffers end here. */
const largestFile = 2 ** 31 - 1

/**
 * Writes a graph as an ONNX file. Atomic: the old file stays until the new one is complete and synced.
 * @throws ERR_UNSUPPORTED when it would hold 2 GiB or more; ERR_ARGUMENT when a tensor does not fill its shape; ERR_IO
 */
export async function writeOnnx(path: string, graph: OnnxGraph): Promise<void> {
  const tensors = graph.initializers.map(placed)
  // GraphProto: 1 node, 2 name, 5 initializer, 11 input, 12 output.
  const rest = Buffer.concat([
    bytesField(2, graph.name),
    ...graph.inputs.map((value) => valueField(11, value)),
    ...graph.outputs.map((value) => valueField(12, value)),
    ...graph.nodes.map(nodeField),
  ])
  const graphLength = tensors.reduce((sum, each) => sum + each.before.length + each.byteLength, rest.length)
  // ModelProto: 1 ir_version, 2 producer_name, 3 producer_version, 7 graph, 8 opset_import { 2 version }.
  const head = Buffer.concat([
    integerField(1, irVersion),
    bytesField(2, 'voltaic'),
    bytesField(3, packageVersion),
    bytesField(8, integerField(2, onnxOperatorSet)),
    lengthPrefix(7, graphLength),
  ])
  if (head.length + graphLength > largestFile) {
    throw new VoltaicError(
      'ERR_UNSUPPORTED',
      `write ${path}: the model takes ${head.length + graphLength} bytes; an ONNX file with its weights inside holds less than 2 GiB`,
    )
  }
  await writeFileAtomically(path, async (handle) => {
    await writeFully(handle, Buffer.concat([head, rest]))
    for (const tensor of tensors) await writeTensor(handle, tensor, path)
  })
}
