/** `voltaic build-cuda` with stand-ins for nvcc, cmake and nvidia-smi: what it asks of them, and what it says when they do not fit. */
import { chmodSync, existsSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { type Finished, voltaic } from '../helpers/training.js'

const folder = t.testdir({ tools: {}, bare: {} })
const at = (...names: string[]): string => join(folder, ...names)
const log = at('log')
symlinkSync(process.execPath, at('bare', 'node'))

function tool(name: string, script: string): string {
  writeFileSync(at('tools', name), `#!/bin/sh\n${script}\n`)
  chmodSync(at('tools', name), 0o755)
  return at('tools', name)
}
const nvcc = (release: string): string =>
  tool('nvcc', `echo "Cuda compilation tools, release ${release}, V${release}.1"`)
const card = (...capabilities: string[]): string =>
  tool('nvidia-smi', capabilities.length > 0 ? `printf '%s\\n' ${capabilities.join(' ')}` : 'exit 9')
/** Notes its arguments; --build leaves a library, or fails as a compiler does. */
const cmake = (version: string, build: 'builds' | 'fails' = 'builds'): string =>
  tool(
    'cmake',
    `if [ "$1" = --version ]; then echo "cmake version ${version}.1"; exit; fi
echo "$@" >> ${log}
if [ "$1" = --build ]; then
  echo "[ 50%] Building CUDA object gemm.cuh.o"
  ${build === 'fails' ? 'echo "gemm.cuh(3): error: no such thing"; exit 2' : 'echo library > "$2/libvoltaic_cuda.so"'}
fi`,
  )

const build = (args: readonly string[] = [], env: Readonly<Record<string, string>> = {}): Promise<Finished> =>
  voltaic(['build-cuda', ...args], {
    env: {
      PATH: `${at('tools')}:/usr/bin:/bin`,
      CUDACXX: at('tools', 'nvcc'),
      VOLTAIC_CUDA: 'off',
      VOLTAIC_CUDA_ARCHS: '',
      ...env,
    },
  })

t.test('compiles for what is asked, else for the cards here, and says where the library is', async (t) => {
  nvcc('12.8')
  cmake('3.22')
  card('9.0', '8.0', '9.0')
  const cases: [string[], Record<string, string>, string][] = [
    [['--archs', '90,80'], {}, '80;90'],
    [['--archs', '8.9'], { VOLTAIC_CUDA_ARCHS: '75' }, '89'],
    [[], { VOLTAIC_CUDA_ARCHS: '75 12.0' }, '75;120'],
    [[], {}, '80;90'],
  ]
  for (const [args, env, archs] of cases) {
    writeFileSync(log, '')
    const output = at('library', archs.replaceAll(';', '-'))
    const { code, stdout, stderr } = await build([...args, '--output', output], env)
    t.equal(code, 0, stderr)
    const library = join(output, 'libvoltaic_cuda.so')
    t.equal(stdout, `${library}\nto use it: VOLTAIC_CUDA_LIBRARY=${library}\n`)
    t.equal(readFileSync(library, 'utf8'), 'library\n')
    const [configure, compile] = readFileSync(log, 'utf8').split('\n') as [string, string]
    t.match(configure, `-DVOLTAIC_CUDA=ON -DVOLTAIC_TESTS=OFF -DVOLTAIC_CUDA_ARCHS=${archs}`)
    t.match(configure, `-DCMAKE_CUDA_COMPILER=${at('tools', 'nvcc')}`)
    const work = /^--build (\S+) --parallel \d+$/.exec(compile)?.[1]
    t.ok(work && configure.includes(`-B ${work}`), 'one folder for both')
    t.notOk(existsSync(work as string), 'and nothing of it is left')
  }
  card()
  writeFileSync(log, '')
  t.equal((await build(['--output', at('all')])).code, 0)
  t.match(readFileSync(log, 'utf8'), /-DVOLTAIC_CUDA_ARCHS=\n/, 'without a card: for all')
})

t.test('says what is missing or too old', async (t) => {
  const fails = async (
    message: RegExp,
    args: string[] = ['--archs', '90'],
    env: Readonly<Record<string, string>> = {},
  ): Promise<void> => {
    const { code, stderr, stdout } = await build(['--output', at('failed'), ...args], env)
    t.equal(code, 1)
    t.match(stderr, message)
    t.equal(stdout, '')
    t.notOk(existsSync(at('failed', 'libvoltaic_cuda.so')))
  }
  nvcc('12.6')
  cmake('3.22')
  await fails(/nvcc is of CUDA 12\.6; the kernels need 12\.8 or later/)
  await fails(/no CUDA compiler: looked for \S*missing.*Install the CUDA toolkit.*CUDACXX/, undefined, {
    CUDACXX: at('missing'),
  })
  nvcc('13.0')
  cmake('3.21')
  await fails(/cmake is 3\.21; building needs 3\.22 or later/)
  await fails(/cmake is not installed/, undefined, { PATH: at('bare') })
  cmake('3.25', 'fails')
  await fails(/gemm\.cuh\(3\): error: no such thing[\s\S]*cmake --build ended with 2.*ERR_BACKEND/)
  card('6.1')
  await fails(/compute capability 6\.1; Voltaic's kernels need 7\.5 or later/, [])
  await fails(/VOLTAIC_CUDA_ARCHS: 'many'/, [], { VOLTAIC_CUDA_ARCHS: 'many' })
  for (const archs of ['7', 'sm_90', '70', ',', '9.00']) {
    const { code, stderr } = await build(['--archs', archs])
    t.equal(code, 2)
    t.match(stderr, /no compute capabilities from 7\.5 on/)
  }
})
