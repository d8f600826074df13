// npm test [-- tap arguments]: compiles, then runs tap over the compiled tests.
// Ends with one line: N passed, N failed. --long adds the tests that take minutes (VOLTAIC_LONG_TESTS=1).
// With VOLTAIC_CUDA=emulated the tests of what runs on a device run the CUDA kernels on the CPU (build:emulator).
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
process.chdir(root)
const require = createRequire(import.meta.url)

function binary(name, command = name) {
  const file = require.resolve(`${name}/package.json`)
  const { bin } = JSON.parse(readFileSync(file, 'utf8'))
  return join(dirname(file), typeof bin === 'string' ? bin : bin[command])
}

function node(file, args, env = process.env) {
  return spawnSync(process.execPath, [file, ...args], { stdio: 'inherit', env }).status ?? 1
}

function stop(code) {
  console.log('0 passed, 1 failed')
  process.exit(code)
}

const compiled = node(binary('typescript', 'tsc'), ['-b', 'test'])
if (compiled) stop(compiled)

// tap runs the first tests after a change of its plugins with the old loaders: build its class first, once.
const plugins = readFileSync('.taprc', 'utf8')
  .split('\n')
  .filter((line) => /^\s+- "!?@/.test(line))
  .join('\n')
const mark = 'node_modules/.tap-plugins'
if (!existsSync(mark) || readFileSync(mark, 'utf8') !== plugins) {
  const built = node(binary('tap'), ['build'])
  if (built) stop(built)
  writeFileSync(mark, plugins)
}

const args = process.argv.slice(2)
const long = args.includes('--long')
const env = { ...process.env, ...(long ? { VOLTAIC_LONG_TESTS: '1' } : {}) }
const files = args.filter((arg) => arg !== '--long')
if (process.env.VOLTAIC_CUDA === 'emulated') {
  if (node('scripts/build-emulator.mjs', [])) stop(1)
  env.VOLTAIC_TEST_DEVICE = 'cuda'
  if (files.length === 0)
    files.push(...['cuda', 'electra', 'nn', 'optim', 'tensor'].map((room) => `.test-build/${room}/*.test.js`))
}
process.exit(node(binary('tap'), files, env))
