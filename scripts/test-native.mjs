// npm run test:native [-- --sanitize] [-- --only TEXT] [-- --seed N] [-- --seeds N]: builds the native tests with CMake and
// runs them on every instruction set that this processor has, and on the CUDA backend's emulator in three lane orders, each
// as another card, one of them rounding as a card may; the whole, unsanitized run also has the products of matrices go the
// way of a matmul library. --sanitize builds with AddressSanitizer and UBSan, in folders of their own, and emulates one card.
import { spawn, spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

process.chdir(dirname(dirname(fileURLToPath(import.meta.url))))
const args = process.argv.slice(2)
const sanitize = args.includes('--sanitize')
const folder = sanitize ? 'build-sanitize' : 'build-native'
const rest = args.filter((arg) => arg !== '--sanitize')
const require = createRequire(import.meta.url)
const cmakeJs = join(dirname(require.resolve('cmake-js/package.json')), 'bin', 'cmake-js')

function stop(what, how) {
  console.log(`${what} did not build: run \`${how}\` to see why`)
  console.log('0 passed, 1 failed')
  process.exit(1)
}

const tests = spawnSync(
  process.execPath,
  [cmakeJs, 'build', '-O', folder, '-l', 'error', '--parallel', String(availableParallelism())].concat(
    sanitize ? ['--CDVOLTAIC_SANITIZE=ON'] : [],
  ),
  { stdio: ['ignore', 'ignore', 'inherit'] },
)
if (tests.status !== 0) stop('the native tests', `npx cmake-js build -O ${folder}`)
for (const flags of sanitize ? [['--sanitize']] : [[], ['--card']]) {
  const emulator = spawnSync(process.execPath, ['scripts/build-emulator.mjs', ...flags], {
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  if (emulator.status !== 0) stop('the emulator', `npm run build:emulator -- ${flags.join(' ')}`)
}

// The longest first. Lane orders and cards are paired: each kernel that a card decides about runs somewhere.
const emulators = sanitize
  ? [{ order: 'reverse', arch: '80', build: 'sanitize' }]
  : [
      { order: 'reverse', arch: '75', build: '' },
      { order: 'forward', arch: '80', build: '' },
      { order: '20261126', arch: '90', build: 'card' },
    ]
const library = (build) => join('build-cuda', build, 'libvoltaic_emulated.so')
const runs = emulators.map(({ order, arch, build }) => ({
  name: `the emulator of sm_${arch}, lanes ${order}${build === 'card' ? ', rounding as a card may' : ''}`,
  backend: library(build),
  env: { VOLTAIC_EMULATOR_ORDER: order, VOLTAIC_EMULATOR_ARCH: arch },
}))
for (const level of ['portable', 'avx2', 'avx512', 'avx512bf16', 'amx', 'emulated', 'emulated_dots'])
  runs.push({ name: level, backend: `cpu:${level}`, env: {} })
if (args.length === 0) {
  runs.push({
    name: 'products in steps',
    backend: library(''),
    args: ['--only', 'gemm', '--seeds', '8'],
    env: { VOLTAIC_GEMM: 'unfused' },
  })
  runs.push({
    name: 'the matmul library',
    command: process.execPath,
    args: ['scripts/test-matmul-library.mjs', '--backend-tests', join(folder, 'voltaic_tests')],
    env: {},
  })
}

const sum = { passed: 0, failed: 0, skipped: 0 }

/** One run of the tests, its output kept together. */
function runOne({ name, backend, command, args = rest, env }) {
  return new Promise((resolve) => {
    let output = ''
    const begin = performance.now()
    const child = spawn(
      command ?? join(folder, 'voltaic_tests'),
      [...(backend ? ['--backend', backend] : []), ...args],
      {
        env: { ...process.env, ...env },
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    )
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (piece) => {
        output += piece
      })
    child.on('close', (status, signal) => {
      console.log(`# ${name}, ${((performance.now() - begin) / 1000).toFixed(0)} s`)
      process.stdout.write(output)
      const line = [...output.matchAll(/^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$/gm)].at(-1)
      if (!line || (status !== 0 && line[2] === '0')) {
        console.log(`not ok the native tests on ${name} ended with ${signal ?? `status ${status}`}`)
        sum.failed++
      }
      if (line) {
        sum.passed += Number(line[1])
        sum.failed += Number(line[2])
        sum.skipped += Number(line[3] ?? 0)
      }
      resolve()
    })
  })
}

await Promise.all(
  Array.from({ length: availableParallelism() }, async () => {
    for (let run = runs.shift(); run !== undefined; run = runs.shift()) await runOne(run)
  }),
)
if (sum.skipped) console.log(`# ${sum.skipped} instruction sets skipped: this processor does not have them`)
console.log(`${sum.passed} passed, ${sum.failed} failed`)
process.exit(sum.failed > 0 ? 1 : 0)
