/** Features as what a model's `forward` takes. */
import type { Feature } from './task.js'

export function featureRows(batch: readonly Feature[]): {
  inputIds: Int32Array[]
  tokenTypeIds: Int32Array[]
} {
  return {
    inputIds: batch.map(({ inputIds }) => inputIds),
    tokenTypeIds: batch.map(({ tokenTypeIds }) => tokenTypeIds),
  }
}
