// Builds what a check needs and is not there: the CUDA library for this machine's card (as `voltaic build-cuda` does), the native
// tests (with cmake-js in a checkout, with plain CMake elsewhere), the TypeScript.
import { spawnSync } from 'node:child_process'
import { appendFileSync, existsSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { card, cudaLibrary, emulated, exists, root } from './machine.mjs'

/** Runs a command, its output into build-gpu.log; the end of it comes back with the error when the command fails. */
function must(command, args, env = {}) {
  console.log(`# ${command} ${args.join(' ')}`)
  const { status, error, stdout, stderr } = spawnSync(command, args, {
    cwd: root,
    env: { ...process.env, ...env },
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  })
  const text = `${stdout ?? ''}${stderr ?? ''}`
  appendFileSync(join(root, 'build-gpu.log'), text)
  if (status === 0) return
  const end = text.trim().split('\n').slice(-15).join('\n')
  throw new Error(
    `${command} failed (${error?.message ?? `status ${status}`}); build-gpu.log has all\n${end}`,
  )
}

/** The library of CUDA kernels, built for this card when it is not there. Gives its path. */
export function buildLibrary() {
  if (existsSync(cudaLibrary)) return cudaLibrary
  if (emulated) {
    must(process.execPath, [join(root, 'scripts', 'build-emulator.mjs')])
    return cudaLibrary
  }
  if (!card() && !existsSync('/dev/nvidia0'))
    throw new Error(
      'there is no NVIDIA card here, and no CUDA library; npm run build:cuda makes one for any card',
    )
  must(process.execPath, [join(root, 'dist', 'cli', 'main.js'), 'build-cuda'])
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
  else {
    const folder = join(root, 'build-native')
    must('cmake', ['-S', root, '-B', folder])
    must('cmake', [
      '--build',
      folder,
      '--target',
      'voltaic_tests',
      '--parallel',
      String(availableParallelism()),
    ])
  }
  return program
}

/** dist/ and the compiled tests: made where TypeScript is. */
export function buildTypeScript() {
  const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
  if (existsSync(compiler)) must(process.execPath, [compiler, '-b', 'test'])
  else if (!exists('dist', 'index.js') || !exists('.test-build'))
    throw new Error('dist/ or .test-build/ is missing, and TypeScript to make them')
}
