// Elementwise ops with and without broadcasting, and casts.
import { run } from '../../dist/runtime/index.js'

export function* benchmarks({ plain: [rows, width] }) {
  const shape = [rows, width]
  const elements = rows * width
  const positive = (memory) => memory.tensor('float32', shape, 0.3)
  const unary = (op, value = (memory) => memory.random('float32', shape)) => [
    op,
    8 * elements,
    (memory) => {
      const [x, y] = [value(memory), memory.tensor('float32', shape)]
      return () => run(op, [x, y])
    },
  ]
  const sum = (name, other, bytes) => [
    name,
    bytes,
    (memory) => {
      const [x, y, z] = [memory.random('float32', shape), memory.random('float32', other), positive(memory)]
      return () => run('add', [x, y, z])
    },
  ]
  const all = [
    sum('add', shape, 12 * elements),
    sum('add a row', [width], 8 * elements),
    unary('absolute'),
    unary('exp'),
    unary('log', positive),
    [
      'cast to bf16',
      6 * elements,
      (memory) => {
        const [x, y] = [memory.random('float32', shape), memory.tensor('bfloat16', shape)]
        return () => run('cast', [x, y])
      },
    ],
  ]
  for (const [name, bytes, make] of all) {
    const peer = name === 'add' ? { op: 'add', shape, dtype: 'float32' } : undefined
    yield { name: `${name} ${rows}x${width} float32`, make, work: { bytes }, peer }
  }
}
