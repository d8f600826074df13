// What bench:peers compares: groups of contests. A group's sides are started for it, and stopped behind it.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { products } from './products.mjs'

const vocabulary = 30522

/** Sequences of random ids. */
const fullBatch = (sequences, length) =>
  Array.from({ length: sequences }, (_, row) =>
    Array.from({ length }, (_, i) => 1000 + (((row * length + i) * 7919) % (vocabulary - 1000))),
  )

const entrant = (side, precision, name, request) => ({
  side,
  precision,
  name,
  ours: side === 'voltaic',
  request: { ...request, precision },
})

const trained = (request) =>
  ['fp32', 'bf16'].flatMap((precision) => [
    entrant('voltaic', precision, `Voltaic ${precision}`, request),
    entrant('torch', precision, `PyTorch ${precision}`, request),
  ])

const served = (request, { torch = true } = {}) => [
  entrant('voltaic', 'fp32', 'Voltaic fp32', request),
  entrant('onnxruntime', 'fp32', 'onnxruntime fp32', request),
  entrant('onnxruntime', 'int8', 'onnxruntime int8', request),
  entrant('voltaic', 'bf16', 'Voltaic bf16', request),
  ...(torch
    ? ['fp32', 'bf16'].map((precision) => entrant('torch', precision, `PyTorch ${precision}`, request))
    : []),
]

function step(size, batchSize, sequenceLength, configs) {
  const request = { kind: 'step', size, batchSize, sequenceLength, ...configs }
  return {
    name: `pre-training step, ${size}, ${batchSize} x ${sequenceLength}`,
    metric: 'tokensPerSecond',
    work: { tokens: batchSize * sequenceLength },
    entrants: trained(request),
  }
}

function forward(size, batches, about, folder, configs, options) {
  const tokens = batches.flat(2).length / batches.length
  return {
    name: `discriminator, ${size}, ${about}`,
    metric: batches[0].length === 1 ? 'latency' : 'tokensPerSecond',
    work: { tokens },
    entrants: served({ kind: 'discriminator', folder, batches, ...configs }, options),
  }
}

/** Fine-tuning: a call is a pass over so many batches. */
const tunedBatch = 32
const tunedBatches = 8

/** Training sentences of SST-2, phrases of one word and more, spread over the file. */
function trainingSentences(data, count) {
  const text = gunzipSync(readFileSync(join(data, 'glue', 'SST-2', 'train.tsv.gz'))).toString()
  const lines = text.trimEnd().split('\n').slice(1)
  const stride = Math.floor(lines.length / count)
  return Array.from({ length: count }, (_, i) => lines[i * stride].split('\t'))
}

async function finetuning(size, count, { data, ask, scratch, configs }) {
  const examples = trainingSentences(data, count)
  const texts = examples.map(([text]) => text)
  const folder = join(scratch, 'tokenizer')
  const vocabulary = join(data, 'vocab', 'bert-uncased-vocab.txt')
  const rows = await ask({ do: 'tokenize', vocabulary, folder, texts })
  const tokens = rows.flat().length
  const { discriminator: config } = (await configs(size, tunedBatch, 128)).configs
  const labels = examples.map(([, label]) => Number(label))
  const request = { kind: 'finetune', size, config, rows, labels, batchSize: tunedBatch }
  return {
    name: `fine-tuning, ${size}, SST-2, batches of ${tunedBatch}, real tokens (${(tokens / count).toFixed(1)} an example)`,
    metric: 'tokensPerSecond',
    work: { tokens },
    entrants: trained(request),
  }
}

/** The first batches of SST-2's sentences in their order, and what is read of the English text. */
const raggedBatch = 64
const raggedBatches = 4
const textBytes = 1 << 21

function sentences(data) {
  const lines = readFileSync(join(data, 'glue', 'SST-2', 'dev.tsv'), 'utf8')
    .trimEnd()
    .split('\n')
    .slice(1)
  return lines.slice(0, raggedBatch * raggedBatches).map((line) => line.split('\t')[0])
}

function paragraphs(data) {
  const text = gunzipSync(readFileSync(join(data, 'corpus', 'wiki-en.txt.gz'))).toString('utf8', 0, textBytes)
  return text.split('\n').filter((line) => line !== '')
}

/**
 * Groups by name: { name, option, sizes?, contests(context) }. The context has `ask` (Voltaic's side), `folder(size)` (a model's folder
 * with its ONNX files), `data` (shared data, where there are any) and `quick`. `contests` throws a sentence where the group cannot be
 * held here.
 */
export const groups = [
  {
    name: 'training',
    option: 'train',
    async contests({ quick, configs }) {
      if (quick) return [step('tiny', 2, 16, await configs('tiny', 2, 16))]
      return [
        step('small', 32, 128, await configs('small', 32, 128)),
        step('base', 8, 128, await configs('base', 8, 128)),
      ]
    },
  },
  {
    name: 'fine-tuning',
    option: 'finetune',
    brief: true,
    async contests(context) {
      if (!context.data) throw new Error('no shared data here (VOLTAIC_SHARED_DATA names their folder)')
      if (context.quick) return [await finetuning('tiny', 2 * tunedBatch, context)]
      const count = tunedBatch * tunedBatches
      return [await finetuning('small', count, context), await finetuning('tiny', count, context)]
    },
  },
  {
    name: 'inference',
    option: 'infer',
    async contests({ quick, configs, folder }) {
      const shapes = quick
        ? [[2, 16]]
        : [
            [8, 128],
            [1, 128],
            [1, 32],
          ]
      const list = []
      for (const size of quick ? ['tiny'] : ['small', 'base']) {
        const [where, sizes] = [await folder(size), await configs(size, 8, 128)]
        for (const [sequences, length] of shapes) {
          const about = `${sequences} x ${length}`
          list.push(forward(size, [fullBatch(sequences, length)], about, where, sizes))
        }
      }
      return list
    },
  },
  {
    name: 'ragged batches',
    option: 'ragged',
    async contests({ quick, data, ask, folder, configs }) {
      if (!data) throw new Error('no shared data here (VOLTAIC_SHARED_DATA names their folder)')
      const size = quick ? 'tiny' : 'small'
      const where = await folder(size)
      const rows = await ask({
        do: 'tokenize',
        vocabulary: join(data, 'vocab', 'bert-uncased-vocab.txt'),
        folder: where,
        texts: sentences(data),
      })
      const batches = Array.from({ length: raggedBatches }, (_, i) =>
        rows.slice(i * raggedBatch, (i + 1) * raggedBatch),
      )
      const about = `SST-2 sentences, batches of ${raggedBatch}, real tokens`
      const sizes = await configs(size, 8, 128)
      return [forward(size, batches, about, where, sizes, { torch: false })]
    },
  },
  {
    name: 'matrix products',
    option: 'gemm',
    brief: true,
    async contests({ quick }) {
      const list = (await products()).map(({ name, flops, rows }) => ({
        name,
        metric: 'gflops',
        work: { flops },
        entrants: Object.entries(rows).flatMap(([dtype, row]) => {
          const precision = dtype === 'float32' ? 'fp32' : 'bf16'
          const request = { kind: 'product', ...row.peer, name: row.name }
          return [
            entrant('voltaic', precision, `Voltaic ${precision}`, request),
            entrant('torch', precision, `PyTorch ${precision}`, request),
          ]
        }),
      }))
      return quick ? list.slice(0, 1) : list
    },
  },
  {
    name: 'tokenizer',
    option: 'tokens',
    async contests({ quick, data, ask, scratch }) {
      if (!data) throw new Error('no shared data here (VOLTAIC_SHARED_DATA names their folder)')
      const texts = paragraphs(data).slice(0, quick ? 20 : undefined)
      const folder = join(scratch, 'tokenizer')
      await ask({
        do: 'tokenize',
        vocabulary: join(data, 'vocab', 'bert-uncased-vocab.txt'),
        folder,
        texts: ['.'],
      })
      const request = { kind: 'tokens', folder, texts }
      return [
        {
          name: 'WordPiece, English, ids of paragraphs',
          metric: 'megabytesPerSecond',
          work: { bytes: texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0) },
          entrants: [
            { ...entrant('voltaic', null, 'Voltaic', request), request },
            { ...entrant('tokenizers', null, '@huggingface/tokenizers', request), request },
          ],
        },
      ]
    },
  },
]

export function findSharedData(root) {
  return [process.env.VOLTAIC_SHARED_DATA, join(root, '..', 'shared', 'data')].find(
    (folder) => folder && existsSync(folder),
  )
}
