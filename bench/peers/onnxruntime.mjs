// onnxruntime-node's side of bench:peers, on the file that Voltaic exported. Its only argument is the number of threads.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { serve } from './serve.mjs'

/** Rows of ids padded to the longest of them. */
function padded(rows) {
  const width = Math.max(...rows.map((row) => row.length))
  const at = (value) => {
    const values = rows.flatMap((row) => Array.from({ length: width }, (_, i) => BigInt(value(row[i]))))
    return new Tensor('int64', BigInt64Array.from(values), [rows.length, width])
  }
  return {
    input_ids: at((id) => id ?? 0),
    attention_mask: at((id) => (id === undefined ? 0 : 1)),
    token_type_ids: at(() => 0),
  }
}

const makers = {
  async discriminator({ folder, precision, batches }) {
    const session = await InferenceSession.create(join(folder, `${precision}.onnx`), {
      intraOpNumThreads: Number(process.argv[2]),
      interOpNumThreads: 1,
      executionMode: 'sequential',
      graphOptimizationLevel: 'all',
      logSeverityLevel: 3,
    })
    const feeds = batches.map(padded)
    let count = 0
    const call = async () => (await session.run(feeds[count++ % feeds.length])).logits
    return {
      call,
      async about() {
        count = 0
        const { data, dims } = await call()
        return {
          logits: batches[0].flatMap((row, i) => [...data.subarray(i * dims[1], i * dims[1] + row.length)]),
        }
      },
      dispose: () => session.release(),
    }
  },
}

const manifest = createRequire(import.meta.url)
  .resolve('onnxruntime-node')
  .replace(/dist.*$/, 'package.json')
await serve(makers, {
  info: () => ({ name: 'onnxruntime-node', version: JSON.parse(readFileSync(manifest, 'utf8')).version }),
})
