/** `voltaic evaluate --task minimal-pairs`: which sentence of each pair a model prefers, as a table or as JSON. */
import { writeFileAtomically } from '../runtime/atomic-file.js'
import type { Estimate } from '../tasks/bootstrap.js'
import { type MinimalPairOptions, type MinimalPairReport, minimalPairs } from '../tasks/minimal-pairs.js'
import { formatCount } from './format.js'

export interface MinimalPairCommand extends MinimalPairOptions {
  /** A file for the scored pairs, as JSON lines. */
  readonly output?: string | undefined
  /** One JSON object instead of the table. */
  readonly json?: boolean | undefined
}

const shownGroups = 40

function interval({ value, low, high }: Estimate, show: (value: number) => string): string {
  return Number.isNaN(low) ? show(value) : `${show(value)} [${show(low)}, ${show(high)}]`
}

const percent = (value: number): string => `${(100 * value).toFixed(1)} %`
const signed = (value: number): string => `${value < 0 ? '' : '+'}${value.toFixed(3)}`

/** The table that a person reads. */
export function describeMinimalPairs(report: MinimalPairReport): string {
  const { scorer, confidence, overall, groups, skipped, indistinct } = report
  const level = `${+(100 * confidence).toFixed(2)} %`
  const header = ['group', 'pairs', `prefers a [${level}]`, `mean a - b [${level}]`]
  const rows = [...(groups.length > 1 ? groups.slice(0, shownGroups) : []), overall].map(
    ({ group, pairs, preferA, gap }) => [
      group,
      formatCount(pairs),
      interval(preferA, percent),
      interval(gap, signed),
    ],
  )
  const widths = header.map((name, column) =>
    Math.max(name.length, ...rows.map((row) => (row[column] as string).length)),
  )
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => cell.padEnd(widths[column] as number))
      .join('  ')
      .trimEnd()
  const by =
    scorer === 'generator'
      ? 'pseudo-log-likelihood of the words that a pair shares (generator), in nats'
      : 'mean log-probability that a token is original (discriminator), in nats'
  const more = groups.length > shownGroups ? [`and ${groups.length - shownGroups} groups more (--json)`] : []
  const [first] = skipped
  const left =
    first === undefined
      ? []
      : [
          `${formatCount(skipped.length)} ${skipped.length === 1 ? 'row is' : 'rows are'} left out, the first on line ${first.line}: ${first.problem}`,
        ]
  const same =
    indistinct > 0
      ? [
          `${formatCount(indistinct)} ${indistinct === 1 ? 'pair is' : 'pairs are'} the same to the tokenizer and prefer neither`,
        ]
      : []
  return [by, line(header), ...rows.map(line), ...more, ...same, ...left].join('\n')
}

/** Runs it and prints; the pairs go to `output`. */
export async function printMinimalPairs(command: MinimalPairCommand): Promise<void> {
  const { output, json = false, ...options } = command
  const report = await minimalPairs(options)
  if (output !== undefined) {
    const lines = report.pairs.map(({ sentenceA, sentenceB, group, cluster, a, b, gap }) =>
      JSON.stringify({
        sentence_a: sentenceA,
        sentence_b: sentenceB,
        group,
        cluster,
        score_a: a,
        score_b: b,
        gap,
      }),
    )
    await writeFileAtomically(output, `${lines.join('\n')}\n`)
  }
  const { pairs: _, ...summary } = report
  process.stdout.write(`${json ? JSON.stringify(summary) : describeMinimalPairs(report)}\n`)
}
