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

/** What a checkpoint says of the run beside its tensors. */
export interface CheckpointState {
  readonly format: number
  /** Steps done. */
  readonly step: number
  /** The optimizer's own count: updates since its moments were last zero. */
  readonly optimizerSteps: number
  /** Where the batches stand. */
  readonly data: BatchState
  readonly seed: number
  /** Resolved when the run began, and followed by every resume. */
  readonly device: string
  readonly precision: DecidedPrecision
  readonly instructionSet: string
  /** Which of a matmul library's algorithms were used (`deviceSetting`); left out where there is no library. */
  readonly matmul?: string
  /** Sums since the last row of metrics, so that a resumed run writes the same rows. */
  readonly interval: Readonly<Record<string, number>>
  /** How far the logs went. */
  readonly metricsPosition: number
  readonly events: { readonly fileName: string; readonly position: number }
  /** Name, element offset and shape of each parameter in the flat tensors. */
  readonly layout: readonly CheckpointSegment[]
  /** CRC-32 of the rest of this and of the CRC-32s of the tensors; filled in by `save`. */
  readonly checksum?: number
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
  readonly detectorCounts: Int32Array
}

/** The flat tensors of a checkpoint, in the arena's layout; detector counts of the interval under way. */
export interface CheckpointTensors {
  readonly parameters: Float32Array
  readonly firstMoment: Float32Array
  readonly secondMoment: Float32Array
  readonly detectorCounts: Int32Array
}

const tensorsFile = 'tensors.safetensors'
const stateFile = 'state.json'
const folderName = (step: number): string => `step-${String(step).padStart(9, '0')}`
const folderPattern = /^step-(\d{9,})$/

export interface CheckpointFolder {
  /** Steps of the checkpoints there are, ascending. */
  steps(): number[]
  /** Writes one, then removes all but the newest `keep`. */
  save(state: CheckpointState, tensors: CheckpointSource): Promise<void>
  /** The newest; undefined when there is none. Throws ERR_FORMAT naming the file when it is damaged. */
  load(): { readonly state: CheckpointState; readonly tensors: CheckpointTensors } | undefined
  remove(): void
}

export function openCheckpoints(output: string, keep: number): CheckpointFolder {
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
        const complete: CheckpointState = { ...state, checksum: checksumOf(state, sums) }
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
      const state = readState(join(path, stateFile), path)
      using file = openTensors(join(path, tensorsFile), path)
      const tensors = {
        parameters: file.float32('parameters').slice(),
        firstMoment: file.float32('first_moment').slice(),
        secondMoment: file.float32('second_moment').slice(),
        detectorCounts: file.int32('detector_counts').slice(),
      }
      const sums: TensorSums = {
        parameters: crc32(bytesOf(tensors.parameters)),
        first_moment: crc32(bytesOf(tensors.firstMoment)),
        second_moment: crc32(bytesOf(tensors.secondMoment)),
        detector_counts: crc32(bytesOf(tensors.detectorCounts)),
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

function checksumOf({ checksum: _, ...state }: CheckpointState, sums: TensorSums): number {
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
  const counts = tensors.detectorCounts
  sums.detector_counts = crc32(bytesOf(counts))
  return [
    flat('parameters', tensors.parameters),
    flat('first_moment', tensors.firstMoment),
    flat('second_moment', tensors.secondMoment),
    { name: 'detector_counts', dtype: 'I32', shape: [counts.length], data: counts },
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

function readState(file: string, path: string): CheckpointState {
  let state: CheckpointState
  try {
    state = readJsonFile(file) as CheckpointState
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
