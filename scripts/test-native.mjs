// npm run test:native [-- --sanitize] [-- --only TEXT]: builds the native tests with CMake and runs them on every
// instruction set that this processor has. --sanitize builds with AddressSanitizer and UBSan, in a folder of its own.
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

process.chdir(dirname(dirname(fileURLToPath(import.meta.url))))
const args = process.argv.slice(2)
const sanitize = args.includes('--sanitize')
const folder = sanitize ? 'build-sanitize' : 'build-native'
const require = createRequire(import.meta.url)
const cmakeJs = join(dirname(require.resolve('cmake-js/package.json')), 'bin', 'cmake-js')

const built = spawnSync(
  process.execPath,
  [cmakeJs, 'build', '-O', folder, '-l', 'error', '--parallel', String(availableParallelism())].concat(
    sanitize ? ['--CDVOLTAIC_SANITIZE=ON'] : [],
  ),
  { stdio: ['ignore', 'ignore', 'inherit'] },
)
if (built.status !== 0) {
  console.log('the native tests did not build: run `npx cmake-js build -O build-native` to see why')
  console.log('0 passed, 1 failed')
  process.exit(1)
}

const sum = { passed: 0, failed: 0, skipped: 0 }
for (const level of ['portable', 'avx2', 'avx512', 'amx', 'emulated']) {
  const rest = args.filter((arg) => arg !== '--sanitize')
  const run = spawnSync(join(folder, 'voltaic_tests'), ['--backend', `cpu:${level}`, ...rest], {
    encoding: 'utf8',
  })
  process.stdout.write(run.stdout ?? '')
  process.stderr.write(run.stderr ?? '')
  const line = /^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$/m.exec(run.stdout ?? '')
  if (!line || (run.status !== 0 && line[2] === '0')) {
    console.log(`not ok the native tests on ${level} ended with ${run.signal ?? `status ${run.status}`}`)
    sum.failed++
  } else {
    sum.passed += Number(line[1])
    sum.failed += Number(line[2])
    sum.skipped += Number(line[3] ?? 0)
  }
}
if (sum.skipped) console.log(`# ${sum.skipped} instruction sets skipped: this processor does not have them`)
console.log(`${sum.passed} passed, ${sum.failed} failed`)
process.exit(sum.failed > 0 ? 1 : 0)
