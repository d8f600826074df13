/** Minimal pairs from people's own files: JSON lines, TSV or CSV with sentence_a, sentence_b and, where they are wanted, group and cluster. */
import { VoltaicError } from '../runtime/errors.js'
import { RowChecks, type SkippedRow } from './row-checks.js'
import { readTaskFile, type TaskFileOptions, type TaskTable } from './task-files.js'

/** Two sentences that differ in what is to be compared, and in nothing else. */
export interface MinimalPair {
  readonly sentenceA: string
  readonly sentenceB: string
  /** Pairs of one group are reported together. Default 'all'. */
  readonly group?: string | undefined
  /** Pairs that are not independent of each other, such as those of one template. Default: each pair is. */
  readonly cluster?: string | undefined
}

export interface MinimalPairs {
  readonly pairs: readonly MinimalPair[]
  readonly skipped: readonly SkippedRow[]
}

/** Names of columns, ours first; the others are those of CrowS-Pairs (Nangia et al., 2020). */
const columns = {
  a: ['sentence_a', 'sent_more'],
  b: ['sentence_b', 'sent_less'],
  group: ['group', 'bias_type'],
  cluster: ['cluster'],
} as const

function placeOf(table: TaskTable, names: readonly string[]): number {
  return names.map((name) => table.columns.indexOf(name)).find((place) => place >= 0) ?? -1
}

/**
 * Reads pairs. Rows without two sentences, or with twice the same, are left out and listed.
 * @throws ERR_CONFIG when a column is missing; ERR_FORMAT and ERR_IO as `readTaskFile`
 */
export async function readMinimalPairs(file: string, options: TaskFileOptions = {}): Promise<MinimalPairs> {
  const table = await readTaskFile(file, options)
  const [a, b, group, cluster] = [columns.a, columns.b, columns.group, columns.cluster].map((names) =>
    placeOf(table, names),
  ) as [number, number, number, number]
  if (a < 0 || b < 0) {
    throw new VoltaicError(
      'ERR_CONFIG',
      `${file}: no column ${a < 0 ? columns.a[0] : columns.b[0]}; the file has: ${table.columns.slice(0, 20).join(', ')}. ` +
        'Expected sentence_a and sentence_b, and group where pairs are of several',
    )
  }
  const checks = new RowChecks(file, options.strict, table.skipped)
  const pairs: MinimalPair[] = []
  for (const { line, fields } of table.rows) {
    const text = (place: number): string | undefined => {
      const field = place < 0 ? undefined : fields[place]
      return typeof field === 'string' && field.trim() !== '' ? field.trim() : undefined
    }
    const [sentenceA, sentenceB] = [text(a), text(b)]
    if (sentenceA === undefined || sentenceB === undefined) {
      checks.refuse(line, 'expected two sentences')
    } else if (sentenceA === sentenceB) {
      checks.refuse(line, 'both sentences are the same')
    } else {
      pairs.push({ sentenceA, sentenceB, group: text(group), cluster: text(cluster) })
    }
  }
  return { pairs, skipped: checks.finish(pairs.length) }
}
