/** The golden data of shared/data: inputs without their padding, and distances by Euclidean norms. */
import { join } from 'node:path'
import { readSafetensors, type SafetensorsFile } from '../../dist/formats/safetensors.js'
import { sharedData } from '../helpers/shared.js'

export const golden = (name: string): string => join(sharedData as string, 'golden', name)
export const outputsOf = (folder: string): SafetensorsFile =>
  readSafetensors(join(folder, 'outputs.safetensors'))

export const norm = (values: ArrayLike<number>): number =>
  Math.sqrt(Array.from(values).reduce((sum, x) => sum + x * x, 0))

export function distance(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (found.length !== expected.length) return Number.POSITIVE_INFINITY
  return norm(Array.from(found, (value, i) => value - (expected[i] as number)))
}

export interface Inputs {
  readonly file: SafetensorsFile
  readonly rows: number
  readonly width: number
  /** Tokens of each row. */
  readonly lengths: readonly number[]
  /** The rows of a padded int32 [rows, width] tensor, without padding. */
  ragged(name: string): Int32Array[]
}

export function readInputs(folder: string): Inputs {
  const file = readSafetensors(join(folder, 'inputs.safetensors'))
  const [rows, width] = file.info('input_ids').shape as [number, number]
  const mask = file.int32('attention_mask')
  const lengths = Array.from({ length: rows }, (_, row) =>
    mask.subarray(row * width, (row + 1) * width).reduce((sum, value) => sum + value, 0),
  )
  const ragged = (name: string): Int32Array[] => {
    const flat = file.int32(name)
    return lengths.map((length, row) => flat.slice(row * width, row * width + length))
  }
  return { file, rows, width, lengths, ragged }
}

/** Values [rows, width, ...] at the positions that are not padding. */
export function withoutPadding(values: Float32Array, { rows, width, lengths }: Inputs): Float32Array {
  const each = values.length / (rows * width)
  const parts = lengths.flatMap((length, row) =>
    Array.from(values.subarray(row * width * each, (row * width + length) * each)),
  )
  return Float32Array.from(parts)
}
