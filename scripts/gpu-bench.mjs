// npm run gpu:bench [-- --only TEXT] [--time-limit SECONDS] [--output DIR] [--tune] [--no-torch] [--emulated]: every kernel and whole
// pre-training steps on the card, and the same in PyTorch where a python3 has it. docs/gpu.md says how to read the results.
import { createWriteStream, mkdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { buildLibrary } from '../bench/gpu/build.mjs'
import { LineServer } from '../bench/gpu/line-server.mjs'
import { card, emulated, exists, findPython, nameForFile, root, stamp } from '../bench/gpu/machine.mjs'
import { leaveOut, planOf, stepName } from '../bench/gpu/plan.mjs'
import { markdown, writeReport } from '../bench/gpu/report.mjs'

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    'time-limit': { type: 'string', default: 'Infinity' },
    output: { type: 'string', default: join(root, 'bench', 'results') },
    device: { type: 'string', default: 'cuda' },
    tune: { type: 'boolean', default: false },
    'no-torch': { type: 'boolean', default: false },
    emulated: { type: 'boolean', default: false },
  },
})
const began = performance.now()
const secondsLeft = () => Number(values['time-limit']) - (performance.now() - began) / 1000
if (Number.isNaN(secondsLeft())) throw new Error('--time-limit is a number of seconds')
try {
  if (!exists('dist', 'index.js')) throw new Error('dist/ is missing: npx tsc -b .')
  if (values.device === 'cuda') buildLibrary()
} catch (error) {
  console.error(`no benchmark: ${error.message}`)
  process.exit(1)
}

const real = values.device === 'cuda' && !emulated
const scale = real ? 'gpu' : 'tiny'
const output = resolve(values.output)
mkdirSync(output, { recursive: true })
const timing = real ? { rounds: 9, roundMs: 20, leastCalls: 20 } : { rounds: 3, roundMs: 1 }
const steps = real
  ? { warm: 6, rounds: 7, stepsPerRound: 5, seconds: 6 }
  : { warm: 2, rounds: 3, stepsPerRound: 1, seconds: 60 }

const log = createWriteStream(join(output, 'gpu-bench.log'))
const worker = (name, env) =>
  new LineServer({
    name,
    command: process.execPath,
    args: [join(root, 'bench', 'gpu', 'worker.mjs')],
    env: {
      VOLTAIC_BENCH_DEVICE: values.device,
      ...(values.tune ? { VOLTAIC_BENCH_TUNE: '1' } : {}),
      ...env,
    },
    log: (text) => log.write(text),
  })
const voltaic = worker('the worker', {})
// Lists and configurations: it never touches the card.
const lister = worker('the list', { VOLTAIC_BENCH_DEVICE: 'cpu' })
const withoutLibrary = worker('the worker without a matmul library', { VOLTAIC_CUBLASLT: 'off' })
const python = values['no-torch'] ? undefined : findPython()
const torch =
  python &&
  new LineServer({
    name: 'PyTorch',
    command: python,
    args: [join(root, 'bench', 'gpu', 'peer_torch.py'), ...(real ? [] : ['--smoke'])],
    env: { PYTHONDONTWRITEBYTECODE: '1', PYTHONUNBUFFERED: '1' },
    log: (text) => log.write(text),
  })

/** No answer is waited for longer than this, nor past the end of the run. */
const within = (seconds) => Math.max(1, Math.min(seconds, secondsLeft())) * 1000
const failure = ({ code, message }) => ({ error: message, code })

function stop(code) {
  for (const server of [voltaic, withoutLibrary, lister, torch]) server?.stop()
  log.end(() => process.exit(code))
}

const [info, rows, peer] = await Promise.all([
  voltaic.ask({ do: 'info' }, within(60)),
  lister.ask({ do: 'list', scale }, within(60)),
  torch?.ask({ op: 'info' }, within(120)),
])
if (info.error) {
  console.error(`no benchmark: ${info.error.message}`)
  stop(1)
  await new Promise(() => undefined)
}
const torchRuns = peer !== undefined && !peer.error
const results = {
  when: new Date().toISOString(),
  version: JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version,
  device: info,
  card: card(),
  torch: torchRuns ? peer : undefined,
  notes: [],
  ceilings: undefined,
  rows: [],
  leftOut: [],
}
if (!real)
  results.notes.push(
    'NOT A MEASUREMENT: this run shows that the benchmark works, on tiny shapes without a card. Its times mean nothing.',
  )
if (values.tune) results.notes.push('--tune: the matmul library timed its algorithms at their first use.')
if (peer?.error) results.notes.push(`PyTorch takes no part: ${peer.error.message}`)
const base = join(output, `${nameForFile(info.name)}${emulated ? '-emulated' : ''}-${stamp()}`)

// Past twice the second-level cache: PyTorch knows its size; else the largest of today's.
const rotateBytes = real ? 2 * (peer?.cacheBytes || 128e6) : 0

async function measureCeilings() {
  const own = await voltaic.ask({ do: 'ceilings', scale, ...timing }, within(120))
  if (own.error) {
    results.notes.push(`No ceilings: ${own.error.message}`)
    return
  }
  const theirs = { copyBytesPerSecond: 0, productFlops: 0 }
  if (torchRuns && real) {
    const elements = 512 << 20
    const copy = await torch.ask({ op: 'copy', elements, dtype: 'bfloat16' }, within(60))
    const square = { m: 8192, n: 8192, k: 8192, transposeA: 0, transposeB: 1, dtype: 'bfloat16' }
    const product = await torch.ask({ op: 'product', ...square }, within(60))
    if (!copy.error) theirs.copyBytesPerSecond = (4 * elements) / copy.least
    if (!product.error) theirs.productFlops = (2 * 8192 ** 3) / product.least
  }
  results.ceilings = {
    copyBytesPerSecond: Math.max(own.copyBytesPerSecond, theirs.copyBytesPerSecond),
    productFlops: Math.max(own.productFlops, theirs.productFlops),
    launchSeconds: own.launchSeconds,
    queueSeconds: own.queueSeconds,
    what: own.what,
    own: { copyBytesPerSecond: own.copyBytesPerSecond, productFlops: own.productFlops },
    torch: theirs,
  }
}

/** A row's rates and its percent of the ceiling (bench/harness.mjs says which). */
function rates({ median }, { bytes = 0, flops = 0 }) {
  const { copyBytesPerSecond = 0, productFlops = 0 } = results.ceilings ?? {}
  const moving = copyBytesPerSecond > 0 ? bytes / copyBytesPerSecond : 0
  const computing = productFlops > 0 ? flops / productFlops : 0
  const floor = Math.max(moving, computing)
  return {
    ...(bytes > 0 ? { gigabytes: bytes / median / 1e9 } : {}),
    ...(flops > 0 ? { gflops: flops / median / 1e9 } : {}),
    ...(floor > 0 ? { percent: (100 * floor) / median, ceiling: floor === moving ? 'copy' : 'product' } : {}),
  }
}

async function kernel({ id, row, own }) {
  const { family, name, work, peer: request } = row
  const server = own ? withoutLibrary : voltaic
  const found = await server.ask({ do: 'row', scale, family, name, rotateBytes, ...timing }, within(60))
  const ours = found.error ? failure(found.error) : { ...found, ...rates(found, work) }
  const entry = { kind: 'row', id, work, ours, short: ours.median < 2 * results.ceilings?.launchSeconds }
  results.rows.push(entry)
  writeReport(base, results)
  if (!torchRuns || !request) return
  const sets = found.sets ?? Math.min(16, 1 + Math.ceil(rotateBytes / Math.max(1, work.bytes ?? rotateBytes)))
  const theirs = await torch.ask({ ...request, sets, leave_out: leaveOut(request) }, within(90))
  entry.peer = theirs.error ? failure(theirs.error) : theirs
}

async function step({ id, step: sizes }) {
  // A process of its own, so that its peak of memory is this step's.
  voltaic.stop()
  const found = await voltaic.ask(
    { do: 'step', step: { ...sizes, precision: 'bf16' }, ...steps },
    within(120),
  )
  voltaic.stop()
  const ours = found.error
    ? failure(found.error)
    : {
        ...found,
        sequencesPerSecond: sizes.batchSize / found.median,
        tokensPerSecond: (sizes.batchSize * sizes.sequenceLength) / found.median,
        ...rates(found, { flops: found.flopsPerStep }),
      }
  const entry = { kind: 'step', id, name: stepName(sizes), sizes, ours, peers: {} }
  results.rows.push(entry)
  writeReport(base, results)
  if (!torchRuns) return
  const tries = []
  for (const precision of ['bf16', 'autocast'])
    tries.push({ precision, ...(await peerStep(sizes, { mode: 'eager', precision, ...steps }, 90)) })
  const best = tries.filter(({ median }) => median > 0).sort((a, b) => a.median - b.median)[0]
  entry.peers.eager = best ?? tries[0]
  entry.peers.eagerTried = tries
}

async function peerStep(sizes, request, seconds) {
  const configs = await lister.ask({ do: 'configs', step: sizes }, within(30))
  const { batchSize, sequenceLength } = sizes
  const found = configs.error
    ? configs
    : await torch.ask({ op: 'step', configs, batchSize, sequenceLength, ...request }, within(seconds))
  return found.error ? failure(found.error) : found
}

async function compiled({ id, step: sizes, mode }) {
  const entry = results.rows.find(({ kind, sizes: of }) => kind === 'step' && of === sizes)
  const precision = entry?.peers.eager?.precision ?? 'bf16'
  const found = { mode, precision, ...(await peerStep(sizes, { mode, precision, ...steps }, 170)) }
  if (entry) entry.peers[mode] = found
  else
    results.rows.push({ kind: 'step', id, name: stepName(sizes), sizes, ours: {}, peers: { [mode]: found } })
}

/** One line on the item just measured. */
function say({ kind, id, step: sizes, mode }) {
  const entry = results.rows.findLast((row) => (sizes ? row.sizes === sizes : row.id === id))
  const { ours } = entry
  const theirs = kind === 'row' ? entry.peer : entry.peers[mode ?? 'eager']
  const us = (side) => (side?.median ? `${(side.median * 1e6).toFixed(1)} us` : (side?.error ?? '-'))
  const percent = ours.percent ? `, ${ours.percent.toFixed(0)}% of the ${ours.ceiling}` : ''
  console.log(`${id}: ${us(ours)}${percent}; PyTorch ${us(theirs)}`)
}

await measureCeilings()
const plan = planOf(rows, scale, { withoutLibrary: values.device === 'cuda' })
  .filter(({ id }) => id.includes(values.only))
  .filter(({ kind }) => kind !== 'compiled' || (torchRuns && real))
const measure = { row: kernel, step, compiled }
for (const item of plan) {
  if (secondsLeft() < (item.kind === 'compiled' ? 60 : 5)) results.leftOut.push(item.id)
  else {
    await measure[item.kind](item)
    say(item)
  }
  writeReport(base, results)
}
writeReport(base, results)
console.log(`\n${markdown(results)}\n${base}.json and .md`)
stop(0)
