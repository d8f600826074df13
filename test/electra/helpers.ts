/** Small models and texts for the tests of this folder. */

import { defineElectraConfig, type ElectraConfig } from '../../dist/formats/electra-config.js'
import { type DeviceName, resolveDevice } from '../../dist/runtime/index.js'

export const device = resolveDevice((process.env.VOLTAIC_TEST_DEVICE ?? 'cpu') as DeviceName)

/** 2 layers of 64, embeddings of 24, 200 tokens, 48 positions; no dropout unless asked for. */
export function smallConfig(options: Partial<ElectraConfig> = {}): ElectraConfig {
  return defineElectraConfig({
    vocabSize: 200,
    embeddingSize: 24,
    hiddenSize: 64,
    numHiddenLayers: 2,
    numAttentionHeads: 2,
    intermediateSize: 96,
    maxPositionEmbeddings: 48,
    hiddenDropoutProb: 0,
    attentionProbsDropoutProb: 0,
    ...options,
  })
}

export const special = { clsTokenId: 2, sepTokenId: 3, maskTokenId: 4 } as const

/** [CLS] … [SEP] rows of the given lengths, of ids from 5 on that follow from `salt`. */
export function rowsOf(lengths: readonly number[], salt = 1): number[][] {
  return lengths.map((length, row) =>
    Array.from({ length }, (_, i) =>
      i === 0
        ? special.clsTokenId
        : i === length - 1
          ? special.sepTokenId
          : 5 + ((row * 31 + i * 17 + salt * 13 + i * i) % 190),
    ),
  )
}

/** Types 0, then 1 in the second half. */
export function typesOf(rows: readonly number[][]): number[][] {
  return rows.map((row) => row.map((_, i) => (i * 2 >= row.length ? 1 : 0)))
}
