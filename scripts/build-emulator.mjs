// npm run build:emulator [-- --sanitize]: compiles the CUDA sources for the CPU, with g++ alone, into
// build-cuda/libvoltaic_emulated.so. Only what changed is compiled.
// --sanitize: in build-cuda/sanitize/, with AddressSanitizer and UBSan.
// --card: in build-cuda/card/, rounding as a card may: a * b + c fused (where g++ sees it: a product with other uses stays), exp, log
// and tanh off by some units in the last place. Tolerances of tests must allow for it.
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

process.chdir(dirname(dirname(fileURLToPath(import.meta.url))))
const sanitize = process.argv.includes('--sanitize')
const card = process.argv.includes('--card')
const folder = join('build-cuda', ...(sanitize ? ['sanitize'] : []), ...(card ? ['card'] : []))
const objects = join(folder, 'emulated')
const library = join(folder, 'libvoltaic_emulated.so')
const compiler = process.env.CXX || 'g++'
const sources = JSON.parse(readFileSync('sources.gypi', 'utf8')).variables
const flags = [
  ...sources.voltaic_emulator_flags,
  ...(card ? ['-ffp-contract=fast', '-DVOLTAIC_EMULATOR_CARD_ROUNDING'] : []),
  ...(sanitize ? ['-fsanitize=address,undefined', '-fno-sanitize-recover=undefined', '-O1', '-g1'] : []),
]

const modified = (file) => (existsSync(file) ? statSync(file).mtimeMs : 0)

/** Whether an object is older than a file that it was made from, by the compiler's own list of them. */
function stale(object, command) {
  if (!existsSync(object) || !existsSync(`${object}.d`)) return true
  if (readFileSync(`${object}.command`, 'utf8') !== command) return true
  const [, list] = readFileSync(`${object}.d`, 'utf8').replaceAll('\\\n', ' ').split(/:\s/)
  const made = modified(object)
  return list
    .trim()
    .split(/\s+/)
    .some((file) => !existsSync(file) || modified(file) > made)
}

function run(args) {
  return new Promise((resolve) => {
    spawn(compiler, args, { stdio: ['ignore', 'inherit', 'inherit'] })
      .on('error', (error) => {
        console.error(`${compiler} does not run: ${error.message}`)
        resolve(false)
      })
      .on('exit', (code) => resolve(code === 0))
  })
}

mkdirSync(objects, { recursive: true })
const units = [...sources.voltaic_cuda, ...sources.voltaic_emulator].map((source) => {
  const object = join(objects, `${basename(source)}.o`)
  const args = [...flags, '-MMD', '-MF', `${object}.d`, '-x', 'c++', '-c', source, '-o', object]
  return { source, object, args, command: args.join(' ') }
})
const waiting = units.filter(({ object, command }) => stale(object, command))
const compiled = waiting.length
let failed = false
await Promise.all(
  Array.from({ length: availableParallelism() }, async () => {
    for (let unit = waiting.shift(); unit !== undefined; unit = waiting.shift()) {
      if (await run(unit.args)) {
        writeFileSync(`${unit.object}.command`, unit.command)
      } else {
        console.error(`${unit.source} did not compile for the emulator`)
        failed = true
      }
    }
  }),
)
if (failed) process.exit(1)
if (compiled > 0 || !existsSync(library)) {
  const linked = await run([
    '-shared',
    '-Wl,--version-script=cuda/exports.map',
    '-o',
    library,
    ...units.map(({ object }) => object),
    '-lpthread',
    '-ldl',
    ...(sanitize ? ['-fsanitize=address,undefined'] : []),
  ])
  if (!linked) process.exit(1)
}
console.log(`${library}: ${compiled} of ${units.length} units compiled`)
