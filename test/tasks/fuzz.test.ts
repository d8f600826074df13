/**
 * Damaged task files: good ones of each format, with bytes changed, left out, put in or repeated, plain and gzip. Whatever comes of it
 * is read, with the malformed rows listed, or refused with the code for damaged files; nothing else is thrown.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import t from 'tap'
import { readConll, readConllu, readSquad, readTaskFile } from '../../dist/tasks/index.js'
import { survivesAsync } from '../helpers/damage.js'

t.setTimeout(120_000)
const folder = t.testdir()

const squad = {
  version: 'v2.0',
  data: [
    {
      title: 'Lines \u2028 and "quotes"',
      paragraphs: [
        {
          context: 'Voltaire wrote 😀 in Ferney.',
          qas: [
            { id: '1', question: 'Who?', answers: [{ text: 'Voltaire', answer_start: 0 }] },
            { id: '2', question: 'Where?', answers: [{ text: 'Ferney', answer_start: 20 }] },
            { id: '3', question: 'Why?', answers: [], is_impossible: true, more: [[{}], null, -1.5e3] },
          ],
        },
      ],
    },
  ],
}
const files: Readonly<Record<string, [text: string, read: (file: string) => Promise<unknown>]>> = {
  'a.tsv': ['text\tlabel\none two\tyes\nthrée\tno\r\n\nfour\tyes', readTaskFile],
  'a.csv': ['text,label\n"one, ""two""\nthree",yes\r\n,no\n"4",yes\n', readTaskFile],
  'a.jsonl': [
    '{"text":"one","label":1}\n{"text":"tw\\u00e9","label":[1,2]}\n\n{"label":null}\n',
    readTaskFile,
  ],
  'a.conll': ['-DOCSTART- O\n\nEU\tB-ORG\nrejects\tO\n\nNew B-LOC\nYork I-LOC\n', readConll],
  'a.conllu': [
    ['1-2', '1', '2', '2.1']
      .map((id) => `${id}\tw${'\tNOUN'.repeat(8)}`)
      .join('\n')
      .concat('\n\n# end\n'),
    readConllu,
  ],
  'a.json': [JSON.stringify(squad), readSquad],
}

for (const [name, [text, read]] of Object.entries(files)) {
  t.test(name, async (t) => {
    const path = join(folder, name)
    writeFileSync(path, text)
    await read(path)
    await survivesAsync(async (damage) => {
      writeFileSync(path, damage(Buffer.from(text)))
      await read(path)
    }, 150)
    const packed = join(folder, `${name}.gz`)
    await survivesAsync(async (damage) => {
      writeFileSync(packed, damage(gzipSync(text)))
      await read(packed)
    }, 60)
    t.pass('every damaged file was read or refused')
  })
}
