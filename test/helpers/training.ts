/** Small pre-training runs for tests: a corpus, options that make a run take about a second, and what a run left behind. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { PretrainResult, PretrainRun, PretrainStep } from 'voltaic'
import { pretrain } from 'voltaic'

const people = 'anna boris clara david emma felix greta hugo ivan julia lena maria'.split(' ')
const trades = 'baker sailor farmer teacher doctor tailor painter smith gardener musician'.split(' ')
const places = 'market harbor school garden kitchen village castle forest bridge library'.split(' ')
const things = 'bread boat apple letter coat picture hammer flower violin lantern basket'.split(' ')
const deeds = 'carried painted repaired found borrowed polished counted admired forgot washed'.split(' ')

/** Documents of 4 to 11 short lines from word lists: the same for the same numbers. */
export function corpusText(documents = 120, seed = 1): string {
  let state = seed
  const pick = <T>(list: readonly T[]): T => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return list[Math.floor((state / 2 ** 32) * list.length)] as T
  }
  const line = (): string =>
    pick([
      () => `${pick(people)} the ${pick(trades)} ${pick(deeds)} the ${pick(things)} in the ${pick(places)}.`,
      () => `in the ${pick(places)}, ${pick(people)} ${pick(deeds)} a ${pick(things)} and a ${pick(things)}.`,
      () => `every ${pick(trades)} of the ${pick(places)} has a ${pick(things)}.`,
    ])()
  const document = (): string => Array.from({ length: pick([4, 5, 6, 7, 8, 9, 10, 11]) }, line).join('\n')
  return `${Array.from({ length: documents }, document).join('\n\n')}\n`
}

/** One layer of 32 in sequences of 32: a run of 20 steps takes a few tenths of a second. */
export const smallRun = {
  size: 'tiny',
  model: {
    numHiddenLayers: 1,
    hiddenSize: 32,
    numAttentionHeads: 2,
    intermediateSize: 64,
    embeddingSize: 16,
    maxPositionEmbeddings: 64,
  },
  vocabSize: 200,
  batchSize: 8,
  sequenceLength: 32,
  steps: 20,
  learningRate: 1e-3,
  warmupSteps: 4,
  logEvery: 5,
  validateEvery: 8,
  validationBatches: 2,
  saveEvery: 6,
  threads: 1,
  device: 'cpu',
  // 'auto' depends on the processor.
  precision: 'fp32',
} as const satisfies Partial<PretrainRun>

export interface FinishedRun {
  readonly steps: readonly PretrainStep[]
  readonly result: PretrainResult
}

/** Runs to the end. */
export async function train(options: PretrainRun): Promise<FinishedRun> {
  const steps: PretrainStep[] = []
  const run = pretrain(options)
  for (;;) {
    const next = await run.next()
    if (next.done) return { steps, result: next.value }
    steps.push(next.value)
  }
}

export type Row = Readonly<Record<string, unknown>> & { readonly step: number }

export function metricsOf(output: string): Row[] {
  const lines = readFileSync(join(output, 'metrics.jsonl'), 'utf8').split('\n')
  if (lines.pop() !== '') throw new Error(`${output}/metrics.jsonl ends in the middle of a line`)
  return lines.map((line) => JSON.parse(line) as Row)
}

/** What must be the same however often a run was interrupted: all but the speed. */
export const repeatable = (rows: readonly Row[]): object[] =>
  rows.map(({ tokens_per_second: _, ...row }) => row)

export const sha256 = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex')

/** Hashes of both models' weights. */
export const weightsOf = (
  output: string,
): { readonly discriminator: string; readonly generator: string } => ({
  discriminator: sha256(join(output, 'discriminator', 'model.safetensors')),
  generator: sha256(join(output, 'generator', 'model.safetensors')),
})

/** Every file under a folder: content and modification time. */
export function snapshot(folder: string): Record<string, string> {
  const files: Record<string, string> = {}
  const visit = (place: string): void => {
    for (const entry of readdirSync(place, { withFileTypes: true }).sort((a, b) =>
      a.name < b.name ? -1 : 1,
    )) {
      const path = join(place, entry.name)
      if (entry.isDirectory()) visit(path)
      else
        files[relative(folder, path)] =
          `${sha256(path)} ${statSync(path, { bigint: true }).mtimeNs.toString()}`
    }
  }
  visit(folder)
  return files
}

/** The same without times. */
export const contentOf = (folder: string): Record<string, string> =>
  Object.fromEntries(
    Object.entries(snapshot(folder)).map(([path, state]) => [path, state.split(' ')[0] as string]),
  )

/** Names that writers use while they write, anywhere under a folder. */
export const leftovers = (folder: string): string[] =>
  Object.keys(snapshot(folder)).filter((path) => /\.(tmp|old)(\/|$)/.test(path))

export const eventFileOf = (output: string): string => {
  const names = readdirSync(output).filter((name) => name.startsWith('events.out.tfevents.'))
  if (names.length !== 1) throw new Error(`${output} holds ${names.length} event files, expected one`)
  return join(output, names[0] as string)
}

export const mainFile: string = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))

export interface Finished {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface CommandOptions {
  readonly input?: string | Buffer
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  /** Called once the process runs. */
  readonly started?: (child: ChildProcess) => void
  /** Called with each piece of output so far. */
  readonly onOutput?: (stdout: string, child: ChildProcess) => void
  readonly onError?: (stderr: string, child: ChildProcess) => void
}

/** Runs `voltaic ARGUMENTS…` in a process of its own. */
export function voltaic(args: readonly string[], options: CommandOptions = {}): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [mainFile, ...args], {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (piece: string) => {
      stdout += piece
      options.onOutput?.(stdout, child)
    })
    child.stderr.setEncoding('utf8').on('data', (piece: string) => {
      stderr += piece
      options.onError?.(stderr, child)
    })
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }))
    // A process that was killed or never reads does not mind.
    child.stdin.on('error', () => undefined)
    child.stdin.end(options.input ?? '')
    options.started?.(child)
  })
}
