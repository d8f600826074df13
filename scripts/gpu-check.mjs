// npm run gpu:check [-- --only TEXT] [--time-limit SECONDS] [--output DIR] [--emulated]: builds what is missing, then, on the card:
// every kernel test (against double precision, twice for identical bits), the golden vectors and the models' tests, and, where there
// is a compute-sanitizer, a reduced run of the kernel tests under it. Ends with one line: N passed, N failed.
import { spawn, spawnSync } from 'node:child_process'
import { createWriteStream, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { buildLibrary, buildNativeTests, buildTypeScript } from '../bench/gpu/build.mjs'
import { card, emulated, nameForFile, outputOf, root, stamp } from '../bench/gpu/machine.mjs'

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    'time-limit': { type: 'string', default: 'Infinity' },
    output: { type: 'string', default: join(root, 'bench', 'results') },
    emulated: { type: 'boolean', default: false },
  },
})
const began = performance.now()
const seconds = () => (performance.now() - began) / 1000
const secondsLeft = () => Number(values['time-limit']) - seconds()
if (Number.isNaN(secondsLeft())) throw new Error('--time-limit is a number of seconds')
const output = resolve(values.output)
mkdirSync(output, { recursive: true })

let library
let program
try {
  buildTypeScript()
  library = buildLibrary()
  program = buildNativeTests()
} catch (error) {
  console.log(`not ok build: ${error.message}\n0 passed, 1 failed`)
  process.exit(1)
}

const env = {
  ...process.env,
  VOLTAIC_TEST_DEVICE: 'cuda',
  VOLTAIC_CUDA_LIBRARY: library,
  // tap's own limit is 30 seconds a file, which the emulator may need.
  TAP_TIMEOUT: '600',
}
const probe = spawnSync(
  process.execPath,
  [
    '--input-type=module',
    '-e',
    `import { cudaReport, deviceInfo, deviceOf } from ${JSON.stringify(join(root, 'dist', 'runtime', 'index.js'))}
     const report = cudaReport()
     console.log(JSON.stringify({ report, info: report.devices > 0 ? deviceInfo(deviceOf('cuda')) : null }))`,
  ],
  { encoding: 'utf8', env },
)
const { report, info } = JSON.parse(probe.stdout || `{"report":{"reason":${JSON.stringify(probe.stderr)}}}`)
if (!info) {
  console.log(`not ok there is no CUDA device: ${report.reason}\n0 passed, 1 failed`)
  process.exit(1)
}
console.log(`# ${info.name}, ${info.instructionSet}; ${library}: ${info.buildInfo}`)

const base = join(output, `check-${nameForFile(info.name)}${emulated ? '-emulated' : ''}-${stamp()}`)
const log = createWriteStream(`${base}.log`)
const results = { when: new Date().toISOString(), device: info, card: card(), library, parts: [] }

/** Runs a command, its output into the log, failed lines also here. Gives what it printed and how it ended. */
function run(command, args, limit) {
  return new Promise((done) => {
    const child = spawn(command, args, { env, cwd: root })
    let text = ''
    let rest = ''
    const take = (data) => {
      log.write(data)
      text += data
      rest += data
      const lines = rest.split('\n')
      rest = lines.pop()
      for (const line of lines) if (line.startsWith('not ok')) console.log(line)
    }
    child.stdout.setEncoding('utf8').on('data', take)
    child.stderr.setEncoding('utf8').on('data', take)
    const timer = setTimeout(() => child.kill('SIGKILL'), 1000 * Math.min(2 ** 20, Math.max(1, limit)))
    const end = (how) => {
      clearTimeout(timer)
      done({ text, how })
    }
    child.on('error', (error) => end(error.message))
    child.on('close', (code, signal) =>
      end(
        signal ? (limit < 2 ** 20 ? `${signal} (out of time?)` : signal) : code === 0 ? '' : `status ${code}`,
      ),
    )
  })
}

function record(name, passed, failed, note = '') {
  results.parts.push({ name, passed, failed, note })
  console.log(
    `${failed > 0 ? 'not ok' : 'ok'} ${name}: ${passed} passed, ${failed} failed${note && ` (${note})`}`,
  )
  writeFileSync(`${base}.json`, `${JSON.stringify(results, null, 1)}\n`)
}

const asked = (name) => name.includes(values.only)

/** The kernel tests' own last line, or that it is missing. */
async function kernelTests(name, args, limit = secondsLeft()) {
  const { text, how } = await run(program, ['--backend', library, ...args], limit)
  const [, passed, failed, skipped] = /^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$/m.exec(text) ?? []
  if (passed === undefined || skipped || (how && failed === '0'))
    record(
      name,
      Number(passed ?? 0),
      1 + Number(failed ?? 0),
      skipped ? 'the library gives no backend' : how || 'no last line',
    )
  // A name that is no kernel's, of --only.
  else if (!args.includes('--only') || passed !== '0' || failed !== '0')
    record(name, Number(passed), Number(failed))
}

/** Compiled test files: golden vectors first. Those that use a device take VOLTAIC_TEST_DEVICE. */
function testFiles() {
  const all = ['electra', 'cuda', 'tensor'].flatMap((folder) => {
    const place = join(root, '.test-build', folder)
    return existsSync(place)
      ? readdirSync(place)
          .filter((name) => name.endsWith('.test.js'))
          .map((name) => `${folder}/${name}`)
      : []
  })
  // The rest of tensor/ is about the tape and JavaScript's memory, not about kernels.
  const used = all.filter((name) => !name.startsWith('tensor/') || /gradients|fused|values/.test(name))
  return [
    ...used.filter((name) => name.includes('golden')),
    ...used.filter((name) => !name.includes('golden')),
  ]
}

async function modelTests(file) {
  const { text, how } = await run(process.execPath, [join(root, '.test-build', file)], secondsLeft())
  const [, counts = ''] = /^# \{ (total: .*) \}$/m.exec(text) ?? []
  const count = (name) => Number(new RegExp(`${name}: (\\d+)`).exec(counts)?.[1] ?? 0)
  const skipped = count('skip') > 0 ? `${count('skip')} skipped` : ''
  const failed = count('fail') || (how || !counts ? 1 : 0)
  record(file, count('pass'), failed, how || skipped)
}

/** Kernel tests that reach each family with one seed, under a tool of compute-sanitizer. */
async function sanitizer(tool) {
  const name = `compute-sanitizer ${tool}`
  const limit = Math.min(240, secondsLeft())
  const tests = ['--backend', library, '--seeds', '1']
  const { text, how } = await run(
    'compute-sanitizer',
    ['--tool', tool, '--error-exitcode', '99', program, ...tests],
    limit,
  )
  const [, errors] =
    /ERROR SUMMARY: (\d+) error/.exec(text) ?? /RACECHECK SUMMARY: (\d+) hazard/.exec(text) ?? []
  if (/Device not supported|unable to|not supported on this/i.test(text) && !/\d+ passed/.test(text))
    record(name, 0, 0, 'it does not run on this machine')
  else if (errors !== undefined) record(name, Number(errors) === 0 ? 1 : 0, Number(errors))
  else {
    // Out of time without a finding is no finding.
    const found = (text.match(/^=+ (Invalid|Race|Error|Uninitialized|Program hit)/gm) ?? []).length
    record(name, 0, found || (how.includes('out of time') ? 0 : 1), how || 'it gave no summary')
  }
}

if (asked('kernel tests')) await kernelTests('kernel tests', [])
else if (values.only) await kernelTests(`kernel tests of ${values.only}`, ['--only', values.only])
for (const file of testFiles()) if (asked(file)) await modelTests(file)
if (asked('compute-sanitizer') && !emulated) {
  if (outputOf('compute-sanitizer', ['--version']) === undefined)
    record('compute-sanitizer', 0, 0, 'not on this machine')
  else for (const tool of ['memcheck', 'racecheck']) if (secondsLeft() > 20) await sanitizer(tool)
}

const total = (key) => results.parts.reduce((sum, part) => sum + part[key], 0)
console.log(`# ${seconds().toFixed(0)} s; ${base}.json, .log`)
console.log(`${total('passed')} passed, ${total('failed')} failed`)
log.end(() => process.exit(total('failed') > 0 ? 1 : 0))
