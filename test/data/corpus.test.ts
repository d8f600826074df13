/** Corpora: which documents come out of which files, what is repaired, and what is refused. */
import assert from 'node:assert/strict'
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import t from 'tap'
import { maximumDocumentBytes, textDocuments } from '../../dist/data/documents.js'
import { type Corpus, type CorpusOptions, openCorpus } from '../../dist/data/index.js'
import { needsSharedData, sharedData } from '../helpers/shared.js'

async function textsOf(corpus: Corpus): Promise<string[]> {
  const texts: string[] = []
  for await (const { bytes, index } of corpus.documents()) {
    assert.equal(index, texts.length)
    texts.push(Buffer.from(bytes).toString())
  }
  return texts
}

async function read(patterns: string | string[], options?: CorpusOptions): Promise<string[]> {
  return textsOf(await openCorpus([patterns].flat(), options))
}

t.test('blocks of lines are documents; lines are kept', async (t) => {
  const folder = t.testdir({
    'plain.txt': '\n \t\none\ntwo  \n\n\n  three\n   \nfour',
    'windows.txt': '\ufeffone\r\ntwo\r\n\r\nthree\r\n',
    'end.txt': 'one\n\ntwo\n \t',
  })
  t.same(await read(join(folder, 'plain.txt')), ['one\ntwo  ', '  three', 'four'])
  t.same(await read(join(folder, 'windows.txt')), ['one\ntwo', 'three'], 'CRLF and a byte order mark')
  t.same(await read(join(folder, 'end.txt')), ['one', 'two'], 'whitespace at the end')
})

t.test('documents know the line they begin on', async (t) => {
  const folder = t.testdir({
    'plain.txt': '\n \t\r\none\r\ntwo\r\n\r\n\n three\n',
    'lines.jsonl': '\n{"text":"a\\nb"}\n{"text":"c"}\n',
  })
  const corpus = await openCorpus([join(folder, 'plain.txt'), join(folder, 'lines.jsonl')])
  const places: [number, boolean][] = []
  for await (const { line, isJsonLine } of corpus.documents()) places.push([line, isJsonLine])
  t.same(places, [
    [3, false],
    [7, false],
    [2, true],
    [3, true],
  ])
})

t.test('files come in the order given, the matches of a glob sorted, each once', async (t) => {
  const folder = t.testdir({
    'b.txt': 'b',
    'a.txt': 'a',
    'B.txt': 'B',
    'z[1].txt': 'z',
    sub: { 'c.txt': 'c', 'd.md': 'd' },
  })
  const at = (...names: string[]): string[] => names.map((name) => join(folder, name))
  t.same(await read(at('b.txt', 'a.txt')), ['b', 'a'])
  t.same(await read(at('?.txt')), ['B', 'a', 'b'], 'by code units, whatever the locale')
  t.same(await read(at('b.txt', '**/{a,b,c}.txt')), ['b', 'a', 'c'], 'a file named twice counts once')
  t.same(await read(at('z[1].txt')), ['z'], 'a name that looks like a pattern')
})

t.test('gzip is known by its first bytes, with one member or several', async (t) => {
  const folder = t.testdir()
  const path = join(folder, 'no-ending')
  writeFileSync(path, Buffer.concat([gzipSync('one\n\ntw'), gzipSync('o\n\nthree')]))
  t.same(await read(path), ['one', 'two', 'three'])
  writeFileSync(join(folder, 'plain.gz'), 'not packed')
  t.same(await read(join(folder, 'plain.gz')), ['not packed'])
})

t.test('JSON lines give the text field of each object', async (t) => {
  const rows = [{ id: 1, text: 'one\r\n\r\ntwo' }, { text: ' \n' }, { text: 'grüß 😀', body: 'b' }]
  const lines = `\ufeff${rows.map((row) => JSON.stringify(row)).join('\r\n')}\n\n`
  const folder = t.testdir({ 'a.jsonl': lines, 'b.ndjson': lines, 'c.data': lines })
  writeFileSync(join(folder, 'd.jsonl.gz'), gzipSync(lines))
  const expected = ['one\n\ntwo', 'grüß 😀']
  for (const name of ['a.jsonl', 'b.ndjson', 'd.jsonl.gz'])
    t.same(await read(join(folder, name)), expected, name)
  t.same(await read(join(folder, 'c.data'), { format: 'jsonl' }), expected)
  t.equal((await read(join(folder, 'a.jsonl'), { format: 'text' })).length, 1)
  t.same(await read(`${t.testdir({ 'a.jsonl': '{"body":"x"}' })}/a.jsonl`, { textField: 'body' }), ['x'])
})

t.test('malformed UTF-8 becomes U+FFFD, is counted, and its place is named', async (t) => {
  const folder = t.testdir({ 'good.txt': 'already there: \ufffd' })
  const path = join(folder, 'bad.txt')
  const bytes = Buffer.from('fine\n\n\u00e9\ufffd?\nx? \ud83d\ude00? end')
  const [first, second, third] = [bytes.indexOf('?'), bytes.indexOf('? \u{1f600}'), bytes.lastIndexOf('?')]
  bytes[first] = 0xff
  bytes[second] = 0xc3
  bytes[third] = 0xe2
  writeFileSync(path, bytes)
  const corpus = await openCorpus([join(folder, 'good.txt'), path])
  t.same(await textsOf(corpus), [
    'already there: \ufffd',
    'fine',
    '\u00e9\ufffd\ufffd\nx\ufffd \u{1f600}\ufffd end',
  ])
  t.same(corpus.warnings, [{ file: path, malformed: 3, firstMalformedLine: 4, cuts: 0 }])
  await textsOf(corpus)
  t.equal(corpus.warnings[0]?.malformed, 3, 'counted anew by each reading')

  const json = join(folder, 'bad.jsonl')
  writeFileSync(
    json,
    Buffer.concat([Buffer.from('{"text":"a\\ud800b"}\n{"text":"'), Buffer.of(0xff), Buffer.from('"}')]),
  )
  const jsonCorpus = await openCorpus([json])
  t.same(await textsOf(jsonCorpus), ['a\ufffdb', '\ufffd'], 'a lone surrogate too')
  t.same(jsonCorpus.warnings, [{ file: json, malformed: 2, firstMalformedLine: 1, cuts: 0 }])
})

t.test('documents do not depend on how the bytes arrive', async (t) => {
  const alphabet = ['a', 'é', '\u{1f600}', ' ', '\n', '\n\n', '\r\n', '\xff', 'word ', '\t']
  const text = fc.array(fc.constantFrom(...alphabet), { maxLength: 120 }).map((parts) =>
    // \xff stands for a malformed byte.
    Buffer.concat(parts.map((part) => (part === '\xff' ? Buffer.of(0xff) : Buffer.from(part)))),
  )
  const documentsOf = async (bytes: Buffer, sizes: readonly number[]): Promise<unknown> => {
    async function* chunks(): AsyncGenerator<Buffer> {
      let at = 0
      for (let i = 0; at < bytes.length; i++) {
        const size = sizes.length === 0 ? bytes.length : (sizes[i % sizes.length] as number)
        yield bytes.subarray(at, at + size)
        at += size
      }
    }
    const report = { malformed: 0, firstMalformedLine: 0, cuts: 0 }
    const documents: string[] = []
    const reading = { file: 'f', report, textField: 'text', maximumDocumentBytes: 16 }
    for await (const { bytes: document } of textDocuments(chunks(), reading)) {
      if (document.length > 3 * 16)
        throw new Error('a document of more than its limit (3 bytes for a malformed one)')
      if (document.toString().trim() === '') throw new Error('a blank document')
      documents.push(document.toString())
    }
    return { documents, report }
  }
  const property = fc.asyncProperty(
    text,
    fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 5 }),
    async (bytes, sizes) => {
      const whole = (await documentsOf(bytes, [])) as { documents: string[] }
      assert.deepEqual(await documentsOf(bytes, sizes), whole)
      const words = (value: string): string => value.replace(/\s/g, '')
      assert.equal(words(whole.documents.join('')), words(bytes.toString()))
    },
  )
  await t.resolves(fc.assert(property, { numRuns: 500 }))
})

t.test(
  'a document longer than the limit is cut behind a line, a longer line behind a space, and told',
  async (t) => {
    const line = `${'word '.repeat(19)}end.\n`
    const lineCount = Math.ceil((2.5 * maximumDocumentBytes) / line.length)
    const folder = t.testdir({
      'long.txt': `short\n\n${line.repeat(lineCount)}\nlast`,
      'line.txt': 'word '.repeat(maximumDocumentBytes / 4),
      'long.jsonl': JSON.stringify({ text: line.repeat(lineCount).replaceAll('end.\n', 'end.\n\n') }),
    })
    const corpus = await openCorpus([join(folder, 'long.txt')])
    const texts = await textsOf(corpus)
    t.equal(texts.length, 5)
    t.ok(
      texts.every(
        (text) => text.length <= maximumDocumentBytes && (text.endsWith('end.') || text.length < 6),
      ),
    )
    t.equal(`${texts.slice(1, 4).join('\n')}\n`, line.repeat(lineCount))
    t.equal(corpus.warnings[0]?.cuts, 2)
    const parts = await read(join(folder, 'line.txt'))
    t.ok(parts.length === 2 && parts.every((text) => text.endsWith('word ')))
    const rows = await read(join(folder, 'long.jsonl'))
    t.equal(rows.length, 3, 'a blank line inside a JSON text parts nothing')
    t.equal(`${rows.join('\n')}\n`, line.repeat(lineCount))
  },
)

t.test('what cannot be read is named, with the way out', async (t) => {
  const folder = t.testdir({
    'blank.txt': ' \n\n\t\n',
    'empty.txt': '',
    'bad.jsonl': '{"text":"a"}\n\n{"text":\n',
    'deep.jsonl': `{"text":"a"}\n${'{"a":'.repeat(1_000_000)}`,
    'list.jsonl': '[1]',
    'field.jsonl': '{"text":"a"}\n{"body":"b","id":1}',
    'number.jsonl': '{"text":3}',
    sub: {},
  })
  const at = (name: string): string => join(folder, name)
  const packed = gzipSync(
    Buffer.from('line\n'.repeat(300_000) + Array.from({ length: 9999 }, (_, n) => n).join()),
  )
  writeFileSync(at('cut.gz'), packed.subarray(0, packed.length - 2000))
  writeFileSync(at('damaged.gz'), packed.fill(0x55, packed.length - 900, packed.length - 600))
  writeFileSync(at('a.xz'), Buffer.of(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0))
  writeFileSync(at('utf16.txt'), Buffer.from('\ufefftext', 'utf16le'))

  const fails = (name: string, code: string, message: RegExp): Promise<unknown> =>
    t.rejects(read(at(name)), { name: 'VoltaicError', code, message }, name)
  await fails('missing.txt', 'ERR_IO', /missing\.txt: ENOENT/)
  await fails('*.nothing', 'ERR_IO', /no file matches .*\*\.nothing/)
  await fails('sub', 'ERR_IO', /sub is a folder.*sub\/\*\.txt/)
  await fails('blank.txt', 'ERR_FORMAT', /no text.*blank\.txt/)
  await t.rejects(read([at('blank.txt'), at('empty.txt')]), { code: 'ERR_FORMAT', message: /2 files/ })
  await fails('bad.jsonl', 'ERR_FORMAT', /bad\.jsonl:3: not a JSON line/)
  await fails('deep.jsonl', 'ERR_FORMAT', /deep\.jsonl:2: nests deeper than 100/)
  await fails('list.jsonl', 'ERR_FORMAT', /list\.jsonl:1: expected a JSON object/)
  await fails('field.jsonl', 'ERR_FORMAT', /field\.jsonl:2: no field 'text'; the object has: body, id/)
  await fails('number.jsonl', 'ERR_FORMAT', /number\.jsonl:1: the field 'text' is number/)
  await fails('cut.gz', 'ERR_FORMAT', /cut\.gz: the gzip data .* behind line 30\d{4} \(unexpected end/)
  await fails('damaged.gz', 'ERR_FORMAT', /damaged\.gz: the gzip data .* behind line [23]\d{5} /)
  await fails('a.xz', 'ERR_UNSUPPORTED', /compressed with xz/)
  await fails('utf16.txt', 'ERR_UNSUPPORTED', /UTF-16/)
  await t.rejects(openCorpus([]), { code: 'ERR_ARGUMENT' })
  if (process.getuid?.() !== 0) {
    chmodSync(at('blank.txt'), 0)
    await fails('blank.txt', 'ERR_IO', /EACCES/)
    chmodSync(at('blank.txt'), 0o644)
  }
})

t.test('an abort signal ends the reading', async (t) => {
  const folder = t.testdir({ 'a.txt': 'one\n\ntwo\n\nthree' })
  const controller = new AbortController()
  const corpus = await openCorpus([join(folder, 'a.txt')], { signal: controller.signal })
  const seen: number[] = []
  await t.rejects(
    (async () => {
      for await (const { index } of corpus.documents()) {
        seen.push(index)
        controller.abort()
      }
    })(),
    { code: 'ERR_ABORTED' },
  )
  t.same(seen, [0])
})

t.test('the shared Wikipedia corpus has the documents its description names', needsSharedData, async (t) => {
  const corpus = await openCorpus([join(sharedData as string, 'corpus', 'wiki-en.txt.gz')])
  let documents = 0
  let words = 0
  for await (const { bytes } of corpus.documents()) {
    documents += 1
    words += Buffer.from(bytes).toString().split(/\s+/).filter(Boolean).length
  }
  t.equal(documents, 6718)
  // The description counts words as Python's split does; JavaScript's \s has U+FEFF besides.
  t.ok(Math.abs(words - 2_916_214) < 100, `${words} words`)
  t.same(corpus.warnings, [])
  t.equal(corpus.bytesRead, corpus.bytes)
})
