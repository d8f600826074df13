// The sides of bench:peers: each is a process of its own, stopped whenever it is not asked, so that the spinning workers of one never
// run beside another's samples.
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { LineServer } from '../gpu/line-server.mjs'
import { findPython, outputOf } from '../gpu/machine.mjs'

const script = (name) => fileURLToPath(new URL(name, import.meta.url))
const has = (name) => {
  try {
    createRequire(import.meta.url).resolve(name)
    return true
  } catch {
    return false
  }
}

/** What a careful user of PyTorch sets: OpenMP's workers pinned and spinning, AVX-512 kernels, memory kept. */
function torchEnvironment(threads) {
  const openBlas = `/usr/lib/${outputOf('uname', ['-m'])}-linux-gnu/openblas-openmp`
  const flags = existsSync('/proc/cpuinfo') ? readFileSync('/proc/cpuinfo', 'utf8') : ''
  return {
    OMP_NUM_THREADS: String(threads),
    OMP_PROC_BIND: 'true',
    OMP_WAIT_POLICY: 'active',
    MALLOC_MMAP_THRESHOLD_: '8000000000',
    MALLOC_TRIM_THRESHOLD_: '16000000000',
    MALLOC_TOP_PAD_: '268435456',
    ...(existsSync(openBlas) ? { LD_LIBRARY_PATH: openBlas } : {}),
    ...(/\bavx512bw\b/.test(flags) ? { ATEN_CPU_CAPABILITY: 'avx512' } : {}),
  }
}

/** The sides that this machine has, each a function that gives what LineServer takes, and why others are missing. */
export function findSides(threads, { torch }) {
  const node = (file) => () => ({ command: process.execPath, args: [script(file), String(threads)] })
  const python = torch ? findPython() : undefined
  const sides = { voltaic: node('voltaic.mjs') }
  const missing = {}
  if (has('onnxruntime-node')) sides.onnxruntime = node('onnxruntime.mjs')
  else missing.onnxruntime = 'onnxruntime-node is not installed'
  if (has('@huggingface/tokenizers')) sides.tokenizers = node('tokenizers.mjs')
  else missing.tokenizers = '@huggingface/tokenizers is not installed'
  if (python) {
    sides.torch = () => ({
      command: python,
      args: ['-W', 'ignore', script('pytorch.py'), String(threads)],
      env: torchEnvironment(threads),
    })
  } else if (torch) missing.torch = 'no Python with PyTorch (VOLTAIC_PYTHON names one)'
  else missing.torch = 'not asked for'
  return { sides, missing }
}

export class Side {
  #server

  constructor(name, start, log) {
    this.#server = new LineServer({ name, ...start(), log })
  }

  #signal(name) {
    if (this.#server.pid !== undefined) process.kill(this.#server.pid, name)
  }

  /** Asks while the process runs; afterwards it stands still. */
  async ask(request, milliseconds = 300_000) {
    this.#signal('SIGCONT')
    const answer = await this.#server.ask(request, milliseconds)
    this.#signal('SIGSTOP')
    return answer
  }

  #statistics(file) {
    const { pid } = this.#server
    return pid === undefined ? '' : readFileSync(`/proc/${pid}/${file}`, 'utf8')
  }

  /** Seconds of processor time so far. */
  get cpuSeconds() {
    // The name in parentheses may hold blanks; user and system time are the 12th and 13th behind it.
    const fields = this.#statistics('stat')
      .replace(/^.*\) /s, '')
      .split(' ')
    return (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) / 100
  }

  /** Bytes of memory at most so far. */
  get peakBytes() {
    return 1024 * Number(/VmHWM:\s+(\d+)/.exec(this.#statistics('status'))?.[1] ?? 0)
  }

  stop() {
    this.#server.stop()
  }
}
