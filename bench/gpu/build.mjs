// Builds what a check needs and is not there: the CUDA library for this machine's card, and the native tests. With the package's own
// scripts in a checkout; with plain CMake, nvcc and a C++ compiler where there is no registry.
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { card, cudaLibrary, emulated, exists, findCompiler, root } from './machine.mjs'

function must(command, args, env = {}) {
  console.log(`# ${command} ${args.join(' ')}`)
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: 'inherit',
  })
  if (status !== 0)
    throw new Error(`${command} failed${error ? `: ${error.message}` : ` (status ${status})`}`)
}

function cmake(folder, target, options, env) {
  must('cmake', ['-S', root, '-B', join(root, folder), ...options], env)
  const jobs = String(availableParallelism())
  must('cmake', ['--build', join(root, folder), '--target', target, '--parallel', jobs])
}

/** The library of CUDA kernels, built for this card when it is not there. Gives its path. */
export function buildLibrary() {
  if (existsSync(cudaLibrary)) return cudaLibrary
  if (emulated) {
    must(process.execPath, [join(root, 'scripts', 'build-emulator.mjs')])
    return cudaLibrary
  }
  const compiler = findCompiler()
  if (!compiler) throw new Error('there is no CUDA library and no nvcc to build one (CUDACXX names another)')
  const architecture = card()?.architecture
  if (exists('scripts', 'build-cuda.mjs') && exists('node_modules', 'cmake-js')) {
    must(process.execPath, [join(root, 'scripts', 'build-cuda.mjs')], { CUDACXX: compiler })
    return cudaLibrary
  }
  const folder = 'build-cuda-cmake'
  cmake(
    folder,
    'voltaic_cuda',
    [
      '-DVOLTAIC_CUDA=ON',
      '-DVOLTAIC_TESTS=OFF',
      ...(architecture ? [`-DVOLTAIC_CUDA_ARCHS=${architecture}`] : []),
    ],
    { CUDACXX: compiler },
  )
  mkdirSync(dirname(cudaLibrary), { recursive: true })
  copyFileSync(join(root, folder, 'libvoltaic_cuda.so'), cudaLibrary)
  return cudaLibrary
}

/** The native tests' program. */
export function buildNativeTests() {
  const program = join(root, 'build-native', 'voltaic_tests')
  if (existsSync(program)) return program
  const cmakeJs = join(root, 'node_modules', 'cmake-js', 'bin', 'cmake-js')
  if (existsSync(cmakeJs))
    must(process.execPath, [
      cmakeJs,
      'build',
      '-O',
      'build-native',
      '-l',
      'error',
      '--parallel',
      String(availableParallelism()),
    ])
  else cmake('build-native', 'voltaic_tests', [])
  return program
}

/** dist/ and the compiled tests: made where TypeScript is. */
export function buildTypeScript() {
  const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
  if (existsSync(compiler)) must(process.execPath, [compiler, '-b', 'test'])
  else if (!exists('dist', 'index.js') || !exists('.test-build'))
    throw new Error('dist/ or .test-build/ is missing, and TypeScript to make them')
}
