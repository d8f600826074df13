import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { AutoTokenizer, defineElectraConfig, ElectraForPreTraining } from 'voltaic'
import { isHubName, resolveModelFolder } from '../../dist/formats/hub.js'
import { hubSettings } from '../../dist/formats/hub-cache.js'
import { type HubServer, startHub } from '../helpers/formats/hub-server.js'

const environment = [
  'HF_ENDPOINT',
  'HF_HOME',
  'HF_HUB_CACHE',
  'HF_HUB_OFFLINE',
  'HF_TOKEN',
  'HF_HUB_ETAG_TIMEOUT',
]
const before = Object.fromEntries(environment.map((name) => [name, process.env[name]]))
let hub: HubServer

t.setTimeout(120_000)

t.beforeEach(async (t) => {
  hub = await startHub()
  for (const name of environment) delete process.env[name]
  Object.assign(process.env, { HF_ENDPOINT: hub.endpoint, HF_HOME: t.testdir(), HF_HUB_ETAG_TIMEOUT: '20' })
})
t.afterEach(() => hub.close())
t.teardown(() => {
  for (const name of environment) {
    if (before[name] === undefined) delete process.env[name]
    else process.env[name] = before[name]
  }
})

const small = (content: string): { content: Buffer } => ({ content: Buffer.from(content) })
const large = (content: Buffer): { content: Buffer; large: true } => ({ content, large: true })
const cacheOf = (name: string): string =>
  join(process.env.HF_HOME!, 'hub', `models--${name.replace('/', '--')}`)
const blobsOf = (name: string): string[] => readdirSync(join(cacheOf(name), 'blobs')).sort()
const weights = Buffer.from(Array.from({ length: 300_000 }, (_, i) => i & 0xff))

function serveModel(name: string): void {
  hub.files.set(`${name}/config.json`, small('{}'))
  hub.files.set(`${name}/model.safetensors`, large(weights))
  hub.files.set(`${name}/vocab.txt`, small('[PAD]\n'))
}

t.test('what is a name', async (t) => {
  for (const name of ['google/electra-small', 'a/b', 'A.b-c/d_e.f']) t.ok(isHubName(name), name)
  for (const name of [
    'model',
    './a/b',
    '/a/b',
    'a/b/c',
    '../b',
    'a/..',
    'a/b..c',
    'a--b/c',
    'a/b-',
    'a b/c',
    'a\\b/c',
    '',
  ])
    t.notOk(isHubName(name), name)
  t.equal(await resolveModelFolder('no-such-folder'), 'no-such-folder')
  t.strictSame(hub.requests, [])
  const folder = t.testdir({ a: { b: {} } })
  t.equal(await resolveModelFolder(join(folder, 'a')), join(folder, 'a'))
})

t.test('the environment', async (t) => {
  t.match(hubSettings({ HF_HOME: '/h' }), {
    cache: '/h/hub',
    endpoint: 'https://huggingface.co',
    offline: false,
  })
  t.match(hubSettings({ XDG_CACHE_HOME: '/x' }), { cache: '/x/huggingface/hub', timeout: 10_000 })
  t.match(
    hubSettings({ HF_HOME: '/h', HF_HUB_CACHE: '/c', HF_ENDPOINT: 'http://m/', HF_HUB_OFFLINE: 'yes' }),
    {
      cache: '/c',
      endpoint: 'http://m',
      offline: true,
    },
  )
  const home = t.testdir({ token: 'stored\n' })
  t.equal(hubSettings({ HF_HOME: home }).token, 'stored')
  t.equal(hubSettings({ HF_HOME: home, HF_TOKEN: 'given' }).token, 'given')
})

t.test('a model is downloaded into the cache’s layout, once', async (t) => {
  serveModel('o/m')
  const seen: string[] = []
  const folder = await resolveModelFolder('o/m', undefined, { onDownload: ({ file }) => seen.push(file) })
  t.equal(folder, join(cacheOf('o/m'), 'snapshots', hub.commit))
  t.strictSame(readdirSync(folder).sort(), ['config.json', 'model.safetensors', 'vocab.txt'])
  t.ok(readFileSync(join(folder, 'model.safetensors')).equals(weights))
  t.match(readlinkSync(join(folder, 'model.safetensors')), /^\.\.\/\.\.\/blobs\/[0-9a-f]{64}$/)
  t.match(readlinkSync(join(folder, 'config.json')), /^\.\.\/\.\.\/blobs\/[0-9a-f]{40}$/)
  t.equal(readFileSync(join(cacheOf('o/m'), 'refs', 'main'), 'utf8'), hub.commit)
  t.strictSame(readdirSync(join(cacheOf('o/m'), '.no_exist', hub.commit)).sort(), [
    'added_tokens.json',
    'special_tokens_map.json',
    'tokenizer.json',
    'tokenizer_config.json',
  ])
  t.equal(blobsOf('o/m').length, 3)
  t.ok(['config.json', 'model.safetensors', 'vocab.txt'].every((file) => seen.includes(file)))

  hub.requests.length = 0
  t.equal(await resolveModelFolder('o/m'), folder)
  t.strictSame(
    hub.requests,
    ['HEAD /o/m/resolve/main/config.json'],
    'the second time asks for the commit alone',
  )

  hub.requests.length = 0
  t.equal(await resolveModelFolder('o/m', ['model'], { revision: hub.commit }), folder)
  t.strictSame(hub.requests, [], 'a commit that is there asks nothing')

  const [first, second] = [hub.commit, '2'.repeat(40)]
  hub.commit = second
  hub.files.set('o/m/config.json', small('{"hidden_size":128}'))
  const next = await resolveModelFolder('o/m')
  t.equal(next, join(cacheOf('o/m'), 'snapshots', second))
  t.equal(readFileSync(join(next, 'config.json'), 'utf8'), '{"hidden_size":128}')
  t.equal(readFileSync(join(folder, 'config.json'), 'utf8'), '{}', `${first} stays`)
  t.equal(blobsOf('o/m').length, 4, 'what did not change is not downloaded again')
})

t.test('the token goes to the hub and not to the store', async (t) => {
  process.env.HF_TOKEN = 'secret'
  serveModel('o/m')
  await resolveModelFolder('o/m')
  for (const request of hub.requests)
    t.equal(request.endsWith('+token'), !request.startsWith('store'), request)
})

t.test('without a network the cache serves, or the message says what to do', async (t) => {
  serveModel('o/m')
  const folder = await resolveModelFolder('o/m')
  const remedy =
    /no folder of that name here, not in the cache .*Run once with a network, set HF_ENDPOINT to a mirror of/
  hub.requests.length = 0
  process.env.HF_HUB_OFFLINE = '1'
  t.equal(await resolveModelFolder('o/m'), folder)
  await t.rejects(resolveModelFolder('o/other'), { code: 'ERR_IO', message: /HF_HUB_OFFLINE is set/ })
  await t.rejects(resolveModelFolder('o/other'), { code: 'ERR_IO', message: remedy })
  delete process.env.HF_HUB_OFFLINE
  t.equal(await resolveModelFolder('o/m', ['model'], { localFilesOnly: true }), folder)
  t.strictSame(hub.requests, [])

  const warnings: string[] = []
  const listen = (warning: Error): void => void warnings.push(warning.message)
  process.on('warning', listen)
  hub.failure = { status: 503 }
  t.equal(await resolveModelFolder('o/m'), folder, 'a hub that fails')
  process.env.HF_ENDPOINT = 'http://127.0.0.1:9'
  t.equal(await resolveModelFolder('o/m'), folder, 'a hub that is not there')
  await t.rejects(resolveModelFolder('o/other'), { code: 'ERR_IO', message: remedy })
  await t.rejects(resolveModelFolder('o/other'), { code: 'ERR_IO', message: /cannot be reached/ })
  await new Promise((resolve) => setImmediate(resolve))
  process.off('warning', listen)
  t.match(warnings, [/the answer was 503.*the model in the cache is used/, /cannot be reached/])
})

t.test('what the hub refuses is said', async (t) => {
  const cases: [failure: HubServer['failure'], message: RegExp][] = [
    [
      { status: 404, code: 'RepoNotFound' },
      /no such model, or a private one, and no folder of that name here: check the name, or set HF_TOKEN/,
    ],
    [{ status: 401 }, /no such model, or a private one/],
    [{ status: 403, code: 'GatedRepo' }, /accept the conditions/],
    [{ status: 404, code: 'RevisionNotFound' }, /no such revision/],
    [{ status: 404 }, /no such model/],
    [{ status: 200 }, /names no commit/],
    [{ status: 500 }, /not to be downloaded: .*500/],
  ]
  for (const [failure, message] of cases) {
    hub.failure = failure
    await t.rejects(resolveModelFolder('o/m'), { code: 'ERR_IO', message }, String(message))
  }
  hub.failure = undefined
  await t.rejects(resolveModelFolder('o/m', ['model'], { revision: '../x' }), { code: 'ERR_ARGUMENT' })
  hub.files.set('o/evil/config.json', { ...small('{}'), etag: '../../../evil' })
  await t.rejects(resolveModelFolder('o/evil'), { code: 'ERR_IO', message: /expected a hash \(ETag\)/ })
  hub.files.set('o/readme/README.md', small('x'))
  await t.rejects(resolveModelFolder('o/readme'), {
    code: 'ERR_FORMAT',
    message: /none of the files that are read/,
  })
})

t.test('a renamed repository', async (t) => {
  serveModel('new/m')
  const folder = await resolveModelFolder('old/m')
  t.equal(folder, join(cacheOf('old/m'), 'snapshots', hub.commit))
  t.equal(readFileSync(join(folder, 'config.json'), 'utf8'), '{}')
})

t.test('a download that breaks off is gone on with', async (t) => {
  for (const ranges of [true, false]) {
    const name = `o/broken-${ranges}`
    hub.files.clear()
    serveModel(name)
    hub.ranges = ranges
    hub.files.set(`${name}/model.safetensors`, { ...large(weights), breakAfter: 100_000 })
    hub.requests.length = 0
    await t.rejects(resolveModelFolder(name), { code: 'ERR_IO', message: /the download broke off/ })
    const partial = blobsOf(name).find((blob) => blob.endsWith('.incomplete'))
    t.match(partial, /^[0-9a-f]{64}\.incomplete$/)
    const folder = await resolveModelFolder(name)
    t.ok(readFileSync(join(folder, 'model.safetensors')).equals(weights))
    t.match(hub.requests.at(-1), /^store GET \/[0-9a-f]{64} bytes=\d+-$/)
    t.notOk(blobsOf(name).some((blob) => blob.endsWith('.incomplete')))
  }
})

t.test('what a killed process left is taken over; what a living one writes is not', async (t) => {
  serveModel('o/m')
  const folder = await resolveModelFolder('o/m')
  const blob = readlinkSync(join(folder, 'model.safetensors')).slice('../../blobs/'.length)
  const blobs = join(cacheOf('o/m'), 'blobs')
  rmSync(join(blobs, blob))
  writeFileSync(join(blobs, `${blob}.1-0.incomplete`), 'not ours')
  writeFileSync(join(blobs, `${blob}.4194305-0.incomplete`), weights.subarray(0, 1000))
  hub.requests.length = 0
  await resolveModelFolder('o/m')
  t.equal(hub.requests.at(-1), `store GET /${blob} bytes=1000-`)
  t.ok(readFileSync(join(blobs, blob)).equals(weights))
  t.equal(readFileSync(join(blobs, `${blob}.1-0.incomplete`), 'utf8'), 'not ours')
})

t.test('content that is not what its hash says is not kept', async (t) => {
  serveModel('o/m')
  hub.files.set('o/m/model.safetensors', { ...large(weights), etag: 'a'.repeat(64) })
  await t.rejects(resolveModelFolder('o/m'), {
    code: 'ERR_IO',
    message: /others than its hash a{64} says; run again/,
  })
  t.notOk(existsSync(join(cacheOf('o/m'), 'blobs', 'a'.repeat(64))))
  hub.files.set('o/small/config.json', { ...small('{}'), etag: 'b'.repeat(40) })
  await t.rejects(resolveModelFolder('o/small'), { code: 'ERR_IO', message: /others than its hash/ })

  mkdirSync(join(cacheOf('o/part'), 'blobs'), { recursive: true })
  serveModel('o/part')
  const folder = await resolveModelFolder('o/part')
  const blob = readlinkSync(join(folder, 'model.safetensors')).slice('../../blobs/'.length)
  const path = join(cacheOf('o/part'), 'blobs', blob)
  rmSync(path)
  writeFileSync(`${path}.incomplete`, Buffer.alloc(1000, 1))
  await t.rejects(resolveModelFolder('o/part'), { code: 'ERR_IO', message: /run again/ }, 'a damaged part')
  await resolveModelFolder('o/part')
  t.ok(readFileSync(path).equals(weights), 'and the next run starts anew')
})

t.test('calls at the same time share a download', async (t) => {
  serveModel('o/m')
  const folders = await Promise.all(Array.from({ length: 5 }, () => resolveModelFolder('o/m')))
  t.equal(new Set(folders).size, 1)
  t.equal(hub.requests.filter((request) => request.startsWith('store GET')).length, 1)
})

t.test('weights in other formats, and in shards', async (t) => {
  hub.files.set('o/pt/config.json', small('{}'))
  hub.files.set('o/pt/pytorch_model.bin', large(weights))
  t.ok(existsSync(join(await resolveModelFolder('o/pt'), 'pytorch_model.bin')))
  hub.files.set('o/shards/config.json', small('{}'))
  const map = { a: 'model-1.safetensors', b: 'model-2.safetensors' }
  hub.files.set('o/shards/model.safetensors.index.json', small(JSON.stringify({ weight_map: map })))
  for (const file of Object.values(map)) hub.files.set(`o/shards/${file}`, small(file))
  const folder = await resolveModelFolder('o/shards')
  t.ok(Object.values(map).every((file) => existsSync(join(folder, file))))
})

t.test('fromPretrained of models and tokenizers', async (t) => {
  const folder = join(t.testdir(), 'model')
  const config = defineElectraConfig({
    vocabSize: 5,
    hiddenSize: 8,
    embeddingSize: 4,
    numHiddenLayers: 1,
    numAttentionHeads: 2,
    intermediateSize: 8,
    maxPositionEmbeddings: 4,
  })
  const model = new ElectraForPreTraining(config, { seed: 1 })
  await model.savePretrained(folder, { files: { 'vocab.txt': '[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n' } })
  for (const file of readdirSync(folder))
    hub.files.set(`o/tiny/${file}`, { content: readFileSync(join(folder, file)), large: file.endsWith('s') })
  const loaded = await ElectraForPreTraining.fromPretrained('o/tiny', { device: 'cpu' })
  t.equal(loaded.config.hiddenSize, 8)
  model.dispose()
  loaded.dispose()
  const tokenizer = await AutoTokenizer.fromPretrained('o/tiny')
  t.equal(tokenizer.vocabularySize, 5)
  await t.rejects(AutoTokenizer.fromPretrained('o/none'), { code: 'ERR_IO', message: /no such model/ })
  const cacheDir = t.testdir()
  await AutoTokenizer.fromPretrained('o/tiny', { cacheDir, revision: 'main', cased: true })
  t.strictSame(readdirSync(cacheDir), ['models--o--tiny'])
})
