// npm run bench:peers [-- --only train,finetune,infer,ragged,gemm,tokens] [--threads N] [--seconds N] [--quick] [--no-torch]
//                     [--json FILE] [--write] [--from FILE,…] [--kernels FILE]:
// Voltaic beside what people use today, in one run on this machine: PyTorch and onnxruntime-node where they are installed, the same
// shapes, threads and, where outputs are compared, weights. How it measures: docs/performance.md.
//   --seconds  a contest at most, beside what its rounds take at least (45; products 6)
//   --quick    a tiny model, few samples: whether it runs
//   --write    puts the tables into docs/performance.md; with --from they come from --json files of earlier runs instead
//   --kernels  with --write: a --json file of npm run bench, for the table of kernels
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { modelConfigs } from '../dist/training/model-configs.js'
import { resolvePretrainOptions } from '../dist/training/options.js'
import { root } from './gpu/machine.mjs'
import { hold } from './peers/contest.mjs'
import { findSharedData, groups } from './peers/contests.mjs'
import { QuietGuard } from './peers/noise.mjs'
import { contestLines, kernelTable, resultTables, writeBlocks } from './peers/report.mjs'
import { findSides, Side } from './peers/sides.mjs'

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    threads: { type: 'string' },
    seconds: { type: 'string', default: '45' },
    quick: { type: 'boolean', default: false },
    'no-torch': { type: 'boolean', default: false },
    json: { type: 'string' },
    write: { type: 'boolean', default: false },
    from: { type: 'string' },
    kernels: { type: 'string' },
  },
})
const readJson = (file) => JSON.parse(readFileSync(file, 'utf8'))
const threads = Number(values.threads ?? Math.min(2, cpus().length))
const seconds = Number(values.seconds)
if (!(seconds > 0)) throw new Error(`--seconds ${values.seconds}: expected a number above 0`)
const chosen = values.only?.split(',')
for (const name of chosen ?? []) {
  if (!groups.some(({ option }) => option === name))
    throw new Error(`--only ${name}: expected some of ${groups.map(({ option }) => option).join(', ')}`)
}

/** Samples wanted, rounds at least, seconds a contest at most, seconds of a sample. */
function options({ brief }) {
  if (values.quick) return { samples: 1, leastRounds: 1, seconds: 0, blockSeconds: 0.01 }
  if (brief) return { samples: 5, leastRounds: 3, seconds: Math.min(6, seconds), blockSeconds: 0.08 }
  return { samples: 7, leastRounds: 3, seconds, blockSeconds: 0.3 }
}

function modelSizes(size, batchSize, sequenceLength) {
  const settings = resolvePretrainOptions({ output: '-', corpus: ['-'], size, batchSize, sequenceLength })
  const { discriminator, generator } = modelConfigs(settings, 30522, 0)
  return { configs: { discriminator, generator, maskProbability: settings.maskProbability } }
}

/** Written anew after every contest, so that a run cut short has what it measured. */
function save(results) {
  if (values.json) writeFileSync(values.json, `${JSON.stringify(results, null, 1)}\n`)
}

async function measure() {
  const { sides, missing } = findSides(threads, { torch: !values['no-torch'] })
  const guard = new QuietGuard(threads)
  await guard.calibrate()
  const verbose = process.env.VOLTAIC_BENCH_LOG ? (text) => process.stderr.write(text) : () => undefined
  const open = new Map()
  /** An entrant's process: one for each side and precision, so that peaks of memory are its own. */
  const sideOf = (side, precision) => {
    const name = `${side} ${precision}`
    if (!open.has(name)) open.set(name, new Side(name, sides[side], verbose))
    return open.get(name)
  }
  const closeAll = () => {
    for (const side of open.values()) side.stop()
    open.clear()
  }
  const scratch = mkdtempSync(join(tmpdir(), 'voltaic-peers-'))
  const cleanUp = () => {
    closeAll()
    rmSync(scratch, { recursive: true, force: true })
  }
  // A stopped process would outlive this one.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.once(signal, () => {
      cleanUp()
      process.exit(1)
    })
  }
  const ask = async (request) => {
    const answer = await sideOf('voltaic', 'fp32').ask(request)
    if (answer.error) throw new Error(answer.error.message)
    return answer
  }
  const folders = new Map()
  const folder = async (size) => {
    if (!folders.has(size)) {
      folders.set(size, join(scratch, size))
      console.log(`exporting ${size}`)
      await ask({ do: 'export', size, folder: folders.get(size) })
    }
    return folders.get(size)
  }
  const results = {
    date: new Date().toISOString().slice(0, 10),
    machine: { processor: cpus()[0].model.trim(), processors: cpus().length, memoryBytes: totalmem() },
    threads,
    quick: values.quick,
    sides: {},
    missing,
    skipped: {},
    contests: [],
  }
  try {
    for (const name of Object.keys(sides)) {
      const info = await sideOf(name, 'fp32').ask({ do: 'info' })
      if (info.error) {
        missing[name] = info.error.message
        delete sides[name]
      } else results.sides[name] = info
    }
    for (const [name, reason] of Object.entries(missing)) console.log(`without ${name}: ${reason}`)
    const context = {
      quick: values.quick,
      data: findSharedData(root),
      ask,
      folder,
      scratch,
      configs: modelSizes,
    }
    for (const group of groups) {
      if (chosen && !chosen.includes(group.option)) continue
      let contests
      try {
        contests = await group.contests(context)
      } catch (error) {
        results.skipped[group.name] = error.message
        console.log(`${group.name}: skipped, ${error.message}`)
        continue
      }
      closeAll()
      for (const { entrants, ...contest } of contests) {
        const present = entrants.filter(({ side }) => sides[side])
        const held = await hold(
          { ...contest, group: group.name },
          present.map((one) => ({ ...one, side: sideOf(one.side, one.precision) })),
          guard,
          options(group),
        )
        results.contests.push(held)
        save(results)
        console.log(contestLines(held))
        // Whole steps leave gigabytes behind that the next contest's peak must not count.
        if (group.option === 'train') closeAll()
      }
      closeAll()
    }
  } finally {
    cleanUp()
  }
  return results
}

/** Several runs' results as one: a contest's latest result, in the order of the groups; the last run's machine. */
function merged(files) {
  const runs = files.map(readJson)
  const contests = new Map(runs.flatMap((run) => run.contests.map((contest) => [contest.name, contest])))
  const order = ({ group }) => groups.findIndex(({ name }) => name === group)
  const inOrder = [...contests.values()].sort((a, b) => order(a) - order(b))
  return { ...runs.at(-1), runs: runs.length, contests: inOrder }
}

const results = values.from ? merged(values.from.split(',')) : await measure()
const tables = resultTables(results)
console.log(`\n${tables}`)
save(results)
if (values.write) {
  const blocks = { peers: tables }
  if (values.kernels) blocks.kernels = kernelTable(readJson(values.kernels))
  writeBlocks(join(root, 'docs', 'performance.md'), blocks)
}
process.exit(0)
