/** The bounds that stand before JSON.parse, wherever Voltaic parses JSON from a file. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parseJsonText, readJsonFile } from '../../dist/formats/json-file.js'
import { readSafetensors } from '../../dist/formats/safetensors.js'
import { loadTokenizer } from '../../dist/text/index.js'
import { openCheckpoints } from '../../dist/training/checkpoint.js'
import { readRunRecord } from '../../dist/training/run-folder.js'
import { checkCost, costOf } from '../helpers/cost.js'

const deep = '{"a":'.repeat(1_000_000)

t.test('depth and number of values', async (t) => {
  const nested = (levels: number): string => '['.repeat(levels) + ']'.repeat(levels)
  t.ok(parseJsonText(nested(100), 'x'), '100 levels')
  t.throws(() => parseJsonText(nested(101), 'x'), {
    code: 'ERR_FORMAT',
    message: /^x: nests deeper than 100/,
  })
  const list = (values: number): string => `[${'0,'.repeat(values - 1)}0]`
  t.equal((parseJsonText(list(1_000_000), 'x') as unknown[]).length, 1_000_000)
  t.throws(() => parseJsonText(list(1_000_001), 'x'), {
    code: 'ERR_FORMAT',
    message: /more than 1000000 values/,
  })
  for (const text of ['"[[[[\\"[["', '"\\\\"', '["\\\\\\"[", "]"]', '\ufeff{"a":"}"}']) {
    t.same(parseJsonText(text, 'x'), JSON.parse(text.replace('\ufeff', '')), `strings do not count: ${text}`)
  }
  const brackets = `[${'"[",'.repeat(200)}1]`
  t.equal((parseJsonText(brackets, 'x') as unknown[]).length, 201)
})

t.test('a deep document is refused wherever one is read', async (t) => {
  const folder = t.testdir({
    checkpoints: { 'step-000000001': { 'state.json': deep } },
    'run.json': deep,
    'tokenizer.json': deep,
  })
  const message = /nests deeper than 100/
  t.throws(() => readJsonFile(join(folder, 'run.json')), { code: 'ERR_FORMAT', message }, 'a configuration')
  t.throws(() => readRunRecord(folder), { code: 'ERR_FORMAT', message }, 'run.json')
  t.throws(() => openCheckpoints(folder, 1).load(), { code: 'ERR_FORMAT', message }, 'a checkpoint')
  await t.rejects(loadTokenizer(folder), { code: 'ERR_FORMAT', message }, 'tokenizer.json')
  const header = Buffer.alloc(8)
  header.writeBigUInt64LE(BigInt(deep.length))
  writeFileSync(join(folder, 'x.safetensors'), Buffer.concat([header, Buffer.from(deep)]))
  t.throws(() => readSafetensors(join(folder, 'x.safetensors')), { code: 'ERR_FORMAT' }, 'safetensors')
})

t.test('a tokenizer.json with millions of fields is refused cheaply', async (t) => {
  const folder = t.testdir()
  const fields = Array.from({ length: 2_000_000 }, (_, at) => `"${at}":1`)
  for (const [what, text] of [
    ['names', `{"model":{"vocab":{${fields.join()}}}}`],
    ['lists', `{"x":[${'[],'.repeat(8_000_000)}0]}`],
    ['brackets', '['.repeat(30_000_000)],
  ] as const) {
    writeFileSync(join(folder, 'tokenizer.json'), text)
    const cost = costOf('text/index.js', 'loadTokenizer', folder)
    t.match(
      cost,
      { code: 'ERR_FORMAT', message: /tokenizer\.json: (more than 1000000 values|nests deeper)/ },
      what,
    )
    checkCost(t, cost, what)
  }
})
