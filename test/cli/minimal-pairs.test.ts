/** `voltaic evaluate --task minimal-pairs`: a table, and the scored pairs. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { createTokenizer, defineElectraConfig, ElectraForMaskedLM } from 'voltaic'
import { voltaic } from '../helpers/training.js'

t.setTimeout(120_000)
const folder = t.testdir({
  'pairs.jsonl': '{"sentence_a": "he came", "sentence_b": "she came"}\n{"sentence_a": "he"}\n',
})
const at = (name: string): string => join(folder, name)
const vocabulary = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'he', 'she', 'came']
const config = defineElectraConfig({
  ...{ vocabSize: 8, embeddingSize: 8, hiddenSize: 16, numHiddenLayers: 1 },
  ...{ numAttentionHeads: 2, intermediateSize: 32, maxPositionEmbeddings: 16 },
})

t.test('a table on standard output, the pairs in a file', async (t) => {
  const model = new ElectraForMaskedLM(config, { seed: 1 })
  await model.savePretrained(at('model'))
  await createTokenizer({ vocabulary }).save(at('model'))
  model.dispose()
  const args = ['evaluate', '--task', 'minimal-pairs', '--model', at('model'), '--device', 'cpu']
  const own = await voltaic([...args, '--data', at('pairs.jsonl'), '--output', at('scored.jsonl')])
  t.equal(own.code, 0, own.stderr)
  t.match(own.stdout, /\nall {4}1 {6}\d+\.\d %/)
  t.match(own.stdout, /1 row is left out, the first on line 2: expected two sentences/)
  t.equal(JSON.parse(readFileSync(at('scored.jsonl'), 'utf8')).sentence_b, 'she came')
  const strict = await voltaic([...args, '--data', at('pairs.jsonl'), '--strict'])
  t.equal(strict.code, 1)
  t.match(strict.stderr, /pairs\.jsonl:2: expected two sentences/)
  const builtIn = await voltaic([...args, '--json'])
  t.equal(JSON.parse(builtIn.stdout).overall.pairs, 160, builtIn.stderr)
})
