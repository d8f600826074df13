// Voltaic's side of bench:peers. Its only argument is the number of threads.
import { join } from 'node:path'
import {
  configOfSize,
  defineElectraConfig,
  deviceInfo,
  ElectraForPreTraining,
  loadTokenizer,
  loadVocabulary,
  scope,
  setThreads,
  synchronize,
  taskKind,
  version,
} from '../../dist/index.js'
import { epochBatches } from '../../dist/tasks/finetune-batches.js'
import { resolveFinetuneOptions } from '../../dist/tasks/finetune-options.js'
import { FinetuneTrainer } from '../../dist/tasks/finetune-trainer.js'
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

  /** Whole fine-tuning steps, ragged; a call is a pass over all batches. */
  async finetune({ config, rows, labels, precision, batchSize }) {
    const task = taskKind('sst-2').learn([])
    const model = new task.model(defineElectraConfig({ ...config, ...task.config }), {
      device,
      precision,
      seed: 1,
      // PyTorch's first values: the first losses are compared.
      initialization: 'huggingface',
    })
    const settings = resolveFinetuneOptions({ task: 'sst-2', model: '-', train: '-', output: '-' })
    const rates = { learningRate: 1e-6, layerwiseDecay: 0.8 }
    const trainer = new FinetuneTrainer(model, task, settings, rates, 1, 1e6)
    const features = rows.map((row, example) => ({
      example,
      inputIds: Int32Array.from(row),
      tokenTypeIds: new Int32Array(row.length),
      target: labels[example],
    }))
    const lengths = rows.map((row) => row.length)
    const losses = []
    let step = 0
    let epoch = 0
    const repeat = async (calls) => {
      const begin = performance.now()
      let before
      for (let i = 0; i < calls; i++, epoch++) {
        for (const batch of epochBatches(lengths, batchSize, 1, epoch)) {
          const now = trainer.queueStep(
            step++,
            batch.map((index) => features[index]),
          )
          const numbers = await before
          if (numbers) losses.push(numbers.loss)
          before = now
        }
      }
      losses.push((await before).loss)
      return (performance.now() - begin) / 1000 / calls
    }
    const batches = Math.ceil(rows.length / batchSize)
    return {
      repeat,
      about: () => ({ loss: losses.slice(0, batches).reduce((sum, loss) => sum + loss, 0) / batches }),
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
