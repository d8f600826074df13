// Whether the machine was quiet while something was timed. Two witnesses: a probe on every measured thread before and after (a chain of
// multiply-adds in registers, which only a busy processor makes slow), and the time that other processes computed meanwhile.
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { isMainThread, Worker, workerData } from 'node:worker_threads'

/** About 3 ms: a multiply and an add wait for each other half a million times. */
const rounds = 1 << 20

function probeSeconds() {
  const begin = performance.now()
  let a = 1.5
  let b = 2.5
  for (let i = 0; i < rounds; i++) {
    a = a * 0.999 + 0.001
    b = b * 0.998 + 0.002
  }
  const seconds = (performance.now() - begin) / 1000
  // Never so; keeps the loop from being left out.
  return a + b < 0 ? 0 : seconds
}

// One slot says which probe is due, one how many workers are done.
const [due, done] = [0, 1]

if (!isMainThread) {
  const { counters, times, index } = workerData
  for (let turn = 0; ; turn++) {
    Atomics.wait(counters, due, turn)
    times[index] = probeSeconds()
    Atomics.add(counters, done, 1)
    Atomics.notify(counters, done)
  }
}

/** The probe must reach this share of its best. */
const share = 0.85

/** The processors that this process may use, as `taskset` or a container left them; undefined where the system does not say. */
function allowedProcessors() {
  const [, list] = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? []
  return list?.split(',').flatMap((range) => {
    const [first, last = first] = range.split('-').map(Number)
    return Array.from({ length: last - first + 1 }, (_, i) => `cpu${first + i}`)
  })
}
const watched = allowedProcessors() ?? ['cpu']

/** Seconds that processes computed on these processors so far. */
function machineSeconds() {
  const seconds = readFileSync('/proc/stat', 'utf8')
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([name]) => watched.includes(name))
    .map((fields) => {
      const times = fields.slice(1, 9).map(Number)
      return times.reduce((sum, time) => sum + time, 0) - times[3] - times[4]
    })
  return seconds.reduce((sum, time) => sum + time, 0) / 100
}

export class QuietGuard {
  #counters = new Int32Array(new SharedArrayBuffer(8))
  #times
  #best = Number.POSITIVE_INFINITY
  #others

  constructor(threads) {
    this.#times = new Float64Array(new SharedArrayBuffer(8 * threads))
    const options = (index) => ({ workerData: { counters: this.#counters, times: this.#times, index } })
    for (let index = 1; index < threads; index++) {
      new Worker(fileURLToPath(import.meta.url), options(index)).unref()
    }
    // Beyond the measured threads' processors others may compute; a small share of these, too.
    this.#others = Math.max(0.06, 0.8 * (availableParallelism() - threads))
  }

  /** Compiles the probe and finds its best. */
  async calibrate() {
    for (let i = 0; i < 40; i++) {
      await new Promise((resolve) => setTimeout(resolve, 2))
      this.#probe()
    }
  }

  /** Seconds of the slowest thread. */
  #probe() {
    const workers = this.#times.length - 1
    Atomics.store(this.#counters, done, 0)
    Atomics.add(this.#counters, due, 1)
    Atomics.notify(this.#counters, due)
    this.#times[0] = probeSeconds()
    for (let seen = 0; seen < workers; seen = Atomics.load(this.#counters, done)) {
      Atomics.wait(this.#counters, done, seen, 1000)
    }
    const slowest = Math.max(...this.#times)
    this.#best = Math.min(this.#best, slowest)
    return slowest
  }

  /** Whether nobody is in the way now. */
  isQuiet() {
    return this.#probe() * share <= this.#best
  }

  /** Waits for quiet, but not longer. */
  async waitForQuiet(milliseconds) {
    const end = performance.now() + milliseconds
    while (!this.isQuiet() && performance.now() < end)
      await new Promise((resolve) => setTimeout(resolve, 100))
  }

  /** Runs `body`; says how it went: { value, quiet, others } with the share of a processor that others took. */
  async watch(side, body) {
    const before = this.isQuiet()
    const used = () =>
      machineSeconds() - side.cpuSeconds - (process.cpuUsage().user + process.cpuUsage().system) / 1e6
    const [begin, usedBefore] = [performance.now(), used()]
    const value = await body()
    const seconds = (performance.now() - begin) / 1000
    const others = Math.max(0, used() - usedBefore)
    // 0.03 s: what the clock of 10 ms may miscount.
    const quiet = before && others < this.#others * seconds + 0.03 && this.isQuiet()
    return { value, quiet, others: others / seconds }
  }
}
