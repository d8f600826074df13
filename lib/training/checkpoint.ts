/**
 * Checkpoints: everything that decides the rest of a run. A folder `checkpoints/step-NNNNNNNNN` holds `state.json` and
 * `tensors.safetensors` (weights and both moments, each one flat run in the arena's order); it is written aside, synced and
 * renamed, so a checkpoint is there whole or not at all. The newest ones are kept.
 */
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import type { BatchState } from '../data/index.js'
import { readJsonFile } from '../formats/json-file.js'
import {
  readSafetensors,
  type SafetensorsFile,
  type TensorToWrite,
  writeSafetensors,
} from '../formats/safetensors.js'
import { removeLeftovers, writeFolderAtomically } from '../runtime/atomic-file.js'
import { VoltaicError } from '../runtime/errors.js'
import { makeFolder } from '../runtime/make-folder.js'
import type { DecidedPrecision } from './options.js'

export const checkpointFormat = 1

/** What a checkpoint of any run says beside its tensors. */
export interface TrainingState {
  readonly format: number
  /** Steps done. */
  readonly step: number
  /** The optimizer's own count: updates since its moments were last zero. */
  readonly optimizerSteps: number
  readonly seed: number
  /** Resolved when the run began, and followed by every resume. */
  readonly device: string
  readonly precision: DecidedPrecision
  readonly instructionSet: string
  /** Which of a matmul library's algorithms were used (`deviceSetting`); left out where there is no library. */
  readonly matmul?: string
  /** Sums since the last row of metrics, so that a resumed run writes the same rows. */
  readonly interval: Readonly<Record<string, number>>
  /** How far metrics.jsonl went. */
  readonly metricsPosition: number
  /** Name, element offset and shape of each parameter in the flat tensors. */
  readonly layout: readonly CheckpointSegment[]
  /** CRC-32 of the rest of this and of the CRC-32s of the tensors; filled in by `save`. */
  readonly checksum?: number
}

/** The state of a pre-training run. */
export interface CheckpointState extends TrainingState {
  /** Where the batches stand. */
  readonly data: BatchState
  /** How far the log of events went. */
  readonly events: { readonly fileName: string; readonly position: number }
}

export interface CheckpointSegment {
  readonly name: string
  readonly offset: number
  readonly shape: readonly number[]
}

/** A long tensor that is written piece by piece; a piece's memory is used again for the next. */
export interface FlatSource {
  readonly length: number
  pieces(): Iterable<Float32Array>
}

/** What `save` writes. In pieces, so that a checkpoint takes no memory to speak of, however large the model. */
export interface CheckpointSource {
  readonly parameters: FlatSource
  readonly firstMoment: FlatSource
  readonly secondMoment: FlatSource
  /** What else the run keeps, under its names in the file. */
  readonly others: Readonly<Record<string, FlatSource | Int32Array>>
}

/** The flat tensors of a checkpoint, in the arena's layout. */
export interface CheckpointTensors {
  readonly parameters: Float32Array
  readonly firstMoment: Float32Array
  readonly secondMoment: Float32Array
  readonly others: Readonly<Record<string, Float32Array | Int32Array>>
}

const tensorsFile = 'tensors.safetensors'
const stateFile = 'state.json'
const flatNames: readonly string[] = ['parameters', 'first_moment', 'second_moment']
const folderName = (step: number): string => `step-${String(step).padStart(9, '0')}`
const folderPattern = /^step-(\d{9,})$/

export interface CheckpointFolder<State extends TrainingState = CheckpointState> {
  /** Steps of the checkpoints there are, ascending. */
  steps(): number[]
  /** Writes one, then removes all but the newest `keep`. */
  save(state: State, tensors: CheckpointSource): Promise<void>
  /** The newest; undefined when there is none. Throws ERR_FORMAT naming the file when it is damaged. */
  load(): { readonly state: State; readonly tensors: CheckpointTensors } | undefined
  remove(): void
}

export function openCheckpoints<State extends TrainingState = CheckpointState>(
  output: string,
  keep: number,
): CheckpointFolder<State> {
  const folder = join(output, 'checkpoints')
  const steps = (): number[] => {
    if (!existsSync(folder)) return []
    return readdirSync(folder)
      .map((name) => Number(folderPattern.exec(name)?.[1] ?? Number.NaN))
      .filter((step) => !Number.isNaN(step))
      .sort((a, b) => a - b)
  }
  return {
    steps,
    async save(state, tensors) {
      makeFolder(folder)
      await removeLeftovers(folder)
      await writeFolderAtomically(join(folder, folderName(state.step)), async (place) => {
        const sums: TensorSums = {}
        await writeSafetensors(join(place, tensorsFile), describe(tensors, sums), { format: 'voltaic' })
        const complete: State = { ...state, checksum: checksumOf(state, sums) }
        await writeFile(join(place, stateFile), `${JSON.stringify(complete, null, 1)}\n`)
      })
      const old = steps()
      for (const step of old.slice(0, Math.max(0, old.length - keep))) {
        if (step < state.step) rmSync(join(folder, folderName(step)), { recursive: true, force: true })
      }
    },
    load() {
      const newest = steps().at(-1)
      if (newest === undefined) return undefined
      const path = join(folder, folderName(newest))
      const state = readState<State>(join(path, stateFile), path)
      using file = openTensors(join(path, tensorsFile), path)
      const sums: TensorSums = {}
      const read = (name: string): Float32Array | Int32Array => {
        const data = (file.info(name).dtype === 'I32' ? file.int32(name) : file.float32(name)).slice()
        sums[name] = crc32(bytesOf(data))
        return data
      }
      const flat = (name: string): Float32Array => read(name) as Float32Array
      const others = file.names.filter((name) => !flatNames.includes(name))
      const tensors = {
        parameters: flat('parameters'),
        firstMoment: flat('first_moment'),
        secondMoment: flat('second_moment'),
        others: Object.fromEntries(others.map((name) => [name, read(name)])),
      }
      if (checksumOf(state, sums) !== state.checksum)
        throw damaged(path, 'its content does not match its checksum')
      return { state, tensors }
    },
    remove() {
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** CRC-32 of each tensor's bytes, by its name in the file. */
type TensorSums = Record<string, number>

const bytesOf = (data: ArrayBufferView): Uint8Array =>
  new Uint8Array(data.buffer, data.byteOffset, data.byteLength)

function checksumOf({ checksum: _, ...state }: TrainingState, sums: TensorSums): number {
  const ofTensors = Object.entries(sums).sort(([a], [b]) => (a < b ? -1 : 1))
  return crc32(JSON.stringify([state, ofTensors]))
}

/** The tensors as the writer takes them; `sums` fills while they are written. */
function describe(tensors: CheckpointSource, sums: TensorSums): TensorToWrite[] {
  const flat = (name: string, source: FlatSource): TensorToWrite => ({
    name,
    dtype: 'F32',
    shape: [source.length],
    data: {
      *pieces() {
        sums[name] = 0
        for (const piece of source.pieces()) {
          sums[name] = crc32(bytesOf(piece), sums[name])
          yield piece
        }
      },
    },
  })
  const others = Object.entries(tensors.others).map(([name, source]): TensorToWrite => {
    if (!(source instanceof Int32Array)) return flat(name, source)
    sums[name] = crc32(bytesOf(source))
    return { name, dtype: 'I32', shape: [source.length], data: source }
  })
  return [
    flat('parameters', tensors.parameters),
    flat('first_moment', tensors.firstMoment),
    flat('second_moment', tensors.secondMoment),
    ...others,
  ]
}

/** The way out of a damaged checkpoint: an older one, if there is one, comes next. */
function damaged(path: string, reason: string, cause?: unknown): VoltaicError {
  return new VoltaicError(
    'ERR_FORMAT',
    `the checkpoint ${path} is damaged: ${reason}. Move the folder away to resume from the one before it, ` +
      'or start over with --fresh',
    { cause },
  )
}

function readState<State extends TrainingState>(file: string, path: string): State {
  let state: State
  try {
    state = readJsonFile(file) as State
  } catch (cause) {
    throw damaged(path, `${stateFile} cannot be read (${(cause as Error).message})`, cause)
  }
  if (state?.format !== checkpointFormat)
    throw new VoltaicError(
      'ERR_FORMAT',
      `the checkpoint ${path} has format ${state?.format}, this version reads format ${checkpointFormat}`,
    )
  if (!Number.isSafeInteger(state.step) || !Array.isArray(state.layout))
    throw damaged(path, `${stateFile} lacks its step or layout`)
  return state
}

function openTensors(file: string, path: string): SafetensorsFile {
  try {
    return readSafetensors(file)
  } catch (cause) {
    throw damaged(path, (cause as Error).message, cause)
  }
}

/** @throws ERR_FORMAT when a checkpoint's parameters are not those of the model (`layout`) */
export function requireLayout(
  layout: readonly CheckpointSegment[],
  state: TrainingState,
  output: string,
): void {
  if (JSON.stringify(layout) !== JSON.stringify(state.layout))
    throw new VoltaicError(
      'ERR_FORMAT',
      `the checkpoint in ${output} holds other parameters than this model has; it was written by another version. ` +
        'Use another folder, or start over with --fresh',
    )
}
