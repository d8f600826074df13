/** `feature-extraction`: the last layer's hidden states, a vector a token or one a text. */
import { ElectraModel, type ElectraPreTrainedModel } from '../electra/index.js'
import { FeatureTensor } from './feature-tensor.js'
import { checkOptionNames, nameOption, textInput } from './options.js'
import { hiddenStates } from './outputs.js'
import type { PipelineBase, Session, Submit } from './session.js'
import {
  bestPlaces,
  type TextWindow,
  textWindows,
  tokensOf,
  type WindowOptions,
  windowOptionNames,
} from './windows.js'

/** `none`: each token's vector. `mean`: the mean of all tokens', special ones included. `cls`: the first token's. */
export type Pooling = 'none' | 'mean' | 'cls'

export interface FeatureExtractionPipelineOptions extends WindowOptions {
  /** Default 'none'. */
  readonly pooling?: Pooling | undefined
  /** Scale each vector to length 1. Default false. */
  readonly normalize?: boolean | undefined
}

type Pooled = FeatureExtractionPipelineOptions & { readonly pooling: 'mean' | 'cls' }

export interface FeatureExtractionPipeline extends PipelineBase {
  /** [1, tokens, hiddenSize]; pooled [1, hiddenSize]. */
  (text: string, options?: FeatureExtractionPipelineOptions): Promise<FeatureTensor>
  /** [texts, hiddenSize]. */
  (texts: readonly string[], options: Pooled): Promise<FeatureTensor>
  /** Not pooled, a tensor a text, each with its own number of tokens; pooled, one tensor. */
  (
    texts: readonly string[],
    options?: FeatureExtractionPipelineOptions,
  ): Promise<FeatureTensor | FeatureTensor[]>
}

/** The part of any model that gives hidden states. */
export function bodyOf(model: ElectraPreTrainedModel): ElectraModel {
  if (model instanceof ElectraModel) return model
  return (model as ElectraPreTrainedModel & { readonly electra: ElectraModel }).electra
}

/** Adds `count` vectors of `from`, beginning with the vector at `first`, to `sum`. */
function addVectors(sum: Float64Array, from: Float32Array, first: number, count: number): void {
  const width = sum.length
  for (let row = first; row < first + count; row++) {
    for (let i = 0; i < width; i++) sum[i] = (sum[i] as number) + (from[row * width + i] as number)
  }
}

/** A text's vector: of its windows the mean, each weighted with its tokens. */
function pooled(
  windows: readonly TextWindow[],
  states: readonly Float32Array[],
  width: number,
  pooling: 'mean' | 'cls',
): Float32Array {
  const total = new Float64Array(width)
  let tokens = 0
  windows.forEach(({ inputIds: { length } }, window) => {
    const sum = new Float64Array(width)
    addVectors(sum, states[window] as Float32Array, 0, pooling === 'mean' ? length : 1)
    const weight = pooling === 'mean' ? 1 : length
    for (let i = 0; i < width; i++) total[i] = (total[i] as number) + weight * (sum[i] as number)
    tokens += length
  })
  return Float32Array.from(total, (sum) => sum / tokens)
}

/** Every token's vector once: the special tokens before from the first window, each other where it has most context. */
function unpooled(
  windows: readonly TextWindow[],
  states: readonly Float32Array[],
  width: number,
): Float32Array {
  const last = windows.length - 1
  const { first, end, begin } = windows[last] as TextWindow
  const after = (windows[last] as TextWindow).inputIds.length - (end - begin) - first
  const vectors = (window: number, from: number, count: number): Float32Array =>
    (states[window] as Float32Array).subarray(from * width, (from + count) * width)
  const places = bestPlaces(windows)
  const result = new Float32Array((first + places.length + after) * width)
  result.set(vectors(0, 0, first))
  places.forEach(({ window, place }, token) => {
    result.set(vectors(window, place, 1), (first + token) * width)
  })
  result.set(vectors(last, first + end - begin, after), (first + places.length) * width)
  return result
}

/** Scales each vector to length 1; one of zeros stays. */
export function normalizeVectors(data: Float32Array, width: number): void {
  for (let start = 0; start < data.length; start += width) {
    const vector = data.subarray(start, start + width)
    const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0))
    if (length > 0) for (let i = 0; i < width; i++) vector[i] = (vector[i] as number) / length
  }
}

/** The vectors of a text: one when pooled. */
export async function embed(
  session: Session,
  submit: Submit<Float32Array>,
  text: string,
  { pooling = 'none', normalize = false, ...options }: FeatureExtractionPipelineOptions,
): Promise<Float32Array> {
  const width = session.model.config.hiddenSize
  const tokens = tokensOf(session.tokenizer, textInput(session.task, 'the text', text))
  const windows = textWindows(session, tokens, options)
  const states = await submit(windows)
  const data = pooling === 'none' ? unpooled(windows, states, width) : pooled(windows, states, width, pooling)
  if (normalize) normalizeVectors(data, width)
  return data
}

export function createFeatureExtraction(session: Session): FeatureExtractionPipeline {
  const { task, model } = session
  const width = model.config.hiddenSize
  const submit = session.gathered(hiddenStates(bodyOf(model)))

  async function extract(
    inputs: string | readonly string[],
    options: FeatureExtractionPipelineOptions = {},
  ): Promise<FeatureTensor | FeatureTensor[]> {
    checkOptionNames(task, options, ['pooling', 'normalize', ...windowOptionNames])
    const pooling = nameOption(task, 'pooling', options.pooling, ['none', 'mean', 'cls'], 'none')
    const texts = typeof inputs === 'string' ? [inputs] : inputs
    const vectors = await session.map(texts, (text) => embed(session, submit, text, options))
    if (pooling === 'none') {
      const tensors = vectors.map((data) => new FeatureTensor(data, [1, data.length / width, width]))
      return typeof inputs === 'string' ? (tensors[0] as FeatureTensor) : tensors
    }
    const data = new Float32Array(vectors.length * width)
    vectors.forEach((vector, index) => {
      data.set(vector, index * width)
    })
    return new FeatureTensor(data, [vectors.length, width])
  }
  return session.pipeline(extract) as FeatureExtractionPipeline
}
