import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { defineElectraConfig, ElectraForPreTraining, readModelFolder } from 'voltaic'
import { startHub } from '../helpers/formats/hub-server.js'
import { originalVariables } from '../helpers/formats/original-names.js'
import { writeZipCheckpoint } from '../helpers/formats/pytorch.js'
import { writeCheckpoint } from '../helpers/formats/tensorflow.js'
import { voltaic } from '../helpers/training.js'

t.setTimeout(120_000)

t.test('convert', async (t) => {
  const parent = t.testdir({ tf: { 'vocab.txt': '[PAD]\n' } })
  const config = defineElectraConfig({
    ...{ vocabSize: 5, embeddingSize: 4, hiddenSize: 64, numAttentionHeads: 1 },
    ...{ numHiddenLayers: 1, intermediateSize: 8, maxPositionEmbeddings: 6 },
  })
  const model = new ElectraForPreTraining(config, { seed: 1 })
  const original = join(parent, 'original')
  await model.savePretrained(original)
  model.dispose()
  const source = readModelFolder(original)
  const state = source.tensors.names.map((name) => ({
    ...source.tensors.info(name),
    name,
    data: source.tensors.bytes(name),
  }))
  writeCheckpoint(join(parent, 'tf', 'model.ckpt-5'), originalVariables(source.tensors, 'electra'))
  const pytorch = writeZipCheckpoint(state)
  source.close()

  const first = await voltaic(['convert', join(parent, 'tf'), join(parent, 'a')])
  t.equal(first.code, 0, first.stderr)
  t.match(first.stdout, /^ElectraForPreTraining, 27 tensors of 90 kB, with vocab\.txt, in .*\/a\n$/)
  t.strictSame(readdirSync(join(parent, 'a')).sort(), ['config.json', 'model.safetensors', 'vocab.txt'])

  const hub = await startHub()
  t.teardown(() => hub.close())
  hub.files.set('o/tiny/config.json', {
    content: Buffer.from(
      JSON.stringify({
        hidden_size: 64,
        num_attention_heads: 1,
        vocab_size: 5,
        embedding_size: 4,
        num_hidden_layers: 1,
        intermediate_size: 8,
        max_position_embeddings: 6,
      }),
    ),
  })
  hub.files.set('o/tiny/pytorch_model.bin', { content: pytorch, large: true })
  const env = {
    HF_ENDPOINT: hub.endpoint,
    HF_HOME: join(parent, 'home'),
    HF_HUB_OFFLINE: '',
    HF_HUB_CACHE: join(parent, 'cache'),
  }
  const second = await voltaic(['convert', 'o/tiny', join(parent, 'b')], { env })
  t.equal(second.code, 0, second.stderr)
  t.match(second.stdout, /no tokenizer beside it, in .*\/b\n$/)
  t.match(second.stderr, /^downloading config\.json, .*\ndownloading pytorch_model\.bin, .*\n$/)
  using a = readModelFolder(join(parent, 'a'))
  using b = readModelFolder(join(parent, 'b'))
  for (const name of a.tensors.names)
    t.ok(Buffer.compare(a.tensors.bytes(name), b.tensors.bytes(name)) === 0, name)

  const onnx = await voltaic(['convert', join(parent, 'a'), join(parent, 'onnx'), '--to', 'onnx'])
  t.equal(onnx.code, 0, onnx.stderr)
  t.strictSame(readdirSync(join(parent, 'onnx')).sort(), ['config.json', 'model.onnx', 'vocab.txt'])
  const loaded = await ElectraForPreTraining.fromPretrained(join(parent, 'a'), { device: 'cpu' })
  await loaded.saveOnnx(join(parent, 'saved.onnx'))
  loaded.dispose()
  const [written, saved] = [join(parent, 'onnx', 'model.onnx'), join(parent, 'saved.onnx')]
  t.ok(readFileSync(written).equals(readFileSync(saved)), 'the same file as the model itself writes')

  writeFileSync(join(parent, 'tf', 'model.ckpt-5.data-00000-of-00001'), 'cut')
  const damaged = await voltaic(['convert', join(parent, 'tf'), join(parent, 'c')])
  t.equal(damaged.code, 1)
  t.match(damaged.stderr, /^voltaic: .*which has 3.*\[ERR_FORMAT\]\n$/)
})
