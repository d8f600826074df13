/** `voltaic pretrain --device cuda` end to end: it learns what the CPU learns, repeats, and resumes bit for bit after SIGKILL. */
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { needsCuda } from '../helpers/cuda.js'
import {
  corpusText,
  metricsOf,
  repeatable,
  smallRun,
  train,
  voltaic,
  weightsOf,
} from '../helpers/training.js'

t.setTimeout(230_000)
const folder = t.testdir({ 'corpus.txt': corpusText(40) })
const { threads: _, device: __, ...settings } = smallRun
const run = {
  ...settings,
  corpus: [join(folder, 'corpus.txt')],
  batchSize: 4,
  steps: 10,
  logEvery: 2,
  validateEvery: 5,
  validationBatches: 1,
  saveEvery: 2,
} as const

t.test('float32 on the CPU and on CUDA: losses agree', needsCuda, async (t) => {
  const [cpu, cuda] = await Promise.all(
    (['cpu', 'cuda'] as const).map((device) =>
      train({ ...run, device, precision: 'fp32', output: join(folder, `losses-${device}`) }),
    ),
  )
  const losses = (steps: typeof cpu): number[] => steps?.steps.map(({ loss }) => loss) ?? []
  const [expected, found] = [losses(cpu), losses(cuda)]
  t.equal(found.length, run.steps)
  found.forEach((loss, i) => {
    // Rounding grows from step to step, and a sample may turn at a near tie.
    t.ok(Math.abs(loss - (expected[i] as number)) < 2e-3 * (expected[i] as number), `step ${i}: ${loss}`)
  })
})

for (const precision of ['fp32', 'bf16'] as const) {
  t.test(`${precision}: killed and resumed, the files are the same`, needsCuda, async (t) => {
    const config = join(folder, `${precision}.json`)
    const { corpus, ...rest } = run
    writeFileSync(config, JSON.stringify(rest))
    const command = (output: string): string[] => [
      'pretrain',
      ...corpus,
      '--config',
      config,
      '--output',
      output,
      '--device',
      'cuda',
      '--precision',
      precision,
    ]
    const whole = join(folder, `whole-${precision}`)
    const output = join(folder, `killed-${precision}`)
    const finished = await voltaic(command(whole))
    t.equal(finished.code, 0, finished.stderr)
    let killed = 0
    for (const checkpoint of [2, 6]) {
      const { signal } = await voltaic(command(output), {
        started: (child) => {
          const look = (): void => {
            if (child.exitCode !== null || child.signalCode !== null) return
            if (existsSync(join(output, 'checkpoints', `step-${String(checkpoint).padStart(9, '0')}`)))
              child.kill('SIGKILL')
            else setTimeout(look, 5)
          }
          look()
        },
      })
      if (signal === 'SIGKILL') killed++
    }
    t.ok(killed > 0, `killed ${killed} times`)
    const resumed = await voltaic(command(output))
    t.equal(resumed.code, 0, resumed.stderr)
    t.same(weightsOf(output), weightsOf(whole))
    t.same(repeatable(metricsOf(output)), repeatable(metricsOf(whole)))
  })
}
