// Moving rows: gather, scatter-add, transposition, slices.
import { run } from '../../dist/runtime/index.js'

export function* benchmarks({ plain: [rows, width], masked, models, dtypes, tokens }) {
  const shape = [rows, width]
  const elements = rows * width
  const x = (memory) => memory.random('float32', shape)
  const scattered = (memory) => memory.ints(Array.from({ length: rows }, (_, i) => (i * 37) % rows))
  const make = {
    gather(memory) {
      const [from, index, y] = [x(memory), scattered(memory), memory.tensor('float32', shape)]
      return () => run('gather_rows', [from, index, y])
    },
    scatter(memory) {
      const [from, index, y] = [x(memory), scattered(memory), memory.tensor('float32', shape)]
      return () => run('scatter_add_rows', [from, index, y])
    },
    transpose(memory) {
      const [from, y] = [x(memory), memory.tensor('float32', [width, rows])]
      return () => run('permute', [from, y], [1, 0, 0, 0, 0, 0])
    },
    slice(memory) {
      const [from, y] = [x(memory), memory.tensor('float32', [rows, width / 2])]
      return () => run('slice', [from, y], [1, width / 4])
    },
  }
  for (const [name, method, bytes] of [
    ['gather rows', make.gather, 8],
    ['scatter-add rows', make.scatter, 12],
    ['transpose', make.transpose, 8],
    ['slice of columns', make.slice, 4],
  ])
    yield { name: `${name} ${rows}x${width} float32`, make: method, work: { bytes: bytes * elements } }

  // As the generator's head does: the masked positions of all tokens.
  const [{ name: model, hidden }] = models
  const dtype = dtypes.at(-1)
  yield {
    name: `gather masked rows ${model} ${masked} of ${tokens}x${hidden} ${dtype}`,
    make(memory) {
      const step = Math.floor(tokens / masked)
      const index = memory.ints(Array.from({ length: masked }, (_, i) => i * step))
      const [from, y] = [memory.random(dtype, [tokens, hidden]), memory.tensor(dtype, [masked, hidden])]
      return () => run('gather_rows', [from, index, y])
    },
    work: { bytes: 2 * masked * hidden * (dtype === 'float32' ? 4 : 2) },
    peer: { op: 'gather', tokens, rows: masked, width: hidden, dtype },
  }
}
