// Compiles all CUDA kernels with nvcc for two cards and looks at what the compiler says of them: no warning, no register
// spilled to memory, no stack. Then the library must open on a machine without a driver and say so. Where nvcc is missing
// it says so and checks nothing. [--archs 80,90]
import { spawnSync } from 'node:child_process'
import { existsSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

process.chdir(dirname(dirname(fileURLToPath(import.meta.url))))
const archsAt = process.argv.indexOf('--archs')
const archs = archsAt > 0 ? process.argv[archsAt + 1] : '75,90'
const folder = 'build-cuda-check'
const nvcc = [process.env.CUDACXX, 'nvcc', '/usr/local/cuda/bin/nvcc'].find(
  (name) => name && spawnSync(name, ['--version']).status === 0,
)
if (nvcc === undefined || spawnSync('cmake', ['--version']).status !== 0) {
  console.log('# nvcc or cmake is not here: the CUDA kernels were not compiled for cards')
  console.log('0 passed, 0 failed')
  process.exit(0)
}

let passed = 0
let failed = 0
const check = (ok, what) => {
  if (ok) passed++
  else failed++
  console.log(`${ok ? 'ok' : 'not ok'} ${what}`)
}

const configure = spawnSync(
  'cmake',
  [
    ...['-S', '.', '-B', folder, '-DVOLTAIC_CUDA=ON', '-DVOLTAIC_TESTS=OFF', `-DCMAKE_CUDA_COMPILER=${nvcc}`],
    `-DVOLTAIC_CUDA_ARCHS=${archs.replaceAll(',', ';')}`,
  ],
  { encoding: 'utf8' },
)
// Everything anew: the compiler's report is what is looked at.
const build =
  configure.status === 0
    ? spawnSync('cmake', ['--build', folder, '--clean-first', '--parallel', '2'], {
        encoding: 'utf8',
        maxBuffer: 2 ** 28,
      })
    : configure
const output = `${build.stdout}${build.stderr}`
check(build.status === 0, `all kernels compile for ${archs}`)
if (build.status !== 0) console.log(output.split('\n').slice(-40).join('\n'))

const warnings = output.split('\n').filter((line) => /warning/i.test(line))
check(warnings.length === 0, `no warnings${warnings.length ? `: ${warnings.slice(0, 5).join('; ')}` : ''}`)

/** Kernels with their report: "Compiling entry function 'NAME' for 'sm_90'", then stack and spills. */
let kernel = ''
let kernels = 0
const spilling = []
for (const line of output.split('\n')) {
  const entry = /Compiling entry function '([^']+)' for '([^']+)'/.exec(line)
  if (entry) {
    kernel = `${entry[1]} for ${entry[2]}`
    kernels++
  }
  const report = /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(line)
  if (report?.slice(1).some((bytes) => bytes !== '0')) spilling.push(`${kernel}: ${line.trim()}`)
}
check(kernels > 0 && spilling.length === 0, `${kernels} kernels, none spills registers or has a stack`)
for (const line of spilling.slice(0, 20)) console.log(`  ${line}`)

const library = join(folder, 'libvoltaic_cuda.so')
if (existsSync(library)) {
  console.log(`# ${library} is ${(statSync(library).size / 2 ** 20).toFixed(2)} MB`)
  // VOLTAIC_CUDA=emulated skips the look for a driver, so that the library itself is opened.
  const script =
    "import('./dist/index.js').then(({ cudaReport }) => console.log(JSON.stringify(cudaReport())))"
  const opened = spawnSync(process.execPath, ['-e', script], {
    encoding: 'utf8',
    env: { ...process.env, VOLTAIC_CUDA: 'emulated', VOLTAIC_CUDA_LIBRARY: resolve(library) },
  })
  const report = opened.status === 0 ? JSON.parse(opened.stdout) : {}
  check(
    report.devices > 0 || /no NVIDIA driver|driver is for CUDA|sees no device/.test(report.reason ?? ''),
    `the library opens and says what it finds: ${report.reason || `${report.devices} devices`}${opened.stderr}`,
  )
}
console.log(`${passed} passed, ${failed} failed`)
process.exit(failed > 0 ? 1 : 0)
