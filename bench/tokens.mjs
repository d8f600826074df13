// npm run bench:tokens [-- --text FILE --vocabulary FILE --peers FOLDER --megabytes N] [--json FILE]: WordPiece in MB/s of text on one
// thread, one way of calling after the other, Voltaic and its peers in turns on the same pieces of text, all ids compared; then whole
// corpora to shards over threads.
//
// Without files it takes the English texts and the vocabulary of VOLTAIC_SHARED_DATA (or ../shared/data). Peers: @huggingface/tokenizers,
// a dev dependency, and what of @huggingface/transformers and tokenizers is installed under `--peers`. A figure is the sum over pieces of
// the median time of a piece, with the least beside it: other work on the machine hits single pieces.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { gunzipSync } from 'node:zlib'
import { prepareData } from '../dist/data/index.js'
import { createTokenizer } from '../dist/text/index.js'
import { summary, writeJson } from './harness.mjs'

const { values } = parseArgs({
  options: {
    text: { type: 'string', multiple: true },
    vocabulary: { type: 'string' },
    peers: { type: 'string' },
    megabytes: { type: 'string', default: '8' },
    json: { type: 'string' },
  },
})
const shared = [process.env.VOLTAIC_SHARED_DATA, '../shared/data'].find(
  (folder) => folder && existsSync(join(folder, 'corpus')),
)
const files =
  values.text ??
  (shared ? ['wiki-en', 'novels-en'].map((name) => join(shared, 'corpus', `${name}.txt.gz`)) : [])
const vocabularyFile = values.vocabulary ?? (shared && join(shared, 'vocab', 'bert-uncased-vocab.txt'))
if (files.length === 0 || !vocabularyFile) throw new Error('name --text and --vocabulary')

const most = 1e6 * Number(values.megabytes)
const read = (file) => (file.endsWith('.gz') ? gunzipSync(readFileSync(file)) : readFileSync(file))
const vocabulary = readFileSync(vocabularyFile, 'utf8').trimEnd().split('\n')
const tokenizer = createTokenizer({ vocabulary })
const folder = mkdtempSync(join(tmpdir(), 'voltaic-'))
await tokenizer.save(folder)
const json = readFileSync(join(folder, 'tokenizer.json'), 'utf8')

/** Pieces of about 64 KiB, whole lines, without blank ones. */
function piecesOf(bytes) {
  const pieces = []
  let lines = []
  let size = 0
  for (const line of bytes.subarray(0, most).toString().split('\n')) {
    if (line.trim() === '') continue
    lines.push(line)
    size += Buffer.byteLength(line) + 1
    if (size < 65536) continue
    pieces.push({ lines, size })
    lines = []
    size = 0
  }
  if (lines.length > 0) pieces.push({ lines, size })
  return pieces.map((piece) => ({
    ...piece,
    text: piece.lines.join('\n'),
    utf8: Buffer.from(piece.lines.join('\n')),
  }))
}

// A way gives ids, or a promise of them, without special tokens, for a piece; `flat` puts what it gave into one list.
const own = (ids) => ids
const joined = (rows) => rows.flatMap((row) => Array.from(row))
const bare = { addSpecialTokens: false }
const ways = [
  ['voltaic', 'bytes', ({ utf8 }) => tokenizer.encodeBytes(utf8), own],
  ['voltaic', 'one text', ({ text }) => tokenizer.encode(text), own],
  ['voltaic', 'a paragraph a call', ({ lines }) => lines.map((line) => tokenizer.encode(line)), joined],
  ['voltaic', 'a batch a call', ({ lines }) => tokenizer(lines, bare).inputIds, joined],
  [
    'voltaic',
    'a batch, with offsets',
    ({ lines }) => tokenizer(lines, { ...bare, returnOffsetsMapping: true }).inputIds,
    joined,
  ],
]

async function addPeer(name, add) {
  try {
    await add()
  } catch (error) {
    console.log(`# ${name}: ${error.message.split('\n')[0]}`)
  }
}
const require = createRequire(values.peers ? `${values.peers}/` : import.meta.url)
const peerBare = { add_special_tokens: false }
await addPeer('@huggingface/tokenizers', () => {
  const { Tokenizer } = createRequire(import.meta.url)('@huggingface/tokenizers')
  const peer = new Tokenizer(JSON.parse(json), { tokenizer_class: 'ElectraTokenizer' })
  const encode = ({ lines }) => lines.map((line) => peer.encode(line, peerBare).ids)
  ways.push(['@huggingface/tokenizers', 'a paragraph a call', encode, joined])
})
if (values.peers) {
  await addPeer('@huggingface/transformers', async () => {
    const { ElectraTokenizer } = await import(pathToFileURL(require.resolve('@huggingface/transformers')))
    const config = { tokenizer_class: 'ElectraTokenizer', do_lower_case: true, model_max_length: 1e9 }
    const peer = new ElectraTokenizer(JSON.parse(json), config)
    const encode = ({ lines }) => lines.map((line) => peer.encode(line, peerBare))
    ways.push(['@huggingface/transformers', 'a paragraph a call', encode, joined])
  })
  await addPeer('tokenizers', () => {
    process.env.TOKENIZERS_PARALLELISM = 'false'
    process.env.RAYON_NUM_THREADS = '1'
    const peer = require('tokenizers').Tokenizer.fromString(json)
    const batch = async ({ lines }) =>
      (await peer.encodeBatch(lines, { addSpecialTokens: false })).map((row) => row.getIds())
    ways.push(['tokenizers (Rust)', 'a batch a call', batch, joined])
  })
}

const rows = []
for (const file of files) {
  const pieces = piecesOf(read(file))
  const megabytes = pieces.reduce((sum, { size }) => sum + size, 0) / 1e6
  const paragraphs = pieces.reduce((sum, { lines }) => sum + lines.length, 0)
  console.log(`\n${file}: ${megabytes.toFixed(1)} MB, ${paragraphs} paragraphs, one thread`)
  const expected = pieces.map(({ utf8 }) => Array.from(tokenizer.encodeBytes(utf8)).join())
  const results = ways.map(() => ({ seconds: pieces.map(() => []), same: true, tokens: 0 }))
  // The whole text each time: a piece must not find the words of its own last turn in a cache.
  for (let round = 0; round < 5; round++) {
    for (const [at, [name, , encode, flat]] of ways.entries()) {
      const result = results[at]
      if (name !== 'voltaic' && round > 0) continue
      for (const [number, piece] of pieces.entries()) {
        const begin = performance.now()
        const given = await encode(piece)
        result.seconds[number].push((performance.now() - begin) / 1000)
        if (round > 0) continue
        const ids = flat(given)
        result.tokens += ids.length
        result.same &&= ids.join() === expected[number]
      }
    }
  }
  for (const [at, [name, way]] of ways.entries()) {
    const { seconds, same, tokens } = results[at]
    const [median, least] = ['median', 'least'].map((which) =>
      seconds.reduce((sum, times) => sum + summary(times)[which], 0),
    )
    const rate = megabytes / median
    rows.push({ file, name, way, megabytesPerSecond: rate, best: megabytes / least, tokens, same })
    console.log(
      `${name.padEnd(26)} ${way.padEnd(22)} ${rate.toFixed(1).padStart(7)} MB/s (best ${(megabytes / least).toFixed(1)}), ` +
        `${((1e9 * median) / paragraphs).toFixed(0)} ns a paragraph, ${same ? 'same ids' : 'OTHER IDS'}`,
    )
  }
}

console.log('\ncorpora to shards')
const corpus = files.map((file, at) => {
  const path = join(folder, `${at}.txt`)
  writeFileSync(path, read(file))
  return path
})
const bytes = corpus.reduce((sum, path) => sum + readFileSync(path).length, 0)
const counts = [...new Set([1, 2, availableParallelism()])].sort((a, b) => a - b)
const seconds = new Map(counts.map((threads) => [threads, []]))
for (let round = 0; round < 3; round++) {
  for (const threads of counts) {
    const output = mkdtempSync(join(folder, 'out-'))
    const begin = performance.now()
    const data = await prepareData({ corpus, tokenizer, sequenceLength: 128, output, threads })
    seconds.get(threads).push((performance.now() - begin) / 1000)
    data.close()
    rmSync(output, { recursive: true })
  }
}
for (const threads of counts) {
  const { median, least } = summary(seconds.get(threads))
  rows.push({
    name: 'prepareData',
    threads,
    megabytesPerSecond: bytes / 1e6 / median,
    best: bytes / 1e6 / least,
  })
  console.log(
    `${threads} threads: ${(bytes / 1e6 / median).toFixed(1)} MB/s (best ${(bytes / 1e6 / least).toFixed(1)})`,
  )
}
rmSync(folder, { recursive: true })
console.log(`peak memory ${(process.resourceUsage().maxRSS / 1024).toFixed(0)} MB, peers included`)
writeJson({ rows })
