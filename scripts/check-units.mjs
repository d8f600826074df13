// Two checks on the kernel units: (1) units compiled for one instruction set export nothing that the linker could share
// with other units (nm shows one registration function each, and no weak or unique symbols); (2) the portable path
// compiles for arm64, where a cross compiler is installed.
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

process.chdir(dirname(dirname(fileURLToPath(import.meta.url))))
const sources = JSON.parse(readFileSync('sources.gypi', 'utf8')).variables
const scratch = mkdtempSync(join(tmpdir(), 'voltaic-units-'))
let passed = 0
let failed = 0
const check = (ok, what) => {
  if (ok) passed++
  else failed++
  console.log(`${ok ? 'ok' : 'not ok'} ${what}`)
}

// The objects that node-gyp just built.
if (process.arch === 'x64') {
  for (const [level, list] of [
    ['avx2', sources.voltaic_cpu],
    ['avx512', sources.voltaic_cpu],
    ['avx512bf16', sources.voltaic_cpu_products],
    ['amx', sources.voltaic_cpu_products],
  ]) {
    for (const source of list) {
      const family = basename(source, '.cpp')
      const object = join('build/Release/obj.target', `voltaic_cpu_${level}`, source.replace(/\.cpp$/, '.o'))
      const symbols = execFileSync('nm', ['--defined-only', object], { encoding: 'utf8' }).trim().split('\n')
      const shared = symbols.filter((line) => / [A-Zuvw] /.test(line))
      check(
        shared.length === 1 && shared[0].endsWith(` T voltaic_cpu_${family}_${level}`),
        `${family} for ${level} exports its registration and nothing else${shared.length > 1 ? `: ${shared.join('; ')}` : ''}`,
      )
    }
  }
}

const cross = 'aarch64-linux-gnu-g++'
if (spawnSync(cross, ['--version']).status === 0) {
  const portable = [...sources.voltaic_cpu, ...sources.voltaic_engine, ...sources.voltaic_text]
  for (const source of portable) {
    const run = spawnSync(
      cross,
      [
        '-std=c++20',
        ...sources.voltaic_cxx_flags,
        '-O1',
        '-DVOLTAIC_ISA=portable',
        '-c',
        source,
        '-o',
        join(scratch, 'unit.o'),
      ],
      { encoding: 'utf8' },
    )
    check(
      run.status === 0,
      `${source} compiles for arm64${run.status === 0 ? '' : `: ${run.stderr.split('\n')[0]}`}`,
    )
  }
} else {
  console.log(`# ${cross} is not installed: arm64 not checked`)
}
rmSync(scratch, { recursive: true })
console.log(`${passed} passed, ${failed} failed`)
process.exit(failed ? 1 : 0)
