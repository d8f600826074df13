import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  convertModel,
  defineElectraConfig,
  type ElectraConfig,
  ElectraForMaskedLM,
  ElectraForPreTraining,
  openModelSource,
  readModelFolder,
  type TensorSource,
} from 'voltaic'
import { formatElectraConfig } from '../../dist/formats/electra-config.js'
import { writeSafetensors } from '../../dist/formats/safetensors.js'
import { originalVariables } from '../helpers/formats/original-names.js'
import { type TensorToPickle, writeLegacyCheckpoint, writeZipCheckpoint } from '../helpers/formats/pytorch.js'
import { writeCheckpoint } from '../helpers/formats/tensorflow.js'
import { needsSharedData, sharedData } from '../helpers/shared.js'

t.setTimeout(120_000)

const vocabulary = '[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n'
const sizes = {
  vocabSize: 5,
  embeddingSize: 4,
  numHiddenLayers: 2,
  maxPositionEmbeddings: 6,
  initializerRange: 0.5,
}
const discriminatorConfig = defineElectraConfig({
  ...sizes,
  ...{ hiddenSize: 128, numAttentionHeads: 2, intermediateSize: 12 },
})
const generatorConfig = defineElectraConfig({
  ...sizes,
  ...{ hiddenSize: 64, numAttentionHeads: 1, intermediateSize: 8 },
})

/** A folder with a tiny discriminator and a generator that shares its tables. */
async function twoModels(parent: string): Promise<{ discriminator: string; generator: string }> {
  const [discriminator, generator] = [join(parent, 'discriminator'), join(parent, 'generator')]
  const first = new ElectraForPreTraining(discriminatorConfig, { seed: 1 })
  const second = new ElectraForMaskedLM(generatorConfig, { seed: 2 })
  const tables = /embeddings\.(word|position|token_type)_embeddings|embeddings\.LayerNorm/
  const shared = new Map([...first.namedParameters()].filter(([name]) => tables.test(name)))
  for (const [name, parameter] of second.namedParameters()) {
    const from = shared.get(name)
    if (from !== undefined) parameter.assign((await from.data()) as Float32Array)
  }
  await first.savePretrained(discriminator, { files: { 'vocab.txt': vocabulary } })
  await second.savePretrained(generator)
  first.dispose()
  second.dispose()
  return { discriminator, generator }
}

function sameTensors(t: Test, a: TensorSource, b: TensorSource, what: string): void {
  t.strictSame([...a.names].sort(), [...b.names].sort(), what)
  const isSame = (name: string): boolean =>
    JSON.stringify(a.info(name)) === JSON.stringify(b.info(name)) &&
    Buffer.compare(a.bytes(name), b.bytes(name)) === 0
  const different = b.names.filter((name) => !isSame(name))
  t.strictSame(different, [], what)
}

const forPickle = (
  source: TensorSource,
  rename: (name: string) => string = (name) => name,
): TensorToPickle[] =>
  source.names.map((name) => ({ ...source.info(name), name: rename(name), data: source.bytes(name) }))

/** As old versions saved: gamma and beta, the tied projection and the positions beside the weights, no prefix for a bare body. */
function oldState(source: TensorSource): TensorToPickle[] {
  const old = (name: string): string =>
    name.replace(/LayerNorm\.weight$/, 'LayerNorm.gamma').replace(/LayerNorm\.bias$/, 'LayerNorm.beta')
  const words = 'electra.embeddings.word_embeddings.weight'
  const state = forPickle(source, old)
  const positions = new Uint8Array(BigInt64Array.of(0n, 1n, 2n).buffer)
  state.push({ name: 'electra.embeddings.position_ids', dtype: 'I64', shape: [1, 3], data: positions })
  if (source.has('generator_lm_head.bias')) {
    state.push({
      ...source.info(words),
      name: 'generator_lm_head.weight',
      key: words,
      data: source.bytes(words),
    })
  }
  return state
}

async function inEveryLayout(t: Test, original: string, parent: string): Promise<void> {
  using expected = readModelFolder(original)
  const { tensors } = expected
  const bare = (name: string): string => name.replace(/^electra\./, '')
  const half = tensors.names.length / 2
  const writers: Record<string, (folder: string) => Promise<void> | void> = {
    zip: (folder) => writeFileSync(join(folder, 'pytorch_model.bin'), writeZipCheckpoint(oldState(tensors))),
    legacy: (folder) =>
      writeFileSync(join(folder, 'pytorch_model.bin'), writeLegacyCheckpoint(oldState(tensors))),
    'without the prefix': (folder) =>
      writeFileSync(join(folder, 'pytorch_model.bin'), writeZipCheckpoint(forPickle(tensors, bare))),
    'pytorch in shards'(folder) {
      const state = oldState(tensors)
      const shards = [state.slice(0, half), state.slice(half)]
      const map: Record<string, string> = {}
      for (const [i, shard] of shards.entries()) {
        const file = `pytorch_model-0000${i + 1}-of-00002.bin`
        writeFileSync(join(folder, file), writeZipCheckpoint(shard))
        for (const { name } of shard) map[name] = file
      }
      writeFileSync(join(folder, 'pytorch_model.bin.index.json'), JSON.stringify({ weight_map: map }))
    },
    async 'safetensors in shards'(folder) {
      const state = oldState(tensors)
      const map: Record<string, string> = {}
      for (const [i, shard] of [state.slice(0, half), state.slice(half)].entries()) {
        const file = `model-0000${i + 1}-of-00002.safetensors`
        await writeSafetensors(join(folder, file), shard)
        for (const { name } of shard) map[name] = file
      }
      writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map: map }))
    },
  }
  for (const [what, write] of Object.entries(writers)) {
    const folder = join(parent, what)
    mkdirSync(folder)
    copyFileSync(join(original, 'config.json'), join(folder, 'config.json'))
    await write(folder)
    const output = join(parent, `${what}, converted`)
    const report = await convertModel(folder, output)
    t.equal(report.tensors.length, tensors.names.length)
    t.equal(
      readFileSync(join(output, 'config.json'), 'utf8').trim(),
      readFileSync(join(original, 'config.json'), 'utf8').trim(),
    )
    using converted = readModelFolder(output)
    sameTensors(t, converted.tensors, tensors, what)
    using direct = readModelFolder(folder)
    sameTensors(t, direct.tensors, tensors, `${what}, read directly`)
  }
}

t.test('a model in each layout comes back byte for byte', async (t) => {
  const parent = t.testdir()
  const { discriminator, generator } = await twoModels(parent)
  for (const [name, folder] of Object.entries({ discriminator, generator })) {
    mkdirSync(join(parent, `of ${name}`))
    await inEveryLayout(t, folder, join(parent, `of ${name}`))
  }
})

t.test('and so do the golden models', needsSharedData, async (t) => {
  for (const name of ['pretraining', 'masked_lm', 'question_answering', 'no_embedding_projection']) {
    await inEveryLayout(t, join(sharedData ?? '', 'golden', name), t.testdir())
  }
})

t.test('a TensorFlow checkpoint of the original code', async (t) => {
  const parent = t.testdir({ tf: { 'vocab.txt': vocabulary } })
  const { discriminator, generator } = await twoModels(parent)
  const first = readModelFolder(discriminator)
  const second = readModelFolder(generator)
  t.teardown(() => {
    first.close()
    second.close()
  })
  const own = originalVariables(second.tensors, 'generator')
  const variables = [
    ...originalVariables(first.tensors, 'electra'),
    ...own.filter(({ name }) => name.startsWith('generator')),
  ]
  const prefix = join(parent, 'tf', 'model.ckpt-1000000')
  writeCheckpoint(prefix, variables, { snappy: true })

  t.test('gives the discriminator, or the generator with the shared tables', async (t) => {
    const report = await convertModel(join(parent, 'tf'), join(parent, 'd'))
    t.strictSame(report.files, ['vocab.txt'])
    using d = readModelFolder(join(parent, 'd'))
    sameTensors(t, d.tensors, first.tensors, 'discriminator')
    const read = ({ extra: _, initializerRange: __, ...config }: ElectraConfig): object => config
    t.strictSame(read(d.config), read(first.config), 'sizes are read from the shapes')
    t.equal(readFileSync(join(parent, 'd', 'vocab.txt'), 'utf8'), vocabulary)
    await convertModel(prefix, join(parent, 'g'), { part: 'generator' })
    using g = readModelFolder(join(parent, 'g'))
    sameTensors(t, g.tensors, second.tensors, 'generator')
    t.strictSame(read(g.config), read(second.config))
    const model = await ElectraForMaskedLM.fromPretrained(join(parent, 'g'), { device: 'cpu' })
    t.strictSame(model.loadReport, { missing: [], unexpected: [] })
    model.dispose()
  })

  t.test('with its own tables, or with one body for both', async (t) => {
    const untied = own
      .filter(({ name }) => !name.includes('LayerNorm/adam'))
      .map((variable) => ({
        ...variable,
        name: variable.name.replace(/^electra\/embeddings/, 'generator/embeddings'),
      }))
    const everything = [...originalVariables(first.tensors, 'electra'), ...untied]
    writeCheckpoint(
      join(parent, 'untied'),
      everything.filter(({ name }, i) => everything.findIndex((v) => v.name === name) === i),
    )
    using source = await openModelSource(join(parent, 'untied'), { part: 'generator' })
    sameTensors(t, source.tensors, second.tensors, 'untied')
    writeCheckpoint(join(parent, 'one-body'), originalVariables(second.tensors, 'electra'))
    using one = await openModelSource(join(parent, 'one-body'), { part: 'generator' })
    sameTensors(t, one.tensors, second.tensors, 'one body')
  })

  t.test('says what is wrong', async (t) => {
    const config = join(parent, 'wrong.json')
    writeFileSync(config, formatElectraConfig(discriminatorConfig))
    await t.rejects(convertModel(prefix, join(parent, 'x'), { part: 'generator', config }), {
      code: 'ERR_FORMAT',
      message:
        /has shape \[64, 4\] in the weights, but the configuration asks for \[128, 4\], decided by hidden_size.*generator has its own/,
    })
    writeCheckpoint(join(parent, 'other'), [{ name: 'bert/x', shape: [1], data: Buffer.alloc(4) }])
    await t.rejects(convertModel(join(parent, 'other'), join(parent, 'x')), {
      code: 'ERR_FORMAT',
      message: /holds no discriminator of the original ELECTRA code/,
    })
    writeCheckpoint(join(parent, 'fine-tuned'), originalVariables(first.tensors, 'electra'))
    await t.rejects(convertModel(join(parent, 'fine-tuned'), join(parent, 'x'), { part: 'generator' }), {
      code: 'ERR_FORMAT',
      message: /holds no generator/,
    })
    t.notOk(readdirSync(parent).includes('x'), 'nothing is written')
  })
})

t.test('single files, and configurations from elsewhere', async (t) => {
  const parent = t.testdir({ alone: {} })
  const { discriminator, generator } = await twoModels(parent)
  using expected = readModelFolder(discriminator)
  const file = join(parent, 'alone', 'weights.safetensors')
  copyFileSync(join(discriminator, 'model.safetensors'), file)
  const config = join(discriminator, 'config.json')
  await convertModel(file, join(parent, 'a'), { config })
  using a = readModelFolder(join(parent, 'a'))
  sameTensors(t, a.tensors, expected.tensors, 'safetensors')
  writeFileSync(join(parent, 'alone', 'state.pt'), writeLegacyCheckpoint(forPickle(expected.tensors)))
  await convertModel(join(parent, 'alone', 'state.pt'), join(parent, 'b'), { config, part: 'discriminator' })
  using b = readModelFolder(join(parent, 'b'))
  sameTensors(t, b.tensors, expected.tensors, 'PyTorch')

  const quoted = JSON.parse(readFileSync(config, 'utf8'))
  for (const key of ['hidden_size', 'embedding_size', 'layer_norm_eps', 'summary_use_proj'])
    quoted[key] = String(quoted[key])
  delete quoted.architectures
  writeFileSync(join(parent, 'alone', 'config.json'), JSON.stringify(quoted))
  using beside = await openModelSource(file)
  t.equal(beside.config.hiddenSize, 128, 'quoted numbers')
  t.strictSame(beside.config.architectures, ['ElectraForPreTraining'], 'the class, from the head')

  await t.rejects(convertModel(generator, join(parent, 'x'), { part: 'discriminator' }), {
    code: 'ERR_ARGUMENT',
    message: /holds the generator \(ElectraForMaskedLM\), not the discriminator/,
  })
  await t.rejects(convertModel(generator, join(parent, 'x'), { config }), {
    code: 'ERR_FORMAT',
    message: /hidden_size/,
  })
  await t.rejects(convertModel(join(parent, 'missing'), join(parent, 'x')), {
    code: 'ERR_IO',
    message: /missing/,
  })
  await t.rejects(convertModel(generator, join(parent, 'x'), { part: 'both' as 'generator' }), {
    code: 'ERR_ARGUMENT',
  })
  await t.rejects(convertModel(generator, join(parent, 'x'), { to: 'h5' as 'safetensors' }), {
    code: 'ERR_ARGUMENT',
  })
  const layers = { ...discriminatorConfig, numHiddenLayers: 1 }
  writeFileSync(join(parent, 'layers.json'), formatElectraConfig(layers))
  await t.rejects(convertModel(discriminator, join(parent, 'x'), { config: join(parent, 'layers.json') }), {
    code: 'ERR_FORMAT',
    message: /holds electra\.encoder\.layer\.1.*, but num_hidden_layers is 1/,
  })
  writeFileSync(join(parent, 'layers.json'), formatElectraConfig({ ...layers, numHiddenLayers: 3 }))
  await t.rejects(convertModel(discriminator, join(parent, 'x'), { config: join(parent, 'layers.json') }), {
    code: 'ERR_FORMAT',
    message: /lacks electra\.encoder\.layer\.2/,
  })
})
