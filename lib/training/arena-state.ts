/** What a checkpoint holds of an arena and its optimizer, out and in; and where numbers in an arena stop being finite. */
import type { ParameterArena } from '../nn/index.js'
import type { AdamW } from '../optim/index.js'
import { downloadSync, release, view } from '../runtime/index.js'
import type { Tensor } from '../tensor/index.js'
import { tensorValue } from '../tensor/tensor.js'
import type { CheckpointSegment, CheckpointSource, CheckpointTensors, FlatSource } from './checkpoint.js'

/** 1 MB: long enough to write well, copied in a tenth of a millisecond. */
const stagingElements = 2 ** 18

/** Where each parameter stands in the flat tensors. */
export function layoutOf(arena: ParameterArena): CheckpointSegment[] {
  return arena.segments.map(({ names, offset, parameter }) => ({
    name: names[0] as string,
    offset,
    shape: parameter.shape,
  }))
}

/** A float32 tensor piece by piece. With the queue empty, reading a piece takes as long as copying it. */
function inPieces(tensor: Tensor, staging: Float32Array): FlatSource {
  const { handle } = tensorValue(tensor)
  const [length] = tensor.shape as [number]
  return {
    length,
    *pieces() {
      for (let begin = 0; begin < length; begin += staging.length) {
        const piece = staging.subarray(0, Math.min(staging.length, length - begin))
        const part = view(handle, 'float32', [piece.length], begin)
        try {
          downloadSync(part, piece)
        } finally {
          release(part)
        }
        yield piece
      }
    },
  }
}

/** What a checkpoint holds; all queued work must have been waited for. */
export function exportArena(
  arena: ParameterArena,
  optimizer: AdamW,
  others: CheckpointSource['others'] = {},
): CheckpointSource {
  const { firstMoment, secondMoment } = optimizer.moments
  const staging = new Float32Array(stagingElements)
  return {
    parameters: inPieces(arena.values, staging),
    firstMoment: inPieces(firstMoment, staging),
    secondMoment: inPieces(secondMoment, staging),
    others,
  }
}

export function bytesOf(data: Float32Array): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
}

/** Takes a checkpoint's weights and moments back. */
export function importArena(
  arena: ParameterArena,
  optimizer: AdamW,
  optimizerSteps: number,
  tensors: CheckpointTensors,
): void {
  arena.import(bytesOf(tensors.parameters))
  optimizer.importState({
    step: optimizerSteps,
    firstMoment: bytesOf(tensors.firstMoment),
    secondMoment: bytesOf(tensors.secondMoment),
  })
}

/** The first parameter, in the arena's order, with a value or else a gradient that is not finite; undefined when there is none. */
export async function firstNotFinite({
  values,
  gradients,
  segments,
}: ParameterArena): Promise<string | undefined> {
  for (const [what, tensor] of [
    ['value', values],
    ['gradient', gradients],
  ] as const) {
    const at = ((await tensor.data()) as Float32Array).findIndex((number) => !Number.isFinite(number))
    if (at < 0) continue
    const segment = segments.findLast(({ offset }) => offset <= at)
    return `the ${what} of ${segment?.names[0]}`
  }
  return undefined
}
