// npm test [-- tap arguments]: compiles, runs the native tests where CMake is at hand, then tap over the compiled tests.
// Ends with one line: N passed, N failed. --long adds the tests that take minutes (VOLTAIC_LONG_TESTS=1).
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
const env = long ? { ...process.env, VOLTAIC_LONG_TESTS: '1' } : process.env
process.exit(
  node(
    binary('tap'),
    args.filter((arg) => arg !== '--long'),
    env,
  ),
)
