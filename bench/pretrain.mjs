// npm run bench:pretrain [-- --size NAME,... --precision fp32,bf16 --batch-size N --sequence-length N] [--json FILE]:
// tokens per second of whole pre-training steps on random tokens, peak memory, and how late a 10 ms timer fires meanwhile.
// --profile says where a step's time goes, kernel by kernel.
import { parseArgs } from 'node:util'
import { deviceInfo, memoryStats, profile, threads } from '../dist/runtime/index.js'
import { device, writeJson } from './harness.mjs'
import { makeTrainer, randomBatch } from './steps.mjs'

const { values } = parseArgs({
  options: {
    size: { type: 'string', default: 'tiny,small' },
    precision: { type: 'string', default: 'fp32,bf16' },
    'batch-size': { type: 'string', default: '32' },
    'sequence-length': { type: 'string', default: '128' },
    steps: { type: 'string', default: '6' },
    json: { type: 'string' },
    profile: { type: 'boolean', default: false },
  },
})

const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]

/** How late timers of 10 ms fire, until stopped. */
function watchEventLoop() {
  const delays = []
  let due = performance.now() + 10
  const timer = setInterval(() => {
    delays.push(Math.max(0, performance.now() - due))
    due = performance.now() + 10
  }, 10)
  return () => {
    clearInterval(timer)
    return delays.sort((a, b) => a - b)
  }
}

/** The kernels that take most of a step. */
function printProfile(kernels, seconds) {
  const busy = kernels.reduce((sum, kernel) => sum + kernel.seconds, 0)
  console.log(`a step of ${(seconds * 1000).toFixed(1)} ms, ${(busy * 1000).toFixed(1)} in kernels:`)
  for (const { op, tensors, calls, seconds: time } of kernels) {
    if (time < busy / 500) break
    const share = ((100 * time) / busy).toFixed(1).padStart(5)
    console.log(
      `${share} % ${(time * 1000).toFixed(2).padStart(8)} ms ${String(calls).padStart(4)}x ${op} ${tensors.join(' ')}`,
    )
  }
}

const results = []
console.log(`${deviceInfo(device).name}, ${deviceInfo(device).instructionSet}, ${threads()} threads`)
for (const size of values.size.split(',')) {
  for (const precision of values.precision.split(',')) {
    const [batchSize, sequenceLength] = [Number(values['batch-size']), Number(values['sequence-length'])]
    const { trainer, flopsPerStep } = makeTrainer({ size, precision, batchSize, sequenceLength })
    const tokens = batchSize * sequenceLength
    const step = (i) => trainer.queueStep(i + 1000, [randomBatch(batchSize, sequenceLength, 30522, i)])
    for (let i = 0; i < 2; i++) await step(i)
    const allocations = memoryStats(device).systemAllocations
    const stopWatching = watchEventLoop()
    const rates = []
    let queueMs = 0
    for (let i = 2; i < 2 + Number(values.steps); i++) {
      const begin = performance.now()
      const numbers = step(i)
      queueMs += performance.now() - begin
      await numbers
      rates.push((tokens * 1000) / (performance.now() - begin))
    }
    const delays = stopWatching()
    rates.sort((a, b) => a - b)
    const median = quantile(rates, 0.5)
    const result = {
      size,
      precision,
      batchSize,
      sequenceLength,
      tokensPerSecond: median,
      least: rates[0],
      most: rates.at(-1),
      gflops: (median * flopsPerStep) / tokens / 1e9,
      peakMegabytes: memoryStats(device).peakReservedBytes / 2 ** 20,
      allocationsAfterSecondStep: memoryStats(device).systemAllocations - allocations,
      timerDelayP99: quantile(delays, 0.99) ?? 0,
      javascriptMsPerStep: queueMs / Number(values.steps),
    }
    results.push(result)
    console.log(
      `${size} ${precision} ${batchSize}x${sequenceLength}: ${median.toFixed(0)} tokens/s (${rates[0].toFixed(0)}-${rates.at(-1).toFixed(0)}), ` +
        `${result.gflops.toFixed(0)} GFLOP/s, ${result.peakMegabytes.toFixed(0)} MB, ` +
        `${result.allocationsAfterSecondStep} allocations after the second step, ` +
        `10 ms timer late by ${result.timerDelayP99.toFixed(1)} ms (p99), JavaScript ${result.javascriptMsPerStep.toFixed(1)} ms a step`,
    )
    if (values.profile) {
      const { kernels, seconds } = await profile(device, () => step(0))
      printProfile(kernels, seconds)
    }
    trainer.dispose()
  }
}
writeJson(results)
process.exit(0)
