// npm run gpu:bundle [-- --output DIR] [--no-library] [--emulated]: one folder under 60 MB that runs gpu:check and gpu:bench on a
// machine with a card, without a registry or a Node of its own. RUN.md inside says how. --no-library leaves the CUDA library out (nvcc
// builds it there); --emulated takes the emulator along, to try the bundle without a card.
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'

const { values } = parseArgs({
  options: {
    output: { type: 'string', default: 'gpu-bundle' },
    'no-library': { type: 'boolean', default: false },
    emulated: { type: 'boolean', default: false },
  },
})
const output = resolve(values.output)
const root = dirname(dirname(fileURLToPath(import.meta.url)))
process.chdir(root)
const limit = 60e6

function run(command, args, options = {}) {
  const { status, error } = spawnSync(command, args, { stdio: 'inherit', ...options })
  if (status !== 0)
    throw new Error(`${command} ${args.join(' ')} failed${error ? `: ${error.message}` : ` (${status})`}`)
}

if (existsSync(output) && !existsSync(join(output, 'RUN.md')) && readdirSync(output).length > 0)
  throw new Error(`${output} is there and no bundle: remove it or choose another with --output`)
rmSync(output, { recursive: true, force: true })
mkdirSync(output, { recursive: true })

/** Copies a file or folder to the same place in the bundle. */
function take(path, keep = () => true) {
  mkdirSync(dirname(join(output, path)), { recursive: true })
  cpSync(path, join(output, path), {
    recursive: true,
    dereference: true,
    filter: (source) =>
      keep(source) && !/__pycache__|\.d\.ts$|\.ts\.map$|\.js\.map$|\.tsbuildinfo$/.test(source),
  })
}

// ---- built here
run(process.execPath, ['node_modules/typescript/bin/tsc', '-b', 'test'])
const addon = 'build/Release/voltaic.node'
if (!existsSync(addon)) throw new Error(`${addon} is missing: npm run build:native`)
const { buildNativeTests } = await import(pathToFileURL(join(root, 'bench', 'gpu', 'build.mjs')).href)
buildNativeTests()

for (const path of ['package.json', 'binding.gyp', 'sources.gypi', 'CMakeLists.txt', 'LICENSE']) take(path)
for (const path of ['native', 'cuda', 'dist', 'scripts', 'docs/gpu.md', addon])
  if (existsSync(path)) take(path)
// native tests can be built there, and run under another tool
take('test/native')
take('bench', (source) => !/bench\/results/.test(source))
for (const folder of ['electra', 'cuda', 'tensor', 'helpers'])
  if (existsSync(`.test-build/${folder}`)) take(`.test-build/${folder}`)
take('build-native/voltaic_tests')
for (const program of [addon, 'build-native/voltaic_tests'])
  run('strip', ['--strip-unneeded', join(output, program)])
for (const [wanted, file] of [
  [!values['no-library'], 'libvoltaic_cuda.so'],
  [values.emulated, 'libvoltaic_emulated.so'],
])
  if (wanted && existsSync(join('build-cuda', file))) take(join('build-cuda', file))

// ---- what dist/ and the tests need at run time, and the stand-in for tap
const { dependencies } = JSON.parse(readFileSync('package.json', 'utf8'))
const packages = [...Object.keys(dependencies).filter((name) => name !== 'node-addon-api'), 'fast-check']
for (let i = 0; i < packages.length; i++) {
  const folder = `node_modules/${packages[i]}`
  take(folder)
  const { dependencies: more = {} } = JSON.parse(readFileSync(`${folder}/package.json`, 'utf8'))
  for (const name of Object.keys(more)) if (!packages.includes(name)) packages.push(name)
}
const tap = join(output, 'node_modules', 'tap')
mkdirSync(tap, { recursive: true })
copyFileSync('bench/gpu/tap-stand-in.mjs', join(tap, 'index.mjs'))
writeFileSync(
  join(tap, 'package.json'),
  `${JSON.stringify({ name: 'tap', type: 'module', exports: './index.mjs' })}\n`,
)

// ---- golden vectors
const shared = process.env.VOLTAIC_SHARED_DATA || '../shared/data'
if (existsSync(join(shared, 'golden')))
  cpSync(join(shared, 'golden'), join(output, 'data', 'golden'), { recursive: true, dereference: true })
else console.log(`# no ${shared}/golden: the golden vectors are not in the bundle, and its check skips them`)

// ---- Node
const node = join(output, 'bin', 'node')
mkdirSync(dirname(node))
copyFileSync(process.execPath, node)
chmodSync(node, 0o755)
run('strip', [node])

// ---- what is large, in one compressed file that run.sh unpacks
const large = ['bin', 'build', 'build-native', 'data'].filter((name) => existsSync(join(output, name)))
run('tar', ['-C', output, '-cf', join(output, 'packed.tar'), ...large])
run('xz', ['-6', '-T0', '-f', join(output, 'packed.tar')])
for (const name of large) rmSync(join(output, name), { recursive: true })

writeFileSync(
  join(output, 'run.sh'),
  `#!/usr/bin/env bash
# bash run.sh check|bench|all [options]: see RUN.md
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ ! -e "$here/unpacked" ]; then
  if command -v xz >/dev/null; then xz -dc "$here/packed.tar.xz" | tar -C "$here" -xf -
  else python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$here/packed.tar.xz" "$here"
  fi
  touch "$here/unpacked"
fi
export PATH="$here/bin:$PATH"
[ -d "$here/data" ] && export VOLTAIC_SHARED_DATA="$here/data"
what=\${1:-all}
[ $# -gt 0 ] && shift
case "$what" in
check) exec node "$here/scripts/gpu-check.mjs" "$@" ;;
bench) exec node "$here/scripts/gpu-bench.mjs" --time-limit 560 "$@" ;;
all)
  status=0
  node "$here/scripts/gpu-check.mjs" --time-limit 240 "$@" || status=$?
  node "$here/scripts/gpu-bench.mjs" --time-limit 320 "$@"
  exit $status
  ;;
*) echo "bash run.sh check|bench|all [options]" >&2; exit 2 ;;
esac
`,
)
writeFileSync(
  join(output, 'RUN.md'),
  `# Voltaic on a GPU machine

Needs Linux on x86-64, an NVIDIA driver, and xz or Python 3 to unpack Node and the test data, which run.sh
does in this folder at first (160 MB). Nothing is downloaded.

    bash run.sh check  [--only TEXT] [--time-limit SECONDS] [--output DIR]   every kernel test, golden vectors, sanitizer
    bash run.sh bench  [--only TEXT] [--time-limit SECONDS] [--output DIR]   times; at most 560 seconds unless told
    bash run.sh all    [--output DIR]                                        both in at most ten minutes

${
  existsSync(join(output, 'build-cuda', 'libvoltaic_cuda.so'))
    ? 'The CUDA library is built already (build-cuda/libvoltaic_cuda.so). Remove it to build it here: nvcc 12.8 or later, CMake and a C++ compiler.'
    : 'The CUDA library is built at first: nvcc 12.8 or later (PATH, CUDACXX or /usr/local/cuda), CMake and a C++ compiler.'
}

Results are written as they come, the most telling first: bench/results/*.json and *.md, or into DIR. PyTorch is timed beside
where python3 has it (VOLTAIC_PYTHON names another). docs/gpu.md says how to read the results.
`,
)

function sizeOf(path) {
  const stat = statSync(path)
  return stat.isDirectory()
    ? readdirSync(path).reduce((sum, name) => sum + sizeOf(join(path, name)), 0)
    : stat.size
}
const megabytes = (bytes) => (bytes / 1e6).toFixed(1)
for (const name of readdirSync(output)) {
  const bytes = sizeOf(join(output, name))
  if (bytes > 1e5) console.log(`${megabytes(bytes).padStart(8)} MB ${name}`)
}
const total = sizeOf(output)
console.log(`${megabytes(total).padStart(8)} MB in ${output}: copy it to the machine, then bash run.sh all`)
if (total > limit) {
  console.error(`the bundle is over ${megabytes(limit)} MB`)
  process.exit(1)
}
