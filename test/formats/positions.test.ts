/** Longer position tables: which row comes from which, in every element type, and converted folders that run. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  convertModel,
  createTokenizer,
  defineElectraConfig,
  ElectraForPreTraining,
  extendPositions,
  openModelSource,
  readModelFolder,
  withPositions,
  writeModelFolder,
} from 'voltaic'
import { voltaic } from '../helpers/training.js'

t.setTimeout(60_000)
const table = Float32Array.from({ length: 8 }, (_, at) => at)

t.test('rows repeat from the first behind [CLS] on; those that are there keep their numbers', async (t) => {
  // Rows 0 1 2 3 of two numbers each.
  const rows = (extended: Float32Array): number[] =>
    Array.from({ length: extended.length / 2 }, (_, row) => (extended[2 * row] as number) / 2)
  t.same(rows(extendPositions(table, 2, 11)), [0, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1])
  t.same(rows(extendPositions(table, 2, 4)), [0, 1, 2, 3])
  t.same(
    rows(extendPositions(table, 2, 6, { trained: 3 })),
    [0, 1, 2, 1, 2, 1],
    'untrained rows are replaced',
  )
  t.same([...extendPositions(table, 2, 5).subarray(8)], [2, 3])
  t.same([...table], [0, 1, 2, 3, 4, 5, 6, 7], 'the table given stays')
  const bytes = extendPositions(new Uint8Array(table.buffer), 8, 11)
  t.same([...new Float32Array(bytes.buffer)], [...extendPositions(table, 2, 11)])
})

t.test('fewer rows than there are, and trained rows that cannot be, are refused', async (t) => {
  const refuse = (positions: number, trained: number | undefined, message: RegExp): void => {
    t.throws(() => extendPositions(table, 2, positions, { trained }), { code: 'ERR_ARGUMENT', message })
  }
  refuse(3, undefined, /positions is 3; expected a whole number from 4/)
  refuse(4.5, undefined, /positions is 4\.5/)
  refuse(8, 1, /trained positions are 1; expected a whole number from 2 to the table's 4/)
  refuse(8, 5, /trained positions are 5/)
})

t.test('a converted folder takes longer inputs, and short ones as before', async (t) => {
  const folder = t.testdir()
  const at = (name: string): string => join(folder, name)
  const config = defineElectraConfig({
    ...{ vocabSize: 12, embeddingSize: 8, hiddenSize: 16, numHiddenLayers: 1 },
    ...{ numAttentionHeads: 2, intermediateSize: 32, maxPositionEmbeddings: 6 },
  })
  const model = new ElectraForPreTraining(config, { seed: 1 })
  await model.savePretrained(at('short'))
  model.dispose()
  const vocabulary = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', ...'abcdefg']
  await createTokenizer({ vocabulary, modelMaxLength: 6 }).save(at('short'))

  const report = await convertModel(at('short'), at('long'), { positions: 20 })
  t.equal(report.config.maxPositionEmbeddings, 20)
  const settings = JSON.parse(readFileSync(join(at('long'), 'tokenizer_config.json'), 'utf8'))
  t.equal(settings.model_max_length, 20)
  const short = await ElectraForPreTraining.fromPretrained(at('short'), { device: 'cpu' })
  const long = await ElectraForPreTraining.fromPretrained(at('long'), { device: 'cpu' })
  const inputIds = [[2, 6, 7, 8, 9, 3]]
  t.same(await long.forward({ inputIds }).logits.data(), await short.forward({ inputIds }).logits.data())
  t.equal(long.forward({ inputIds: [[2, ...Array(18).fill(7), 3]] }).logits.size, 20)
  for (const one of [short, long]) one.dispose()

  await t.rejects(convertModel(at('short'), at('no'), { positions: 5 }), { code: 'ERR_ARGUMENT' })
  await t.rejects(convertModel(at('short'), at('no'), { trainedPositions: 5 }), { code: 'ERR_ARGUMENT' })

  const command = await voltaic(['convert', at('short'), at('cli'), '--positions', '20'])
  t.equal(command.code, 0, command.stderr)
  for (const name of ['model.safetensors', 'config.json', 'tokenizer_config.json'])
    t.ok(readFileSync(join(at('cli'), name)).equals(readFileSync(join(at('long'), name))), name)

  // Half the bytes a number: rows are moved, never converted.
  mkdirSync(at('half'))
  {
    using source = readModelFolder(at('short'))
    await writeModelFolder(at('half'), {
      config,
      tensors: source.tensors.names.map((name) => {
        const { shape } = source.tensors.info(name)
        const bits = new Uint32Array(source.tensors.float32(name).slice().buffer)
        return { name, dtype: 'BF16', shape, data: Uint16Array.from(bits, (word) => word >>> 16) }
      }),
    })
  }
  writeFileSync(join(at('half'), 'tokenizer_config.json'), '{"model_max_length": 512}')
  using half = await openModelSource(at('half'))
  const extended = withPositions(half, 9)
  const name = 'electra.embeddings.position_embeddings.weight'
  t.same(extended.tensors.info(name), { dtype: 'BF16', shape: [9, 8], byteLength: 144 })
  t.same(
    [...extended.tensors.float32(name)],
    [...extendPositions(half.tensors.float32(name), 8, 9)],
    'the same rows',
  )
  t.equal(
    Buffer.from(extended.files['tokenizer_config.json'] as Uint8Array).toString(),
    '{"model_max_length": 512}',
    "a length that is not the table's is not touched",
  )
})
