/** Token stores in memory, for tests of what is made of tokens: documents as lists of sentences as lists of ids. */
import type { Segments } from '../../dist/data/index.js'
import { createSegmentContent } from '../../dist/data/segments.js'
import type { Shard } from '../../dist/data/shard-file.js'
import type { TokenStore } from '../../dist/data/shards.js'

export const cls = 1
export const sep = 2
/** Ids of content begin here. */
export const firstId = 10

export type Documents = readonly (readonly (readonly number[])[])[]

function shardOf(documents: Documents, vocabularySize: number): Shard {
  const sentences = documents.flat()
  const boundaries = (lengths: readonly number[]): Uint32Array => {
    const starts = new Uint32Array(lengths.length + 1)
    lengths.forEach((length, at) => {
      starts[at + 1] = (starts[at] as number) + length
    })
    return starts
  }
  const tokens = new (vocabularySize <= 65536 ? Uint16Array : Int32Array)(sentences.flat().length)
  tokens.set(sentences.flat())
  return {
    tokens,
    documents: boundaries(documents.map((document) => document.length)),
    sentences: boundaries(sentences.map((sentence) => sentence.length)),
    counts: { tokens: tokens.length, documents: documents.length, sentences: sentences.length, checksum: 0 },
    close: () => {},
  }
}

/** A store of the documents, `perShard` in each shard. */
export function storeOf(documents: Documents, perShard = 3, vocabularySize = 100_000): TokenStore {
  const shards: Shard[] = []
  for (let at = 0; at < documents.length; at += perShard) {
    shards.push(shardOf(documents.slice(at, at + perShard), vocabularySize))
  }
  return {
    folder: '',
    reused: false,
    shards,
    close: () => {},
    manifest: {
      format: 'voltaic-shards',
      version: 1,
      key: '',
      files: [],
      tokenizer: '',
      shards: [],
      documents: documents.length,
      sentences: 0,
      tokens: 0,
      warnings: [],
      fingerprint: '',
    },
  }
}

/** Documents whose sentences have the given lengths, every token of its own: firstId, firstId + 1, ... */
export function numberedDocuments(lengths: readonly (readonly number[])[]): number[][][] {
  let next = firstId
  return lengths.map((sentences) => sentences.map((length) => Array.from({ length }, () => next++)))
}

/** The content of every segment, in order, and where its inner [SEP] stands. */
export function contents(segments: Segments): { ids: number[]; separator: number }[] {
  const content = createSegmentContent(segments.sequenceLength)
  return Array.from({ length: segments.count }, (_, index) => {
    segments.read(index, content)
    return { ids: [...content.ids.subarray(0, content.length)], separator: content.separator }
  })
}
