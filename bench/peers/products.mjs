// Which matrix products bench:peers compares: the rows of families/gemm.mjs for both models, at 4096 tokens.
import { rowsOf } from '../rows.mjs'
import { scales } from '../scales.mjs'

export const productScale = { ...scales.cpu, models: scales.gpu.models }

/** Shapes by name; each has a row for each dtype. */
export async function products() {
  const shapes = new Map()
  for (const { name, work, peer } of await rowsOf('gemm', productScale)) {
    const shape = name.replace(` ${peer.dtype}`, '')
    if (!shapes.has(shape)) shapes.set(shape, { name: shape, flops: work.flops, rows: {} })
    shapes.get(shape).rows[peer.dtype] = { name, peer }
  }
  return [...shapes.values()]
}
