/** A model folder's tensors as the variables that the original code saves, for tests: names, [in, out] kernels, optimizer slots. */
import type { TensorSource } from '../../../dist/formats/tensor-source.js'
import type { Variable } from './tensorflow.js'

const heads: [pattern: RegExp, variable: string][] = [
  [/^discriminator_predictions\.dense_prediction\./, 'discriminator_predictions/dense_1/'],
  [/^discriminator_predictions\.dense\./, 'discriminator_predictions/dense/'],
  [/^generator_predictions\.dense\./, 'generator_predictions/dense/'],
  [/^generator_predictions\.LayerNorm\./, 'generator_predictions/LayerNorm/'],
  [/^generator_lm_head\.bias$/, 'generator_predictions/output_bias'],
]

function variableName(name: string, scope: string): string {
  for (const [pattern, variable] of heads) {
    if (!pattern.test(name)) continue
    const rest = name.replace(pattern, '')
    const last = pattern.source.includes('LayerNorm')
      ? { weight: 'gamma', bias: 'beta' }[rest]
      : { weight: 'kernel', bias: 'bias' }[rest]
    return variable + (last ?? '')
  }
  const path = name
    .replace(/^electra\./, `${name.startsWith('electra.embeddings.') ? 'electra' : scope}.`)
    .replace(/encoder\.layer\.(\d+)/, 'encoder.layer_$1')
    .replace(/LayerNorm\.weight$/, 'LayerNorm.gamma')
    .replace(/LayerNorm\.bias$/, 'LayerNorm.beta')
    .replace(/_embeddings\.weight$/, '_embeddings')
    .replace(/\.weight$/, '.kernel')
  return path.replaceAll('.', '/')
}

function turned(data: Float32Array, rows: number, columns: number): Float32Array {
  return Float32Array.from(data, (_, i) => data[(i % rows) * columns + Math.floor(i / rows)]!)
}

/** @param scope `electra` for a discriminator, `generator` for a generator with the discriminator's embedding tables */
export function originalVariables(source: TensorSource, scope: 'electra' | 'generator'): Variable[] {
  const variables = source.names.flatMap((name): Variable[] => {
    const { shape } = source.info(name)
    const given = source.float32(name)
    const variable = variableName(name, scope)
    const isKernel = variable.endsWith('/kernel')
    const [rows = 0, columns = 0] = shape
    const data = new Uint8Array((isKernel ? turned(given, rows, columns) : given.slice()).buffer)
    const slot = { data, shape: isKernel ? [columns, rows] : shape }
    return [
      { name: variable, ...slot },
      { name: `${variable}/adam_m`, ...slot },
      { name: `${variable}/adam_v`, ...slot },
    ]
  })
  return [...variables, { name: 'global_step', dtype: 9, shape: [], data: Buffer.alloc(8) }]
}
