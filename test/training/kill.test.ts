/**
 * A process killed with SIGKILL at any moment, and started again, ends with the bytes of one that was never disturbed. Moments are drawn
 * by a seeded generator over the whole life of the process, and chosen: while a vocabulary, a shard or a checkpoint is written.
 */
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  corpusText,
  leftovers,
  metricsOf,
  repeatable,
  smallRun,
  voltaic,
  weightsOf,
} from '../helpers/training.js'

t.setTimeout(230_000)
const folder = t.testdir({ 'corpus.txt': corpusText(300) })
const config = join(folder, 'config.json')
// Every step is followed by a checkpoint and every other one by a validation, so most moments fall into writing one or into one.
const { threads: _, ...settings } = smallRun
writeFileSync(
  config,
  JSON.stringify({
    ...settings,
    steps: 40,
    saveEvery: 1,
    validateEvery: 2,
    validationBatches: 50,
    logEvery: 3,
  }),
)

let count = 0
interface Variant {
  readonly precision: 'fp32' | 'bf16'
  readonly threads: number
}
const newOutput = (): string => join(folder, `run-${count++}`)
const command = (output: string, { precision, threads }: Variant): string[] => [
  'pretrain',
  join(folder, 'corpus.txt'),
  ...['--config', config, '--output', output, '--precision', precision, '--threads', String(threads)],
]

/** An uninterrupted run: its files, and how long it took. */
async function whole(variant: Variant) {
  const output = newOutput()
  const begin = performance.now()
  const { code, stderr } = await voltaic(command(output, variant))
  if (code !== 0) throw new Error(stderr)
  return {
    weights: weightsOf(output),
    rows: repeatable(metricsOf(output)),
    milliseconds: performance.now() - begin,
  }
}

/** Runs, killed after a delay if one is given; true when it ended by itself, well. */
async function attempt(output: string, variant: Variant, delay?: number): Promise<boolean> {
  const { code, signal, stderr } = await voltaic(command(output, variant), {
    started: (child) => {
      if (delay !== undefined) {
        const timer = setTimeout(() => child.kill('SIGKILL'), delay)
        child.on('close', () => clearTimeout(timer))
      }
    },
  })
  if (code !== 0 && signal !== 'SIGKILL') throw new Error(`ended with ${code ?? signal}: ${stderr}`)
  return code === 0
}

/** Runs and kills when `moment` says so, looked at between any two turns of the event loop. True when it was killed there. */
async function killWhen(output: string, variant: Variant, moment: () => boolean): Promise<boolean> {
  let seen = false
  const { code, stderr, signal } = await voltaic(command(output, variant), {
    started: (child) => {
      let over = false
      child.on('close', () => {
        over = true
      })
      const look = (): void => {
        if (over) return
        if (moment()) {
          seen = true
          child.kill('SIGKILL')
        } else setImmediate(look)
      }
      look()
    },
  })
  if (code !== 0 && signal !== 'SIGKILL') throw new Error(`ended with ${code ?? signal}: ${stderr}`)
  return seen && signal === 'SIGKILL'
}

const namesIn = (place: string): string[] => (existsSync(place) ? readdirSync(place) : [])

let state = 20260101
const random = (): number => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return state / 2 ** 32
}

for (const precision of ['fp32', 'bf16'] as const) {
  const expected = await whole({ precision, threads: 1 })

  t.test(`${precision}: 1 and 2 threads write identical files`, async (t) => {
    const two = await whole({ precision, threads: 2 })
    t.same(two.weights, expected.weights)
    t.same(two.rows, expected.rows)
  })

  for (const threads of [1, 2]) {
    t.test(`${precision}, ${threads} threads: killed at random moments until it is through`, async (t) => {
      const output = newOutput()
      const variant = { precision, threads }
      const delays: number[] = []
      const training = (): boolean => existsSync(join(output, 'metrics.jsonl'))
      t.ok(await killWhen(output, variant, training), 'killed for the first time as soon as it trains')
      // Later moments each time, so that it gets through in the end whatever the machine's speed.
      for (let done = false; !done && delays.length < 12; ) {
        const delay = Math.round(expected.milliseconds * (0.1 + random() * (0.4 + 0.06 * delays.length)))
        delays.push(delay)
        done = await attempt(output, variant, delay)
      }
      t.comment(`delays ${delays.join(', ')} ms of ${Math.round(expected.milliseconds)}`)
      t.ok(await attempt(output, variant), 'undisturbed, it ends')
      t.same(weightsOf(output), expected.weights)
      t.same(repeatable(metricsOf(output)), expected.rows)
      t.same(leftovers(output), [])
    })
  }

  t.test(`${precision}: killed while something is written`, async (t) => {
    const output = newOutput()
    const variant = { precision, threads: 2 }
    const place = (...names: string[]): string => join(output, ...names)
    const shards = (): string[] => namesIn(place('data')).flatMap((key) => namesIn(place('data', key)))
    const moments: [string, () => boolean][] = [
      ['the folder is made', () => existsSync(output)],
      ['the vocabulary is written', () => namesIn(place('tokenizer')).some((name) => name.endsWith('.tmp'))],
      ['a shard is written', () => shards().some((name) => name.endsWith('.tmp'))],
      ['the manifest is missing', () => shards().some((name) => name === 'shard-00000.bin')],
      ['the run is recorded', () => existsSync(place('run.json'))],
      ...Array.from({ length: 4 }, (_, i): [string, () => boolean] => [
        `a checkpoint is written (${i})`,
        () => namesIn(place('checkpoints')).some((name) => name.endsWith('.tmp')),
      ]),
      ['an old checkpoint is removed', () => namesIn(place('checkpoints')).length > 2],
      ['the generator is written', () => existsSync(place('generator'))],
      ['the discriminator is written', () => existsSync(place('discriminator'))],
      ['the discriminator has weights', () => existsSync(place('discriminator', 'model.safetensors'))],
    ]
    let killed = 0
    for (const [name, moment] of moments) {
      const hit = await killWhen(output, variant, moment)
      t.comment(`${hit ? 'killed when' : 'not met:'} ${name}`)
      if (hit) killed++
    }
    // A moment of a millisecond may pass unseen on a busy machine; most are met.
    t.ok(killed >= 6, `${killed} of ${moments.length} moments met`)
    t.ok(await attempt(output, variant))
    t.same(weightsOf(output), expected.weights)
    t.same(repeatable(metricsOf(output)), expected.rows)
    t.same(leftovers(output), [])
  })
}
