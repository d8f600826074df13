/**
 * The heads of one linear layer that the original code puts on a discriminator when it fine-tunes on classification, regression or
 * chunking: `task_specific/TASK/dense` with kernel [hidden, classes] and bias [classes].
 *
 * Chunking's is today's head of token classification. The others have no class of their own today: Hugging Face's
 * ElectraForSequenceClassification has a layer with GELU between. But GELU(x) - GELU(-x) = x, for GELU(x) = x Φ(x) and
 * Φ(x) + Φ(-x) = 1. So the same logits come out of that class when its first layer computes each class's logit and its negative and
 * its second takes the difference of their GELUs; the other units of the first layer are 0. In float32 they agree but for rounding.
 */
import type { ElectraConfig } from './electra-config.js'
import type { SourceTensor, TensorSource } from './tensor-source.js'

export interface LinearHead {
  readonly task: string
  /** Its variables. */
  readonly variables: readonly [kernel: string, bias: string]
  readonly tensors: ReadonlyMap<string, SourceTensor>
  /** What the configuration says of it. */
  readonly config: Partial<ElectraConfig>
}

/** Labels of the original's tasks, in its order; those of others are numbers. */
const labelsOf: Readonly<Record<string, readonly string[]>> = {
  cola: ['0', '1'],
  sst: ['0', '1'],
  mrpc: ['0', '1'],
  qqp: ['0', '1'],
  mnli: ['contradiction', 'entailment', 'neutral'],
  qnli: ['entailment', 'not_entailment'],
  rte: ['entailment', 'not_entailment'],
}

/** The only task of the original code that tags words. */
const taggingTask = 'chunk'

/** A square matrix of the body. */
const ofBody = 'electra/encoder/layer_0/attention/self/query/kernel'

function float32Tensor(shape: readonly number[], fill: (values: Float32Array) => void): SourceTensor {
  const size = shape.reduce((product, length) => product * length, 1)
  return {
    dtype: 'F32',
    shape,
    byteLength: 4 * size,
    bytes() {
      const values = new Float32Array(size)
      fill(values)
      return new Uint8Array(values.buffer)
    },
  }
}

interface Layer {
  readonly hidden: number
  readonly classes: number
  readonly kernel: () => Float32Array
  readonly bias: () => Float32Array
}

/** Row c of a [classes, hidden] matrix is column c of the kernel, times `sign`. */
function copyColumns({ hidden, classes, kernel }: Layer, to: Float32Array, sign: 1 | -1): void {
  const from = kernel()
  for (let row = 0; row < classes; row++) {
    for (let column = 0; column < hidden; column++) {
      to[row * hidden + column] = sign * (from[column * classes + row] as number)
    }
  }
}

function taggingHead(layer: Layer): Map<string, SourceTensor> {
  const { hidden, classes, bias } = layer
  return new Map([
    ['classifier.weight', float32Tensor([classes, hidden], (to) => copyColumns(layer, to, 1))],
    ['classifier.bias', float32Tensor([classes], (to) => to.set(bias()))],
  ])
}

function classificationHead(layer: Layer): Map<string, SourceTensor> {
  const { hidden, classes, bias } = layer
  const differences = (to: Float32Array): void => {
    for (let row = 0; row < classes; row++) {
      to[row * hidden + row] = 1
      to[row * hidden + classes + row] = -1
    }
  }
  return new Map([
    [
      'classifier.dense.weight',
      float32Tensor([hidden, hidden], (to) => {
        copyColumns(layer, to, 1)
        copyColumns(layer, to.subarray(classes * hidden), -1)
      }),
    ],
    [
      'classifier.dense.bias',
      float32Tensor([hidden], (to) => {
        to.set(bias())
        to.set(
          bias().map((value) => -value),
          classes,
        )
      }),
    ],
    ['classifier.out_proj.weight', float32Tensor([classes, hidden], differences)],
    ['classifier.out_proj.bias', float32Tensor([classes], () => {})],
  ])
}

function configOf(task: string, classes: number): Partial<ElectraConfig> {
  const known = Object.hasOwn(labelsOf, task) ? labelsOf[task] : undefined
  const labels = known?.length === classes ? { id2label: { ...known } } : { numLabels: classes }
  if (task === taggingTask) return { architectures: ['ElectraForTokenClassification'], ...labels }
  const problemType = classes === 1 ? 'regression' : 'single_label_classification'
  return { architectures: ['ElectraForSequenceClassification'], problemType, ...labels }
}

/** The head, where the checkpoint was fine-tuned on one such task and no other. */
export function findLinearHead(source: TensorSource): LinearHead | undefined {
  const variables = source.names.filter(
    (name) => name.startsWith('task_specific/') && !/\/adam_[mv]$/.test(name),
  )
  const task = variables[0]?.split('/')[1] ?? ''
  const kernel = `task_specific/${task}/dense/kernel`
  const bias = `task_specific/${task}/dense/bias`
  if (variables.length !== 2 || !source.has(kernel) || !source.has(bias)) return undefined
  const [ofKernel, ofBias] = [source.info(kernel), source.info(bias)]
  const [hidden = 0, classes = 0] = ofKernel.shape
  // The body's width: the class's first layer is as wide, and a file must not ask for more memory than it has weights.
  const [width, height] = source.has(ofBody) ? source.info(ofBody).shape : []
  const fits = ofKernel.shape.length === 2 && ofBias.shape.length === 1 && ofBias.shape[0] === classes
  const tagging = task === taggingTask
  if (!fits || hidden !== width || hidden !== height || classes < 1 || (!tagging && 2 * classes > hidden))
    return undefined
  if (ofKernel.dtype !== 'F32' || ofBias.dtype !== 'F32') return undefined
  const layer: Layer = {
    hidden,
    classes,
    kernel: () => source.float32(kernel),
    bias: () => source.float32(bias),
  }
  return {
    task,
    variables: [kernel, bias],
    tensors: tagging ? taggingHead(layer) : classificationHead(layer),
    config: configOf(task, classes),
  }
}
