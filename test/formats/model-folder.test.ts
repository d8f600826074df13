import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { defineElectraConfig } from '../../dist/formats/electra-config.js'
import { readModelConfig, readModelFolder, writeModelFolder } from '../../dist/formats/model-folder.js'
import { readSafetensors, type TensorToWrite, writeSafetensors } from '../../dist/formats/safetensors.js'
import { canonicalTensorName, matchTensors, requireMatchingShapes } from '../../dist/formats/tensor-names.js'
import { needsSharedData, sharedData } from '../helpers/shared.js'

const config = defineElectraConfig({ vocabSize: 3, embeddingSize: 2, hiddenSize: 4, numAttentionHeads: 2 })

const floats = (name: string, shape: number[], start = 0): TensorToWrite => {
  const count = shape.reduce((product, size) => product * size, 1)
  return { name, dtype: 'F32', shape, data: Float32Array.from({ length: count }, (_, i) => start + i) }
}

const words = 'electra.embeddings.word_embeddings.weight'
const project = 'electra.embeddings_project.weight'

t.test('a written folder reads back, and appears in one step', async (t) => {
  const parent = t.testdir()
  const folder = join(parent, 'deep', 'model')
  await writeModelFolder(folder, {
    config,
    tensors: [floats(words, [3, 2]), floats(project, [4, 2], 10)],
    files: { 'vocab.txt': '[PAD]\n' },
  })
  t.strictSame(readdirSync(join(parent, 'deep')), ['model'])
  t.strictSame(readdirSync(folder), ['config.json', 'model.safetensors', 'vocab.txt'])
  using model = readModelFolder(folder)
  t.strictSame(model.config, config)
  t.strictSame(model.tensors.names, [words, project])
  t.strictSame([...model.tensors.float32(project)], [10, 11, 12, 13, 14, 15, 16, 17])
  t.throws(() => model.tensors.bytes('no'), { code: 'ERR_ARGUMENT' })
})

t.test('writing again replaces weights and configuration and keeps the other files', async (t) => {
  const folder = t.testdir({ 'vocab.txt': 'kept', 'model.safetensors': 'old' })
  await writeModelFolder(folder, { config, tensors: [floats(words, [3, 2], 5)] })
  t.equal(readFileSync(join(folder, 'vocab.txt'), 'utf8'), 'kept')
  using model = readModelFolder(folder)
  t.equal(model.tensors.float32(words)[0], 5)
})

t.test('a write that fails leaves the folder as it was', async (t) => {
  const parent = t.testdir({ model: { 'model.safetensors': 'old' } })
  const failing: TensorToWrite = {
    ...floats(words, [3, 2]),
    data: () => Promise.reject(new Error('device gone')),
  }
  await t.rejects(writeModelFolder(join(parent, 'model'), { config, tensors: [failing] }), {
    message: 'device gone',
  })
  t.equal(readFileSync(join(parent, 'model', 'model.safetensors'), 'utf8'), 'old')
  await t.rejects(writeModelFolder(join(parent, 'other'), { config, tensors: [failing] }), {
    message: 'device gone',
  })
  t.strictSame(readdirSync(parent), ['model'])
  await t.rejects(
    writeModelFolder(join(parent, 'model', 'model.safetensors', 'x'), { config, tensors: [] }),
    {
      code: 'ERR_IO',
      message: /EEXIST: a file of that name is in the way/,
    },
  )
})

t.test('an element type named in the configuration does not outlive the weights it described', async (t) => {
  const folder = join(t.testdir(), 'model')
  const half = { ...config, extra: { torch_dtype: 'float16', note: 'x' } }
  await writeModelFolder(folder, { config: half, tensors: [floats(words, [3, 2])] })
  t.strictSame(readModelConfig(folder).extra, { torch_dtype: 'float32', note: 'x' })
})

t.test('old spellings come out as today’s names', async (t) => {
  const rows: [name: string, canonical: string | undefined][] = [
    ['embeddings.word_embeddings.weight', words],
    ['embeddings_project.bias', 'electra.embeddings_project.bias'],
    ['encoder.layer.0.output.LayerNorm.gamma', 'electra.encoder.layer.0.output.LayerNorm.weight'],
    ['electra.embeddings.LayerNorm.beta', 'electra.embeddings.LayerNorm.bias'],
    ['electra.embeddings.position_ids', undefined],
    ['embeddings.token_type_ids', undefined],
    ['electra.embeddings.token_type_embeddings.weight', 'electra.embeddings.token_type_embeddings.weight'],
    ['classifier.weight', 'classifier.weight'],
    ['generator_lm_head.bias', 'generator_lm_head.bias'],
  ]
  for (const [name, canonical] of rows) t.equal(canonicalTensorName(name), canonical, name)

  const folder = t.testdir()
  await writeModelFolder(folder, {
    config,
    tensors: [
      floats('embeddings.word_embeddings.weight', [3, 2], 7),
      floats('embeddings.LayerNorm.gamma', [2]),
      { name: 'embeddings.position_ids', dtype: 'I64', shape: [1, 2], data: BigInt64Array.of(0n, 1n) },
    ],
  })
  using model = readModelFolder(folder)
  t.strictSame(model.tensors.names, ['electra.embeddings.LayerNorm.weight', words])
  t.equal(model.tensors.float32(words)[0], 7)
})

t.test('one tensor under two spellings is refused', async (t) => {
  const folder = t.testdir()
  const tensors = [floats(words, [3, 2]), floats('embeddings.word_embeddings.weight', [3, 2])]
  await writeModelFolder(folder, { config, tensors })
  t.throws(() => readModelFolder(folder), {
    code: 'ERR_FORMAT',
    message: /two spellings of electra\.embeddings\.word/,
  })
})

t.test(
  'a tied output projection is left out where it repeats the word embeddings, and only there',
  async (t) => {
    const folder = t.testdir()
    await writeModelFolder(folder, {
      config,
      tensors: [floats(words, [3, 2]), floats('generator_lm_head.weight', [3, 2])],
    })
    readModelFolder(folder).close()
    t.strictSame(readModelFolder(folder).tensors.names, [words])
    await writeModelFolder(folder, {
      config,
      tensors: [floats(words, [3, 2]), floats('generator_lm_head.weight', [3, 2], 1)],
    })
    t.strictSame(readModelFolder(folder).tensors.names, [words, 'generator_lm_head.weight'])
  },
)

t.test('weights in several files are read as one', async (t) => {
  const shards = async (weightMap: unknown): Promise<string> => {
    const folder = t.testdir()
    await writeModelFolder(folder, { config, tensors: [floats(words, [3, 2], 1)] })
    renameSync(join(folder, 'model.safetensors'), join(folder, 'model-00001-of-00002.safetensors'))
    await writeSafetensors(join(folder, 'model-00002-of-00002.safetensors'), [floats(project, [4, 2], 2)])
    const index = { metadata: { total_size: 56 }, weight_map: weightMap }
    writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify(index))
    return folder
  }
  const [first, second] = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors']

  t.test('by the index', async (t) => {
    using model = readModelFolder(await shards({ [words]: first, [project]: second }))
    t.strictSame(model.tensors.names, [words, project])
    t.equal(model.tensors.float32(words)[0], 1)
    t.equal(model.tensors.float32(project)[0], 2)
  })

  t.test('an index that is not right is refused', async (t) => {
    const rows: [weightMap: unknown, error: { code: string; message: RegExp }][] = [
      [undefined, { code: 'ERR_FORMAT', message: /expected an object with weight_map/ }],
      [[first], { code: 'ERR_FORMAT', message: /expected an object with weight_map/ }],
      [
        { [words]: `../${first}` },
        { code: 'ERR_FORMAT', message: /expected the name of a \.safetensors file in the same folder/ },
      ],
      [{ [words]: '/etc/passwd' }, { code: 'ERR_FORMAT', message: /same folder/ }],
      [{ [words]: 5 }, { code: 'ERR_FORMAT', message: /same folder/ }],
      [{ [words]: second }, { code: 'ERR_FORMAT', message: /is said to be in .*, which does not hold it/ }],
      [{ [words]: 'model-00003-of-00002.safetensors' }, { code: 'ERR_IO', message: /ENOENT/ }],
    ]
    for (const [weightMap, error] of rows) {
      const folder = await shards(weightMap)
      t.throws(() => readModelFolder(folder), error, JSON.stringify(weightMap))
    }
  })
})

t.test('a folder that is no model says what is missing', async (t) => {
  const parent = t.testdir({
    file: 'x',
    empty: {},
    'no-weights': { 'config.json': '{}' },
    pytorch: { 'config.json': '{}', 'pytorch_model.bin': 'x' },
    tensorflow: { 'config.json': '{}', 'tf_model.h5': 'x' },
    'deep-json': { 'config.json': `{"a":${'['.repeat(2 ** 22)}`, 'model.safetensors': 'x' },
    'bad-json': { 'config.json': '{"a":', 'model.safetensors': 'x' },
    'bad-config': { 'config.json': '{"hidden_size":3}', 'model.safetensors': 'x' },
    'bad-weights': { 'config.json': '\ufeff{}', 'model.safetensors': 'not a tensor file' },
  })
  const rows: [name: string, code: string, message: RegExp][] = [
    ['missing', 'ERR_IO', /missing\/config\.json: ENOENT/],
    ['file', 'ERR_FORMAT', /no model folder/],
    ['empty', 'ERR_FORMAT', /empty: no model folder, config\.json is missing/],
    ['no-weights', 'ERR_FORMAT', /no weights, expected model\.safetensors or pytorch_model\.bin/],
    ['pytorch', 'ERR_FORMAT', /pytorch_model\.bin: it starts neither as a zip archive/],
    ['tensorflow', 'ERR_FORMAT', /in tf_model\.h5 only.*Convert them once/],
    ['deep-json', 'ERR_FORMAT', /config\.json: nests deeper than 100/],
    ['bad-json', 'ERR_FORMAT', /config\.json: not JSON/],
    ['bad-config', 'ERR_CONFIG', /config\.json: hidden_size is 3/],
    ['bad-weights', 'ERR_FORMAT', /model\.safetensors: header of \d+ bytes/],
  ]
  for (const [name, code, message] of rows) {
    t.throws(() => readModelFolder(join(parent, name)), { code, message }, name)
  }
  mkdirSync(join(parent, 'folder-as-file', 'config.json'), { recursive: true })
  t.throws(() => readModelConfig(join(parent, 'folder-as-file')), { code: 'ERR_IO', message: /EISDIR/ })
})

t.test('matchTensors', async (t) => {
  const available = new Map<string, number[]>([
    ['embeddings.word_embeddings.weight', [3, 2]],
    ['encoder.layer.0.intermediate.dense.weight', [8, 4]],
    ['classifier.weight', [5, 4]],
    ['classifier.bias', [5]],
    ['embeddings.position_ids', [1, 9]],
  ])
  const source = {
    names: [...available.keys()],
    info: (name: string) => ({
      dtype: 'F32' as const,
      shape: available.get(name) ?? [],
      begin: 0,
      byteLength: 0,
    }),
  }

  t.test(
    'says what is matched, missing and unexpected, with the prefix on either side or none',
    async (t) => {
      const expected = new Map([
        [words, [3, 2]],
        ['encoder.layer.0.intermediate.dense.weight', [8, 4]],
        ['discriminator_predictions.dense.weight', [4, 4]],
      ])
      const match = matchTensors(expected, source)
      t.strictSame(
        [...match.matched],
        [
          [words, 'embeddings.word_embeddings.weight'],
          ['encoder.layer.0.intermediate.dense.weight', 'encoder.layer.0.intermediate.dense.weight'],
        ],
      )
      t.strictSame(match.missing, ['discriminator_predictions.dense.weight'])
      t.strictSame(match.unexpected, ['classifier.weight', 'classifier.bias'])
      t.strictSame(match.mismatched, [])
      t.doesNotThrow(() => requireMatchingShapes(match, 'model'))
    },
  )

  t.test('names the keys of the configuration that decide a shape which differs', async (t) => {
    const keysOf = (name: string, shape: number[]): string | undefined =>
      matchTensors(new Map([[name, shape]]), source).mismatched[0]?.configKeys
    t.equal(keysOf(words, [4, 2]), 'vocab_size')
    t.equal(keysOf(words, [3, 9]), 'embedding_size')
    t.equal(keysOf(words, [4, 9]), 'vocab_size, embedding_size')
    t.equal(keysOf('electra.encoder.layer.0.intermediate.dense.weight', [16, 4]), 'intermediate_size')
    t.equal(keysOf('classifier.weight', [2, 4]), 'id2label (one row a label)')
    t.equal(keysOf('classifier.bias', [2]), 'id2label (one row a label)')
    t.equal(keysOf(words, [6]), 'vocab_size')
  })

  t.test('a shape that differs is ERR_FORMAT with the tensor, both shapes and the key', async (t) => {
    const match = matchTensors(
      new Map([
        [words, [4, 2]],
        ['classifier.bias', [2]],
      ]),
      source,
    )
    t.throws(() => requireMatchingShapes(match, './model'), {
      code: 'ERR_FORMAT',
      message:
        /^\.\/model: tensor electra\.embeddings\.word_embeddings\.weight has shape \[3, 2\] in the weights, but the configuration asks for \[4, 2\], decided by vocab_size \(and 1 more/,
    })
  })
})

t.test('golden model folders read, and written again hold the same', needsSharedData, async (t) => {
  const golden = join(sharedData ?? '', 'golden')
  for (const name of ['pretraining', 'masked_lm', 'token_classification', 'no_embedding_projection']) {
    const folder = join(t.testdir(), name)
    using model = readModelFolder(join(golden, name))
    const { tensors } = model
    await writeModelFolder(folder, {
      config: model.config,
      tensors: tensors.names.map((tensorName) => {
        const { dtype, shape } = tensors.info(tensorName)
        return { name: tensorName, dtype, shape, data: () => tensors.bytes(tensorName) }
      }),
    })
    t.equal(
      readFileSync(join(folder, 'config.json'), 'utf8').trimEnd(),
      readFileSync(join(golden, name, 'config.json'), 'utf8').trimEnd(),
    )
    using again = readSafetensors(join(folder, 'model.safetensors'))
    t.strictSame([...again.names].sort(), [...tensors.names].sort())
    t.ok(
      tensors.names.every(
        (tensorName) => Buffer.compare(again.bytes(tensorName), tensors.bytes(tensorName)) === 0,
      ),
    )
    t.strictSame(again.metadata, { format: 'pt' })
  }
})
