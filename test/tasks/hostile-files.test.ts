/** Hostile task files: refused with the file and the place, before they cost time or memory. */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import t from 'tap'
import { checkCost, costOf } from '../helpers/cost.js'

t.setTimeout(120_000)
const mebibyte = 2 ** 20
const fill = (pattern: string, bytes: number, start = ''): Buffer => {
  const result = Buffer.alloc(bytes, pattern)
  result.write(start)
  return result
}
const packed = (bytes: Buffer): Buffer => gzipSync(bytes, { level: 1 })
/** 90 lines of just less than the longest that is read. */
const longLines = (pattern: string): Buffer => {
  const result = fill(pattern, 90 * mebibyte)
  for (let line = 1; line <= 90; line++) result[line * mebibyte - 1] = 0x0a
  return result
}
const manyKeys = (): string => {
  const fields = Array.from({ length: 99_000 }, (_, at) => `{"key${at}":1}`)
  const paragraph = `{"context":"c","qas":[${fields.join()}]}`
  return `{"data":[{"paragraphs":[${new Array(3).fill(paragraph).join()}]}]}`
}

type Reader = 'readTaskFile' | 'readSquad' | 'readConll' | 'readConllu'
const cases: readonly [reader: Reader, name: string, bytes: () => Buffer | string, message: RegExp][] = [
  ['readSquad', 'deep.json', () => fill('[', 90 * mebibyte), /the file: is not an object/],
  ['readSquad', 'deep-field.json', () => fill('[', 90 * mebibyte, '{"x":'), /nests deeper than 100/],
  [
    'readSquad',
    'deep-data.json',
    () => fill('{"data":[{"paragraphs":[', 90 * mebibyte),
    /data\[0\]: nests deeper than 100/,
  ],
  ['readSquad', 'wide.json', () => fill('{},', 90 * mebibyte, '{"x":[ '), /the file: not JSON/],
  ['readSquad', 'string.json', () => fill('a', 90 * mebibyte, '{"data":"'), /the end of a string/],
  ['readSquad', 'keys.json', manyKeys, /more than 10000 malformed questions/],
  ['readSquad', 'bomb.json.gz', () => packed(fill('{"a":', 100 * mebibyte)), /more than 96 MiB/],
  ['readTaskFile', 'line.tsv', () => fill('a', 90 * mebibyte), /line\.tsv:1: a line of more than 1 MiB/],
  ['readTaskFile', 'line.tsv.gz', () => packed(fill('a', 90 * mebibyte)), /:1: a line of more than 1 MiB/],
  ['readTaskFile', 'lines.jsonl', () => longLines('['), /line 1: .*nests deeper than 100/],
  ['readTaskFile', 'quotes.csv', () => longLines('"'), /quotes\.csv:1: a quote opens field 1 and goes on/],
  ['readTaskFile', 'nul.tsv', () => fill('\0', 90 * mebibyte, 'a\tb\nc'), /nul\.tsv:2: a NUL character/],
  ['readConll', 'spaces.conll', () => longLines('a '), /line 1: more than 1000 columns/],
  ['readConll', 'endless.conll', () => fill('a O\n', 15 * mebibyte), /line 50001: .*blank line/],
  ['readConllu', 'tabs.conllu', () => longLines('a\t'), /line 1: 1000 columns/],
  [
    'readTaskFile',
    'cut.tsv.gz',
    () => packed(fill(`${'ab'.repeat(99)}\tc\n`, 60 * mebibyte)).subarray(0, -9),
    /gzip/,
  ],
]

t.test('are refused before they cost anything', async (t) => {
  const folder = t.testdir()
  for (const [reader, name, bytes, message] of cases) {
    const path = join(folder, name)
    writeFileSync(path, bytes())
    const cost = costOf('tasks/index.js', reader, path)
    rmSync(path)
    t.match(cost, { code: 'ERR_FORMAT', message }, name)
    t.ok(cost.message.includes(name), `${name}: named in the message`)
    checkCost(t, cost, name)
  }
})
