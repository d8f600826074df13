/**
 * `voltaic build-cuda`: compiles the CUDA backend from the package's own sources, with the toolkit of this machine, into the place where
 * Voltaic looks for it.
 */
import { spawn, spawnSync } from 'node:child_process'
import { accessSync, constants, copyFileSync, existsSync, mkdtempSync, renameSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { type Command, InvalidArgumentError } from 'commander'
import { packageRoot } from '../runtime/addon.js'
import { cudaBuildFolders, cudaLibraryFile } from '../runtime/devices.js'
import { cudaReport, VoltaicError } from '../runtime/index.js'
import { makeFolder } from '../runtime/make-folder.js'
import { formatDuration } from './format.js'
import { createProgress } from './progress.js'

interface Options {
  readonly archs?: string
  readonly output?: string
}

export const oldestArch = 75
const oldestNvcc = [12, 8] as const
const oldestCmake = [3, 22] as const

export function addBuildCudaCommand(program: Command): void {
  program
    .command('build-cuda')
    .description('compile the CUDA backend with the CUDA toolkit of this machine (nvcc 12.8 or later, cmake)')
    .option(
      '--archs <list>',
      "compute capabilities, as 80,90; default: VOLTAIC_CUDA_ARCHS, else this machine's cards', else all",
      parseArchs,
    )
    .option('--output <dir>', 'folder for the library; else where Voltaic looks for it')
    .action((options: Options) => buildCuda(options))
}

/** '80,90', '8.0;9.0' and the like as CMake wants them: '80;90'. */
export function parseArchs(text: string): string {
  const archs = text
    .split(/[\s,;]+/)
    .filter((arch) => arch !== '')
    .map((arch) => Number(/^(\d+)\.?(\d)$/.exec(arch)?.slice(1).join('')))
  const wrong = archs.some((arch) => !(arch >= oldestArch))
  if (wrong || archs.length === 0)
    throw new InvalidArgumentError(
      `'${text}' are no compute capabilities from ${oldestArch / 10} on, such as 80,90.`,
    )
  return [...new Set(archs)].sort((a, b) => a - b).join(';')
}

/** Of this machine's cards, or undefined where there is none. */
function archsHere(): string | undefined {
  const asked = spawnSync('nvidia-smi', ['--query-gpu=compute_cap', '--format=csv,noheader'], {
    encoding: 'utf8',
  })
  if (asked.status !== 0 || asked.stdout.trim() === '') return undefined
  try {
    return parseArchs(asked.stdout)
  } catch {
    throw new VoltaicError(
      'ERR_UNSUPPORTED',
      `nvidia-smi sees cards of compute capability ${asked.stdout.trim().replaceAll('\n', ', ')}; ` +
        `Voltaic's kernels need ${oldestArch / 10} or later. --archs names others to build for`,
    )
  }
}

function wantedArchs(given: string | undefined): string | undefined {
  if (given !== undefined) return given
  const setting = process.env.VOLTAIC_CUDA_ARCHS
  if (!setting) return archsHere()
  try {
    return parseArchs(setting)
  } catch (cause) {
    throw new VoltaicError('ERR_CONFIG', `VOLTAIC_CUDA_ARCHS: ${(cause as Error).message}`, { cause })
  }
}

/** The version that a program's `--version` tells; undefined when it does not run. */
function versionOf(program: string, pattern: RegExp): readonly [number, number] | undefined {
  const asked = spawnSync(program, ['--version'], { encoding: 'utf8' })
  if (asked.error !== undefined || asked.status !== 0) return undefined
  const match = pattern.exec(asked.stdout)
  return match === null ? [0, 0] : [Number(match[1]), Number(match[2])]
}

const below = (version: readonly [number, number], oldest: readonly [number, number]): boolean =>
  version[0] < oldest[0] || (version[0] === oldest[0] && version[1] < oldest[1])

/** nvcc: CUDACXX alone where it is set, else the first on PATH, in CUDA_HOME and in /usr/local/cuda. */
function findNvcc(): string {
  const { CUDACXX, CUDA_HOME, CUDA_PATH } = process.env
  const toolkits = [CUDA_HOME, CUDA_PATH, '/usr/local/cuda'].filter((root) => root)
  const places = CUDACXX
    ? [CUDACXX]
    : ['nvcc', ...toolkits.map((root) => join(root as string, 'bin', 'nvcc'))]
  for (const place of places) {
    const version = versionOf(place, /release (\d+)\.(\d+)/)
    if (version === undefined) continue
    if (below(version, oldestNvcc))
      throw new VoltaicError(
        'ERR_UNSUPPORTED',
        `${place} is of CUDA ${version.join('.')}; the kernels need ${oldestNvcc.join('.')} or later. Install a newer ` +
          'CUDA toolkit, or name another nvcc with CUDACXX',
      )
    return place
  }
  throw new VoltaicError(
    'ERR_UNSUPPORTED',
    `no CUDA compiler: looked for ${places.join(', ')}. Install the CUDA toolkit (${oldestNvcc.join('.')} or later), ` +
      'or name its nvcc with CUDACXX',
  )
}

function requireCmake(): void {
  const version = versionOf('cmake', /version (\d+)\.(\d+)/)
  if (version !== undefined && !below(version, oldestCmake)) return
  throw new VoltaicError(
    'ERR_UNSUPPORTED',
    `${version === undefined ? 'cmake is not installed' : `cmake is ${version.join('.')}`}; ` +
      `building needs ${oldestCmake.join('.')} or later (apt-get install cmake, or pip install cmake)`,
  )
}

function writable(folder: string): boolean {
  try {
    makeFolder(folder)
    accessSync(folder, constants.W_OK)
    return true
  } catch {
    return false
  }
}

/** The package's folder for builds; the user's where the package cannot be written to. */
function buildFolder(): string {
  const folder = cudaBuildFolders().find(writable)
  if (folder !== undefined) return folder
  throw new VoltaicError('ERR_IO', `neither of ${cudaBuildFolders().join(', ')} can be written to`)
}

const shownLines = 40

/** Runs a program; each line is heard. When it fails, its last lines are shown and it throws. */
async function run(program: string, args: readonly string[], heard: (line: string) => void): Promise<void> {
  const last: string[] = []
  const hear = (line: string): void => {
    last.push(line)
    if (last.length > 4 * shownLines) last.splice(0, shownLines)
    heard(line)
  }
  const status = await new Promise<number | string>((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [child.stdout, child.stderr]) {
      let rest = ''
      stream.setEncoding('utf8').on('data', (piece: string) => {
        const lines = (rest + piece).split('\n')
        rest = lines.pop() as string
        for (const line of lines) hear(line)
      })
      stream.on('end', () => rest && hear(rest))
    }
    child.on('error', reject)
    child.on('close', (code, signal) => resolve(code ?? signal ?? 'an unknown end'))
  })
  if (status === 0) return
  // The compiler's report of registers is long, and not what failed.
  const told = last.filter((line) => !/^ptxas info|bytes (stack frame|gmem)/.test(line)).slice(-shownLines)
  process.stderr.write(`${told.join('\n')}\n`)
  throw new VoltaicError(
    'ERR_BACKEND',
    `${program} ${args[0]} ended with ${status}; its last lines are above`,
  )
}

async function buildCuda({ archs: given, output }: Options): Promise<void> {
  const begin = performance.now()
  if (process.platform !== 'linux')
    throw new VoltaicError('ERR_UNSUPPORTED', `the CUDA backend is for Linux; this is ${process.platform}`)
  const archs = wantedArchs(given)
  const nvcc = findNvcc()
  requireCmake()
  if (!existsSync(join(packageRoot, 'cuda', 'backend.cu')))
    throw new VoltaicError('ERR_IO', `${packageRoot} lacks the CUDA sources; install the package again`)
  const folder = output === undefined ? buildFolder() : resolve(output)
  makeFolder(folder)
  // In Voltaic's own folder objects stay, and are used again where they fit.
  const work =
    output === undefined ? join(folder, 'cmake') : mkdtempSync(join(tmpdir(), 'voltaic-build-cuda-'))
  try {
    await compile(nvcc, archs, work)
    // A process that has the old one open keeps it: the file is replaced, never written into.
    copyFileSync(join(work, cudaLibraryFile), join(folder, `${cudaLibraryFile}.tmp`))
  } finally {
    if (output !== undefined) rmSync(work, { recursive: true, force: true })
  }
  const library = join(folder, cudaLibraryFile)
  renameSync(`${library}.tmp`, library)
  process.stderr.write(`done in ${formatDuration((performance.now() - begin) / 1000)}\n`)
  process.stdout.write(`${library}\n`)
  if (output !== undefined) process.stdout.write(`to use it: VOLTAIC_CUDA_LIBRARY=${library}\n`)
  else if (cudaReport().devices === 0)
    process.stdout.write(`CUDA is not used here yet: ${cudaReport().reason}\n`)
}

async function compile(nvcc: string, archs: string | undefined, work: string): Promise<void> {
  makeFolder(work)
  // A cache of another folder or compiler would be refused.
  rmSync(join(work, 'CMakeCache.txt'), { force: true })
  const progress = createProgress()
  progress.log(
    `compiling for ${archs === undefined ? 'all cards' : `compute capability ${archs.replaceAll(';', ', ')}`} with ${nvcc}`,
  )
  const configure = ['-S', packageRoot, '-B', work, `-DCMAKE_CUDA_COMPILER=${nvcc}`]
  configure.push('-DVOLTAIC_CUDA=ON', '-DVOLTAIC_TESTS=OFF', `-DVOLTAIC_CUDA_ARCHS=${archs ?? ''}`)
  const jobs = process.env.JOBS && process.env.JOBS !== 'max' ? process.env.JOBS : availableParallelism()
  try {
    await run('cmake', configure, () => undefined)
    await run('cmake', ['--build', work, '--parallel', String(jobs)], (line) => {
      const done = /^\[ *(\d+)%\] (.*)$/.exec(line)
      if (done) progress.update(done[2] as string, Number(done[1]) / 100)
    })
  } finally {
    progress.done()
  }
}
