// Matrix products at ELECTRA's training shapes: each layer's forward with its epilogue, its input's gradient, its weight's.
import { run } from '../../dist/runtime/index.js'
import { bytesOf } from '../scales.mjs'

// Numbers of the kernel table.
const none = 0
const bias = 1
const activation = 2
const activationGradient = 3

/** A product's name, m, n, k, which operands are transposed, epilogue, and whether c is fp32 and added to. */
function products({ tokens, masked, vocabulary, serving = [] }, { hidden, intermediate, embedding }) {
  const weights = { transposeA: 1, gradient: true }
  const logits = { transposeB: 1, float: true }
  return [
    ['queries, keys, values', tokens, 3 * hidden, hidden, { transposeB: 1, epilogue: bias }],
    ['projection', tokens, hidden, hidden, { transposeB: 1, epilogue: bias }],
    ['feed-forward up, GELU', tokens, intermediate, hidden, { transposeB: 1, epilogue: activation }],
    ['feed-forward down', tokens, hidden, intermediate, { transposeB: 1, epilogue: bias }],
    ['down, input gradient, GELU gradient', tokens, intermediate, hidden, { epilogue: activationGradient }],
    ['up, input gradient', tokens, hidden, intermediate, {}],
    ['projection, input gradient', tokens, hidden, hidden, {}],
    ['up, weight gradient', intermediate, hidden, tokens, weights],
    ['projection, weight gradient', hidden, hidden, tokens, weights],
    ['vocabulary, masked rows', masked, vocabulary, embedding, logits],
    ['vocabulary, input gradient', masked, embedding, vocabulary, {}],
    ['vocabulary, weight gradient', vocabulary, embedding, masked, weights],
    ...serving.map((rows) => ['serve, up', rows, intermediate, hidden, { transposeB: 1 }]),
  ]
}

export function* benchmarks(scale) {
  for (const dtype of scale.dtypes) {
    for (const model of scale.models) {
      for (const [what, m, n, k, options] of products(scale, model)) {
        const { transposeA = 0, transposeB = 0, epilogue = none, gradient = false, float = false } = options
        const resultType = gradient || float ? 'float32' : dtype
        const name = `${model.name} ${what} ${'NT'[transposeA]}${'NT'[transposeB]} ${m}x${n}x${k} ${dtype}`
        // Both operands and the result, which is also read where it is added to, and what an epilogue saves or reads.
        const results = (gradient ? 2 : 1) * bytesOf[resultType] * m * n
        const saves = epilogue === activation || epilogue === activationGradient
        yield {
          name,
          make(memory) {
            const a = memory.random(dtype, transposeA ? [k, m] : [m, k])
            const b = memory.random(dtype, transposeB ? [n, k] : [k, n], 0.02)
            const c = memory.tensor(resultType, [m, n])
            const saved = saves ? memory.random(dtype, [m, n]) : null
            const line = epilogue === none ? null : memory.random('float32', [n])
            const biases = epilogue === activationGradient ? [null, saved, line] : [line, saved, null]
            const beta = gradient ? 1 : 0
            const attributes = [m, n, k, transposeA, transposeB, 1, beta, epilogue, 0, 1, 0, 0, 0]
            return () => run('gemm', [a, b, ...biases, c], attributes)
          },
          work: {
            flops: 2 * m * n * k,
            bytes: bytesOf[dtype] * (m * k + n * k + (saves ? m * n : 0)) + results,
          },
          peer: { op: 'product', m, n, k, transposeA, transposeB, epilogue, dtype },
        }
      }
    }
  }
}
