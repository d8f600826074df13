/**
 * Damaged files: good ones of each format, with bytes changed, left out, put in or repeated. Whatever comes of it is read, or refused
 * with the code for damaged files; nothing else is thrown, nothing runs for long, and no tensor is larger than the file could hold.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { parseElectraConfig } from '../../dist/formats/electra-config.js'
import { readJsonFile } from '../../dist/formats/json-file.js'
import { readPytorchCheckpoint } from '../../dist/formats/pytorch-checkpoint.js'
import { readSafetensors, writeSafetensors } from '../../dist/formats/safetensors.js'
import type { TensorSource } from '../../dist/formats/tensor-source.js'
import { readTensorflowCheckpoint } from '../../dist/formats/tensorflow-checkpoint.js'
import { electraFromTensorflow } from '../../dist/formats/tensorflow-names.js'
import { parseOlderFiles } from '../../dist/text/older-files.js'
import { parseTokenizerConfig, parseTokenizerJson } from '../../dist/text/read-files.js'
import { survives } from '../helpers/damage.js'
import {
  pickleStateDict,
  type TensorToPickle,
  writeLegacyCheckpoint,
  zipEntries,
} from '../helpers/formats/pytorch.js'
import { type Variable, writeBundle, writeCheckpoint } from '../helpers/formats/tensorflow.js'
import { writeZip } from '../helpers/formats/zip.js'

function readAll(source: TensorSource, limit: number): void {
  try {
    for (const name of source.names) {
      const { byteLength } = source.info(name)
      if (byteLength > limit || source.bytes(name).byteLength !== byteLength)
        throw new Error(`${name}: ${byteLength} bytes`)
    }
  } finally {
    source.close()
  }
}

t.setTimeout(120_000)
const folder = t.testdir()
const path = join(folder, 'file')
const floats = (count: number): Uint8Array =>
  new Uint8Array(Float32Array.from({ length: count }, (_, i) => i).buffer)
const state: TensorToPickle[] = [
  { name: 'electra.embeddings.word_embeddings.weight', dtype: 'F32', shape: [3, 4], data: floats(12) },
  { name: 'b', dtype: 'F32', shape: [4, 2], strides: [1, 4], data: floats(8) },
]

t.test('PyTorch files', async () => {
  const fixture = (name: string): Buffer =>
    readFileSync(fileURLToPath(new URL(`../../test/fixtures/pytorch/${name}.bin`, import.meta.url)))
  for (const good of [fixture('zip'), fixture('legacy'), writeLegacyCheckpoint(state)]) {
    survives((damage) => {
      const bytes = damage(good)
      writeFileSync(path, bytes)
      readAll(readPytorchCheckpoint(path), bytes.length)
    }, 300)
  }
})

t.test('pickles in a whole archive', async () => {
  const [pickle, ...rest] = zipEntries(pickleStateDict(state), state)
  for (const deflate of [false, true]) {
    survives((damage) => {
      const entry = { ...pickle!, data: damage(Buffer.from(pickle!.data)), deflate }
      writeFileSync(path, writeZip([entry, ...rest]))
      readAll(readPytorchCheckpoint(path), 2000)
    }, 300)
  }
})

const variables: Variable[] = [
  { name: 'electra/embeddings/word_embeddings', shape: [3, 4], data: floats(12) },
  { name: 'electra/embeddings_project/kernel', shape: [4, 2], data: floats(8) },
  { name: 'electra/encoder/layer_0/attention/self/query/kernel', shape: [2, 2], data: floats(4) },
  { name: 'task_specific/sst/dense/bias', shape: [1], data: floats(1) },
  { name: 'task_specific/sst/dense/kernel', shape: [2, 1], data: floats(2) },
]

t.test('TensorFlow checkpoints', async () => {
  const prefix = join(folder, 'model.ckpt')
  const read = (): void =>
    readAll(electraFromTensorflow(readTensorflowCheckpoint(prefix), 'discriminator'), 10_000)
  writeCheckpoint(prefix, variables)
  const { index, data } = writeBundle(variables)
  survives((damage) => {
    writeFileSync(`${prefix}.index`, damage(index))
    read()
  }, 150)
  writeFileSync(`${prefix}.index`, index)
  survives((damage) => {
    writeFileSync(`${prefix}.data-00000-of-00001`, damage(data[0]!))
    read()
  }, 50)
  for (const snappy of [false, true]) {
    // With checksums that fit, so that the damage reaches what is behind them.
    survives((damage) => {
      writeCheckpoint(prefix, variables, { snappy, damage })
      read()
    }, 300)
  }
})

t.test('safetensors', async () => {
  await writeSafetensors(
    path,
    state.map(({ name, dtype, shape, data }) => ({ name, dtype, shape, data })),
  )
  const good = readFileSync(path)
  survives((damage) => {
    const bytes = damage(good)
    writeFileSync(path, bytes)
    readAll(readSafetensors(path), bytes.length)
  }, 300)
})

t.test('configurations and tokenizers', async () => {
  const config = {
    architectures: ['x'],
    hidden_size: 8,
    id2label: { 0: 'a', 1: 'b' },
    label2id: { a: 0, b: '1' },
    layer_norm_eps: '1e-12',
  }
  survives(
    (damage) => {
      writeFileSync(path, damage(Buffer.from(JSON.stringify(config))))
      parseElectraConfig(readJsonFile(path), path)
    },
    200,
    ['ERR_CONFIG'],
  )
  const tokenizer = {
    added_tokens: [{ id: 0, content: '[CLS]', special: true }],
    normalizer: { type: 'BertNormalizer', lowercase: true },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    post_processor: { type: 'BertProcessing', cls: ['[CLS]', 0], sep: ['[SEP]', 1] },
    model: { type: 'WordPiece', vocab: { '[CLS]': 0, '[SEP]': 1, a: 2 } },
  }
  survives(
    (damage) =>
      void parseTokenizerJson(damage(Buffer.from(JSON.stringify(tokenizer))).toString(), path).raw(),
    200,
    ['ERR_UNSUPPORTED'],
  )
  const settings = {
    do_lower_case: true,
    model_max_length: 512,
    cls_token: { content: '[CLS]' },
    added_tokens_decoder: { 0: { content: '[CLS]' } },
  }
  survives(
    (damage) => void parseTokenizerConfig(damage(Buffer.from(JSON.stringify(settings))).toString(), path),
    200,
  )
  const map = { cls_token: { content: '[CLS]' }, additional_special_tokens: ['[E1]', { content: '[E2]' }] }
  for (const file of ['special_tokens_map.json', 'added_tokens.json']) {
    const text = JSON.stringify(file === 'added_tokens.json' ? { '[E1]': 12, 'a b': 14 } : map)
    survives((damage) => {
      const damaged = { text: damage(Buffer.from(text)).toString(), file }
      const other = { text: undefined, file: 'other' }
      if (file === 'added_tokens.json') parseOlderFiles(other, damaged)
      else parseOlderFiles(damaged, other)
    }, 150)
  }
})
