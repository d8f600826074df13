/**
 * The rules for running again in the same folder. `run.json` says what the run is: its data, vocabulary, architecture and what else
 * the checkpoints depend on. The same again resumes; another run in its place is refused, with the difference named.
 */
import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { readJsonFile } from '../formats/json-file.js'
import { writeFileAtomically } from '../runtime/atomic-file.js'
import { VoltaicError } from '../runtime/errors.js'
import type { TrainingState } from './checkpoint.js'

export const runFormat = 1

/** What must be the same for a run to go on: each a plain value that can be shown. */
export type RunIdentity = Readonly<Record<string, string | number | boolean>>

export interface RunRecord {
  readonly format: number
  readonly identity: RunIdentity
  /** What may change between runs, for the message that says so: steps, rates, intervals. */
  readonly settings: Readonly<Record<string, unknown>>
  /** Steps after which the run was complete; null while it is under way. */
  readonly completed: number | null
}

const fileOf = (output: string): string => join(output, 'run.json')

const isObject = (value: unknown): boolean => typeof value === 'object' && value !== null

/** The record of the run in a folder; undefined when there is none. */
export function readRunRecord(output: string): RunRecord | undefined {
  const path = fileOf(output)
  if (!existsSync(path)) return undefined
  let record: RunRecord
  try {
    record = readJsonFile(path) as RunRecord
  } catch (cause) {
    throw new VoltaicError(
      'ERR_FORMAT',
      `${path} cannot be read (${(cause as Error).message}); start over with --fresh, or use another folder`,
      { cause },
    )
  }
  if (record?.format !== runFormat)
    throw new VoltaicError(
      'ERR_FORMAT',
      `${path} has format ${record?.format}, this version reads format ${runFormat}; use another folder, or --fresh`,
    )
  if (!isObject(record.identity) || !isObject(record.settings))
    throw new VoltaicError(
      'ERR_FORMAT',
      `${path} does not say what the run is; start over with --fresh, or use another folder`,
    )
  return record
}

export async function writeRunRecord(output: string, record: RunRecord): Promise<void> {
  await writeFileAtomically(fileOf(output), `${JSON.stringify(record, null, 1)}\n`)
}

/** Throws ERR_CONFIG naming each difference when the folder holds another run. */
export function requireSameRun(output: string, record: RunRecord, identity: RunIdentity): void {
  const names = [...new Set([...Object.keys(record.identity), ...Object.keys(identity)])]
  const differences = names
    .filter((name) => record.identity[name] !== identity[name])
    .map((name) => `${name} was ${record.identity[name]}, is ${identity[name]}`)
  if (differences.length > 0)
    throw new VoltaicError(
      'ERR_CONFIG',
      `${output} holds another run: ${differences.join('; ')}. ` +
        'Use another --output folder, or start over in this one with --fresh (its checkpoints and models go)',
    )
}

/** A run's record and its checkpoints belong together: with one of them gone, going on would be starting over unasked. */
export function requireWholeRun(
  output: string,
  record: RunRecord | undefined,
  state: TrainingState | undefined,
): void {
  const wayOut = 'put it back, use another folder, or start over with --fresh'
  if (record === undefined && state !== undefined)
    throw new VoltaicError('ERR_FORMAT', `${output} holds checkpoints, but no run.json: ${wayOut}`)
  if (record !== undefined && record.completed !== null && state === undefined)
    throw new VoltaicError(
      'ERR_FORMAT',
      `${output} holds a finished run of ${record.completed} steps, but no checkpoint to go on from: ${wayOut}`,
    )
}

/**
 * Removes a run's own files: those of every run, and `names`. Tokenized data and a trained vocabulary stay: they are checked for
 * fitting when they are used. The record goes last: without it nothing would guard what a process killed here leaves.
 */
export function removeRun(output: string, names: readonly string[]): void {
  for (const name of ['checkpoints', 'metrics.jsonl', ...names, 'run.json'])
    rmSync(join(output, name), { recursive: true, force: true })
}
