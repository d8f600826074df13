// LayerNorm, and dropout + residual + LayerNorm with and without dropout.
import { run } from '../../dist/runtime/index.js'
import { bytesOf, label } from '../scales.mjs'

function* plain(model, shape, dtype, bytes) {
  const [rows, width] = shape
  const column = (memory) => memory.tensor('float32', [rows], 1)
  const line = (memory) => memory.random('float32', [width])
  yield {
    name: `LayerNorm forward ${label(model, shape, dtype)}`,
    make(memory) {
      const inputs = [memory.random(dtype, shape), line(memory), line(memory)]
      const outputs = [memory.tensor(dtype, shape), column(memory), column(memory)]
      return () => run('layer_norm_forward', [...inputs, ...outputs], [1e-12])
    },
    work: { bytes: 2 * bytes },
    peer: { op: 'layer_norm', shape, dtype },
  }
  yield {
    name: `LayerNorm backward ${label(model, shape, dtype)}`,
    make(memory) {
      const [dy, x] = [0, 1].map(() => memory.random(dtype, shape))
      const inputs = [dy, x, column(memory), column(memory), line(memory)]
      const outputs = [memory.tensor(dtype, shape), line(memory), line(memory)]
      return () => run('layer_norm_backward', [...inputs, ...outputs])
    },
    work: { bytes: 3 * bytes },
    peer: { op: 'layer_norm', backward: true, shape, dtype },
  }
}

function* fused(model, shape, dtype, bytes, probability) {
  const [rows, width] = shape
  const column = (memory) => memory.tensor('float32', [rows], 1)
  const line = (memory) => memory.random('float32', [width])
  const peer = { op: 'dropout_residual_layer_norm', shape, dtype, probability }
  yield {
    name: `dropout ${probability} + residual + LayerNorm forward ${label(model, shape, dtype)}`,
    make(memory) {
      const [x, residual] = [0, 1].map(() => memory.random(dtype, shape))
      const [sum, y] = [0, 1].map(() => memory.tensor(dtype, shape))
      const inputs = [x, residual, line(memory), line(memory), memory.ints([1, 0, 1, 0])]
      const outputs = [sum, y, column(memory), column(memory)]
      return () =>
        run('dropout_residual_layer_norm_forward', [...inputs, ...outputs], [1e-12, probability, 3])
    },
    work: { bytes: 4 * bytes },
    peer,
  }
  yield {
    name: `dropout ${probability} + residual + LayerNorm backward ${label(model, shape, dtype)}`,
    make(memory) {
      const [dy, sum] = [0, 1].map(() => memory.random(dtype, shape))
      const inputs = [dy, sum, column(memory), column(memory), line(memory), memory.ints([1, 0, 1, 0])]
      const outputs = [0, 1].map(() => memory.tensor(dtype, shape)).concat(line(memory), line(memory))
      return () => run('dropout_residual_layer_norm_backward', [...inputs, ...outputs], [probability, 3])
    },
    work: { bytes: 4 * bytes },
    peer: { ...peer, backward: true },
  }
}

export function* benchmarks({ tokens, models, dtypes }) {
  for (const model of models) {
    for (const dtype of dtypes) {
      const shape = [tokens, model.hidden]
      const bytes = bytesOf[dtype] * tokens * model.hidden
      yield* plain(model, shape, dtype, bytes)
      for (const probability of [0, 0.1]) yield* fused(model, shape, dtype, bytes, probability)
    }
  }
}
