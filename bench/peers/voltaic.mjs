// Voltaic's side of bench:peers. Its only argument is the number of threads.
import { join } from 'node:path'
import {
  configOfSize,
  deviceInfo,
  ElectraForPreTraining,
  loadTokenizer,
  loadVocabulary,
  scope,
  setThreads,
  synchronize,
  version,
} from '../../dist/index.js'
import { arena, device } from '../harness.mjs'
import { rowsOf } from '../rows.mjs'
import { makeTrainer, randomBatch } from '../steps.mjs'
import { productScale } from './products.mjs'
import { serve } from './serve.mjs'

setThreads(Number(process.argv[2]))

/** Rows of ids as the flat batch that kernels take. */
function flatBatch(rows) {
  const offsets = Int32Array.from({ length: rows.length + 1 })
  rows.forEach((row, i) => {
    offsets[i + 1] = offsets[i] + row.length
  })
  const ids = Int32Array.from(rows.flat())
  return {
    ids,
    types: new Int32Array(ids.length),
    positions: Int32Array.from(rows.flatMap((row) => [...row.keys()])),
    offsets,
    longest: Math.max(...rows.map((row) => row.length)),
  }
}

const makers = {
  /** Whole pre-training steps, each queued before the numbers of the one before are read, as in training. */
  async step({ size, precision, batchSize, sequenceLength }) {
    const { trainer, flopsPerStep } = makeTrainer({ size, precision, batchSize, sequenceLength })
    const batches = [0, 1, 2, 3].map((seed) => randomBatch(batchSize, sequenceLength, 30522, seed))
    let count = 0
    let firstLoss
    const repeat = async (calls) => {
      const begin = performance.now()
      let before
      for (let i = 0; i < calls; i++, count++) {
        const now = trainer.queueStep(1000 + count, [batches[count % batches.length]])
        await before
        before = now
      }
      const { loss } = await before
      firstLoss ??= loss
      return (performance.now() - begin) / 1000 / calls
    }
    return {
      repeat,
      about: () => ({ loss: firstLoss, flops: flopsPerStep }),
      dispose: () => trainer.dispose(),
    }
  },

  async discriminator({ folder, precision, batches }) {
    const model = await ElectraForPreTraining.fromPretrained(folder, { device: 'cpu', precision })
    const flat = batches.map(flatBatch)
    let count = 0
    const call = () => scope(() => model.forward(flat[count++ % flat.length]).logits.data())
    return {
      call,
      async about() {
        count = 0
        return { logits: [...(await call())] }
      },
      dispose: () => model.dispose(),
    }
  },

  async product({ name }) {
    const row = (await rowsOf('gemm', productScale)).find((entry) => entry.name === name)
    const memory = arena()
    const queue = row.make(memory)
    const repeat = async (calls) => {
      queue()
      await synchronize(device)
      const begin = performance.now()
      for (let i = 0; i < calls; i++) queue()
      await synchronize(device)
      return (performance.now() - begin) / 1000 / calls
    }
    return { repeat, dispose: () => memory.free() }
  },

  async tokens({ folder, texts }) {
    const tokenizer = await loadTokenizer(folder)
    let tokens
    const call = () => {
      tokens = tokenizer(texts).inputIds.reduce((sum, ids) => sum + ids.length, 0)
    }
    return { call, about: () => ({ tokens }) }
  },
}

/** What the controller asks for before anything is timed. */
const others = {
  info: () => ({ ...deviceInfo(device), name: 'Voltaic', version }),

  /** A model with first values as a folder and as ONNX files. */
  async export({ size, folder }) {
    const model = new ElectraForPreTraining(configOfSize(size, { vocabSize: 30522 }), { seed: 1 }).eval()
    await model.savePretrained(folder)
    await model.saveOnnx(join(folder, 'fp32.onnx'))
    await model.saveOnnx(join(folder, 'int8.onnx'), { quantize: 'int8' })
    model.dispose()
    return {}
  },

  /** Texts as rows of ids; the tokenizer is saved to the folder on the way. */
  async tokenize({ vocabulary, folder, texts }) {
    const tokenizer = await loadVocabulary(vocabulary)
    await tokenizer.save(folder)
    return tokenizer(texts, { truncation: true, maxLength: 128 }).inputIds.map((ids) => [...ids])
  },
}

await serve(makers, others)
