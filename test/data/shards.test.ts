/** Shards: the same bytes however they are made, used again where they fit, and never used where they are damaged. */
import { spawn } from 'node:child_process'
import {
  appendFileSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import t from 'tap'
import { openCorpus } from '../../dist/data/index.js'
import { prepareShards, type ShardOptions, type TokenStore } from '../../dist/data/shards.js'
import { createTokenizerPool } from '../../dist/data/tokenize.js'
import { createTokenizer } from '../../dist/text/index.js'
import { madeUpText, tokenizer } from './text.js'

const text = madeUpText(1, 600_000)
/** Small, so that there are many: about 37 pieces in 8 shards. */
const sizes = { pieceBytes: 16 * 1024, shardTokens: 30_000 }

async function prepare(
  folder: string,
  files: string[],
  options: Partial<ShardOptions> = {},
): Promise<TokenStore> {
  const { signal } = options
  const corpus = await openCorpus(files, signal && { signal })
  return prepareShards({ corpus, tokenizer, folder, threads: 2, ...sizes, ...options })
}

/** The files of a store's folder by name. */
function filesOf(folder: string, ending = ''): Record<string, string> {
  const names = readdirSync(folder)
    .filter((name) => name.endsWith(ending))
    .sort()
  return Object.fromEntries(names.map((name) => [name, readFileSync(join(folder, name)).toString('base64')]))
}

t.test('shards hold the tokens of every line of every document, in order', async (t) => {
  const folder = t.testdir({ 'a.txt': text })
  const store = await prepare(folder, [join(folder, 'a.txt')])
  const documents: string[] = []
  for (const { documents: starts, sentences, tokens } of store.shards) {
    for (let document = 0; document + 1 < starts.length; document++) {
      const lines: string[] = []
      for (let line = starts[document] as number; line < (starts[document + 1] as number); line++) {
        lines.push(tokens.subarray(sentences[line], sentences[line + 1]).join())
      }
      documents.push(lines.join('\n'))
    }
  }
  const encode = (line: string): string => tokenizer.encodeBytes(Buffer.from(line)).join()
  const expected = text
    .trimEnd()
    .split('\n\n')
    .map((document) => document.split('\n').map(encode).join('\n'))
  t.ok(store.shards.length > 3, `${store.shards.length} shards`)
  t.equal(documents.length, expected.length)
  t.ok(documents.join('\n\n') === expected.join('\n\n'), 'all tokens are the same')
  t.equal(store.manifest.documents, expected.length)
  t.equal(store.manifest.tokens, expected.join('\n').split(/[\n,]+/).length)
  store.close()
})

t.test('one thread, two threads and no thread at all give the same bytes', async (t) => {
  const folder = t.testdir({ 'a.txt': text, one: {}, two: {}, none: {} })
  // Packed, the corpus is so small that it is tokenized without a thread.
  const packed = join(folder, 'a.gz')
  writeFileSync(packed, gzipSync(text, { level: 9 }))
  t.ok(statSync(packed).size < 256 * 1024 && text.length > 256 * 1024)
  const plain = join(folder, 'a.txt')
  const one = await prepare(join(folder, 'one'), [plain], { threads: 1 })
  const two = await prepare(join(folder, 'two'), [plain], { threads: 2 })
  const none = await prepare(join(folder, 'none'), [packed])
  t.same(filesOf(two.folder), filesOf(one.folder))
  t.same(filesOf(none.folder, '.bin'), filesOf(one.folder, '.bin'))
  t.equal(
    none.manifest.fingerprint,
    one.manifest.fingerprint,
    'and the same fingerprint, wherever the text lies',
  )
  for (const store of [one, two, none]) store.close()
})

t.test('shards are used again until something changes', async (t) => {
  const folder = t.testdir({ 'a.txt': 'ba ke.\n\nlo mi.', out: {} })
  const path = join(folder, 'a.txt')
  const again = async (options: Partial<ShardOptions> = {}): Promise<TokenStore> => {
    const store = await prepare(join(folder, 'out'), [path], options)
    store.close()
    return store
  }
  const first = await again()
  t.notOk(first.reused)
  const second = await again()
  t.ok(second.reused && second.folder === first.folder)
  utimesSync(path, 1, 1)
  const touched = await again()
  t.ok(!touched.reused && touched.folder !== first.folder, 'another time of change')
  t.equal(touched.manifest.fingerprint, first.manifest.fingerprint, 'but the same tokens')
  writeFileSync(path, 'ba ke.\n\nlo lo.')
  utimesSync(path, 1, 1)
  appendFileSync(path, ' mi')
  utimesSync(path, 1, 1)
  const changed = await again()
  t.ok(!changed.reused, 'another size')
  t.not(changed.manifest.fingerprint, first.manifest.fingerprint)
  const other = createTokenizer({ ...tokenizer.specification, lowercase: false })
  t.notOk((await again({ tokenizer: other })).reused, 'another tokenizer')
  t.ok((await again()).reused)
})

t.test('a damaged shard is found on opening, and the message says what to delete', async (t) => {
  const folder = t.testdir({ 'a.txt': text })
  const path = join(folder, 'a.txt')
  const out = join(folder, 'out')
  const store = await prepare(out, [path])
  store.close()
  const whole = filesOf(store.folder)
  const shard = join(store.folder, 'shard-00001.bin')
  const bytes = readFileSync(shard)

  const refused = async (name: string, message: RegExp, damage: () => void): Promise<void> => {
    damage()
    const advice = new RegExp(`${message.source}.*Delete the folder ${store.folder} and run again`)
    await t.rejects(prepare(out, [path]), { code: 'ERR_FORMAT', message: advice }, name)
    writeFileSync(shard, bytes)
  }
  const flip = (at: number) => () => {
    const copy = Buffer.from(bytes)
    copy[at] = (copy[at] as number) ^ 1
    writeFileSync(shard, copy)
  }
  await refused('a token', /shard-00001\.bin is damaged: its checksum does not match/, flip(bytes.length - 1))
  await refused('a boundary', /its checksum does not match/, flip(100))
  await refused('a count', /checksum of its header/, flip(17))
  await refused('the magic', /does not begin as a shard/, flip(0))
  await refused('cut short', /bytes, its header promises \d+/, () =>
    writeFileSync(shard, bytes.subarray(0, -2)),
  )
  await refused('nearly nothing', /does not begin as a shard/, () => writeFileSync(shard, 'VLTSHARD'))
  await refused('another shard', /not the one that the manifest/, () => {
    writeFileSync(shard, readFileSync(join(store.folder, 'shard-00000.bin')))
  })
  const manifest = join(store.folder, 'manifest.json')
  await refused('the manifest', /manifest\.json is no manifest/, () => {
    writeFileSync(manifest, readFileSync(manifest).subarray(0, 300))
  })
  rmSync(store.folder, { recursive: true })
  const anew = await prepare(out, [path])
  anew.close()
  t.same(filesOf(anew.folder), whole, 'after deleting, all is made anew')
})

t.test('a missing shard is named', async (t) => {
  const folder = t.testdir({ 'a.txt': 'ba ke.' })
  const store = await prepare(folder, [join(folder, 'a.txt')])
  store.close()
  rmSync(join(store.folder, 'shard-00000.bin'))
  await t.rejects(prepare(folder, [join(folder, 'a.txt')]), {
    code: 'ERR_IO',
    message: /shard-00000\.bin: ENOENT/,
  })
})

t.test(
  'killed at any moment and run again, the files are the same, and whole shards are not made twice',
  async (t) => {
    const folder = t.testdir({ 'a.txt': text })
    const path = join(folder, 'a.txt')
    const expected = await prepare(join(folder, 'expected'), [path])
    expected.close()
    const dist = new URL('../../dist/', import.meta.url).href
    const program = `
    import { openCorpus } from '${dist}data/index.js'
    import { prepareShards } from '${dist}data/shards.js'
    import { tokenizer } from '${new URL('./text.js', import.meta.url).href}'
    const [file, folder] = process.argv.slice(1)
    await prepareShards({
      corpus: await openCorpus([file]), tokenizer, folder, threads: 2, ...${JSON.stringify(sizes)},
      onProgress: ({ documents }) => process.stdout.write('.'),
    })
    process.stdout.write('done')`
    const killAfter = (out: string, pieces: number): Promise<string> =>
      new Promise((resolve) => {
        const child = spawn(process.execPath, ['--input-type=module', '-e', program, path, out], {
          stdio: ['ignore', 'pipe', 'inherit'],
        })
        let output = ''
        child.stdout.on('data', (data) => {
          output += data
          if (output.length >= pieces) child.kill('SIGKILL')
        })
        child.on('close', (_, signal) => resolve(`${signal} ${output.includes('done')}`))
      })
    let taken = 0
    for (const pieces of [1, 9, 18, 30]) {
      const out = join(folder, `out-${pieces}`)
      t.equal(await killAfter(out, pieces), 'SIGKILL false', `killed after ${pieces} pieces`)
      const built = join(out, expected.manifest.key)
      const whole = readdirSync(built).filter((name) => name.endsWith('.bin') && !name.startsWith('.'))
      t.notOk(readdirSync(built).includes('manifest.json'))
      const inodes = whole.map((name) => statSync(join(built, name)).ino)
      taken += whole.length
      const store = await prepare(out, [path])
      store.close()
      t.same(filesOf(store.folder), filesOf(expected.folder))
      t.same(
        whole.map((name) => statSync(join(built, name)).ino),
        inodes,
      )
    }
    t.ok(taken > 3, `${taken} whole shards were there after the kills`)
  },
)

t.test('a shard that a crash left damaged is written again', async (t) => {
  const folder = t.testdir({ 'a.txt': text })
  const path = join(folder, 'a.txt')
  const store = await prepare(join(folder, 'out'), [path])
  store.close()
  const whole = filesOf(store.folder)
  rmSync(join(store.folder, 'manifest.json'))
  writeFileSync(join(store.folder, 'shard-00002.bin'), 'half')
  writeFileSync(join(store.folder, 'shard-00099.bin'), 'of nothing')
  const again = await prepare(join(folder, 'out'), [path])
  again.close()
  t.same(filesOf(again.folder), whole)
})

t.test('an abort stops the work with ERR_ABORTED; the next run goes on', async (t) => {
  const folder = t.testdir({ 'a.txt': text })
  const path = join(folder, 'a.txt')
  const controller = new AbortController()
  let calls = 0
  const stopped = prepare(join(folder, 'out'), [path], {
    signal: controller.signal,
    onProgress: () => {
      calls += 1
      if (calls === 12) controller.abort()
    },
  })
  await t.rejects(stopped, { code: 'ERR_ABORTED' })
  t.equal(calls, 12)
  const progress: number[][] = []
  const store = await prepare(join(folder, 'out'), [path], {
    onProgress: ({ bytes, totalBytes, documents, tokens }) =>
      progress.push([bytes, totalBytes, documents, tokens]),
  })
  t.same(progress.at(-1), [text.length, text.length, store.manifest.documents, store.manifest.tokens])
  t.ok(progress.length < 37, 'pieces of whole shards are passed over')
  store.close()
})

t.test('a corpus that changes while it is read is noticed', async (t) => {
  const folder = t.testdir({ 'a.txt': text })
  const path = join(folder, 'a.txt')
  let changed = false
  const onProgress = (): void => {
    if (!changed) appendFileSync(path, '\nba')
    changed = true
  }
  const message = /a\.txt was changed while it was being read/
  await t.rejects(prepare(join(folder, 'out'), [path], { onProgress }), { code: 'ERR_IO', message })
})

t.test('a folder that cannot be made is an error before any work', async (t) => {
  const folder = t.testdir({ 'a.txt': 'ba ke.', out: 'a file' })
  await t.rejects(prepare(join(folder, 'out'), [join(folder, 'a.txt')]), {
    code: 'ERR_IO',
    message: /make .*out/,
  })
})

t.test('a thread that cannot start or that fails rejects its pieces instead of hanging', async (t) => {
  const piece = () => ({ bytes: new Uint8Array(3).fill(0x61), ends: Uint32Array.of(3) })
  const missing = createTokenizerPool(tokenizer.specification, 2, new URL('file:///no/such/worker.js'))
  await t.rejects(missing.tokenize(piece()), /Cannot find module/)
  await t.rejects(missing.tokenize(piece()), 'and those that come later')
  await missing.close()
  const silent = createTokenizerPool(tokenizer.specification, 1, new URL('data:text/javascript,'))
  await t.rejects(silent.tokenize(piece()), { code: 'ERR_BACKEND', message: /thread ended/ })
  await silent.close()
})
