// npm run test:matmul-library [-- --sanitize] [-- --backend-tests BINARY]: builds a stand-in for cuBLASLt and tests
// cuda/matmul_library.cu with it, under the emulator; needs g++ alone. --backend-tests also runs the gemm tests of
// that native test binary (build-native/voltaic_tests) on the emulator with the stand-in in use.
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

process.chdir(dirname(dirname(fileURLToPath(import.meta.url))))
const args = process.argv.slice(2)
const sanitize = args.includes('--sanitize')
const build = join('build-cuda', ...(sanitize ? ['sanitize'] : []))
const folder = join(build, 'matmul_library')
const compiler = process.env.CXX || 'g++'
const { voltaic_emulator_flags: flags } = JSON.parse(readFileSync('sources.gypi', 'utf8')).variables
const checks = sanitize
  ? ['-fsanitize=address,undefined', '-fno-sanitize-recover=undefined', '-O1', '-g1']
  : []

function must(command, commandArgs) {
  const run = spawnSync(command, commandArgs, { stdio: 'inherit' })
  if (run.status === 0) return
  console.log(`${command} ${commandArgs.join(' ')} failed`)
  console.log('0 passed, 1 failed')
  process.exit(1)
}

must(process.execPath, ['scripts/build-emulator.mjs', ...(sanitize ? ['--sanitize'] : [])])
mkdirSync(folder, { recursive: true })
for (const [name, ...definitions] of [['fake_cublaslt'], ['fake_cublaslt_lacking', '-DLACKS_MATMUL']])
  must(compiler, [
    '-std=c++20',
    '-O2',
    '-fPIC',
    '-shared',
    '-Wall',
    '-Wextra',
    ...definitions,
    'test/native/fake_cublaslt.cpp',
    '-o',
    join(folder, `lib${name}.so`),
  ])
const program = join(folder, 'matmul_library_test')
must(compiler, [
  ...flags,
  ...checks,
  'test/native/matmul_library_test.cpp',
  ...['matmul_library.cu', 'runtime.cpp', 'scheduler.cpp'].map((unit) =>
    join(build, 'emulated', `${unit}.o`),
  ),
  '-o',
  program,
  '-lpthread',
  '-ldl',
])

const sum = { passed: 0, failed: 0 }
function count(command, commandArgs, env) {
  const run = spawnSync(command, commandArgs, { encoding: 'utf8', env: { ...process.env, ...env } })
  process.stdout.write(run.stdout ?? '')
  process.stderr.write(run.stderr ?? '')
  const line = /^(\d+) passed, (\d+) failed/m.exec(run.stdout ?? '')
  sum.passed += Number(line?.[1] ?? 0)
  sum.failed += Number(line?.[2] ?? 1)
  if (line && run.status !== 0 && line[2] === '0') sum.failed++
}
count(program, [folder])
const native = args.indexOf('--backend-tests')
if (native >= 0) {
  console.log('gemm on the emulator, through the stand-in')
  count(
    args[native + 1],
    ['--backend', join(build, 'libvoltaic_emulated.so'), '--only', 'gemm', '--seeds', '8'],
    {
      VOLTAIC_CUBLASLT: join(process.cwd(), folder, 'libfake_cublaslt.so'),
    },
  )
}
console.log(`${sum.passed} passed, ${sum.failed} failed`)
process.exit(sum.failed > 0 ? 1 : 0)
