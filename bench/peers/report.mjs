// The results of bench:peers as aligned Markdown tables, and docs/performance.md's generated blocks.
import { readFileSync, writeFileSync } from 'node:fs'

const grouped = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 })
const short = (value) =>
  value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : grouped.format(value)
const milliseconds = (seconds) => `${short(seconds * 1000)} ms`

const metrics = {
  tokensPerSecond: { unit: 'tokens/s', work: ({ tokens }) => tokens },
  gflops: { unit: 'GFLOP/s', work: ({ flops }) => flops / 1e9 },
  megabytesPerSecond: { unit: 'MB/s', work: ({ bytes }) => bytes / 1e6 },
}

/** A star: the machine was not quiet. */
const star = ({ quiet }) => (quiet === false ? ' *' : '')

function cell({ metric, work }, result) {
  if (!result) return ''
  if (result.error) return `failed: ${result.error.slice(0, 60)}`
  const { median, least, most } = result.seconds
  if (metric === 'latency') {
    const p99 = result.p99 ? `, p99 ${short(result.p99 * 1000)}` : ''
    return `${milliseconds(median)}${p99}${star(result)}`
  }
  const rate = (seconds) => short(metrics[metric].work(work) / seconds)
  return `${rate(median)} (${rate(most)}-${rate(least)})${star(result)}`
}

const times = (ratio) =>
  ratio ? `${ratio.median.toFixed(2)} (${ratio.least.toFixed(2)}-${ratio.most.toFixed(2)})` : ''

const fastest = (results) =>
  results.filter(({ seconds }) => seconds).sort((a, b) => a.seconds.median - b.seconds.median)[0]

/** Ours against the fastest of the peers, where both are of these precisions; undefined where one is missing. */
function decisive({ results, ratios }, fits) {
  const side = (ours) => fastest(results.filter((one) => one.ours === ours && fits(one.precision)))
  const [ours, peer] = [side(true), side(false)]
  return ratios.find((ratio) => ratio.ours === ours?.name && ratio.peer === peer?.name)
}
const inFloat32 = (contest) => decisive(contest, (precision) => precision === 'fp32')
const atBest = (contest) => decisive(contest, () => true)

/** One contest as lines, for a run that is under way. */
export function contestLines(contest) {
  const lines = contest.results.map((result) => {
    const memory = result.peakMegabytes ? `${grouped.format(result.peakMegabytes)} MB` : ''
    const aside = result.setAside ? `${result.setAside} noisy set aside` : ''
    const unit = metrics[contest.metric]?.unit ?? ''
    const figures = [`${cell(contest, result)} ${unit}`.trim(), result.n && `n=${result.n}`, memory, aside]
    return `  ${result.name.padEnd(18)} ${figures.filter(Boolean).join(', ')}`
  })
  const ratios = [
    ['fp32', inFloat32(contest)],
    ['best', atBest(contest)],
  ]
  for (const [what, ratio] of ratios)
    if (ratio) lines.push(`  ${what}: ${ratio.ours} is ${times(ratio)} times ${ratio.peer}`)
  return [contest.name, ...lines].join('\n')
}

function table(head, lines) {
  const cells = [head, ...lines].map((line) => line.map((text) => String(text).replaceAll('|', '/')))
  const widths = head.map((_, i) => Math.max(3, ...cells.map((line) => line[i].length)))
  const text = (line) => `| ${line.map((part, i) => part.padEnd(widths[i])).join(' | ')} |`
  return [text(cells[0]), text(widths.map((width) => '-'.repeat(width))), ...cells.slice(1).map(text)].join(
    '\n',
  )
}

function groupTable(name, contests) {
  const columns = [...new Set(contests.flatMap(({ results }) => results.map((result) => result.name)))]
  const hasPrecision = contests.some(({ results }) => results.some(({ precision }) => precision))
  const lines = contests.map((contest) => {
    const unit = metrics[contest.metric]?.unit
    return [
      unit ? `${contest.name}, ${unit}` : contest.name,
      ...columns.map((column) =>
        cell(
          contest,
          contest.results.find((result) => result.name === column),
        ),
      ),
      ...(hasPrecision ? [times(inFloat32(contest))] : []),
      times(atBest(contest)),
    ]
  })
  const head = ['', ...columns, ...(hasPrecision ? ['fp32 / best fp32 peer'] : []), 'best / best peer']
  return `**${name[0].toUpperCase()}${name.slice(1)}**\n\n${table(head, lines)}`
}

/** Memory at most of whole steps, where they were timed. */
function memoryTable(contests) {
  const steps = contests.filter(({ group }) => group === 'training')
  if (steps.length === 0) return []
  const columns = [...new Set(steps.flatMap(({ results }) => results.map((result) => result.name)))]
  const lines = steps.map(({ name, results }) => [
    name,
    ...columns.map((column) => {
      const { peakMegabytes } = results.find((result) => result.name === column) ?? {}
      return peakMegabytes ? grouped.format(peakMegabytes) : ''
    }),
  ])
  return [`**Peak memory of the process, MB**\n\n${table(['', ...columns], lines)}`]
}

export function resultTables({ date, machine, threads, runs = 1, quick, sides, missing, skipped, contests }) {
  const { processor, processors, memoryBytes } = machine
  const gigabytes = Math.round(memoryBytes / 2 ** 30)
  const versions = Object.values(sides).map(({ name, version }) => `${name} ${version}`)
  const level = sides.voltaic?.instructionSet
  const lines = [
    `${date}, ${processor}, ${processors} processors, ${gigabytes} GB; ${threads} threads; ${versions.join(', ')}${level ? ` (Voltaic on ${level})` : ''}.`,
  ]
  if (quick) lines.push('NOT A MEASUREMENT: a quick run, of a tiny model.')
  if (runs > 1) lines.push(`From ${runs} runs, each contest whole in one.`)
  for (const [name, reason] of Object.entries({ ...missing, ...skipped }))
    lines.push(`Left out: ${name}, ${reason}.`)
  if (contests.some(({ results }) => results.some(({ quiet }) => quiet === false)))
    lines.push('`*`: fewer than three quiet samples, so all count.')
  const names = [...new Set(contests.map(({ group }) => group))]
  const tables = names.map((name) =>
    groupTable(
      name,
      contests.filter(({ group }) => group === name),
    ),
  )
  return [lines.join(' '), ...tables, ...memoryTable(contests)].join('\n\n')
}

/** A --json file of npm run bench: each kernel's rate and its percent of the ceilings of that run. */
export function kernelTable({ ceilings, rows }) {
  const lines = rows
    .filter(({ unsupported }) => !unsupported)
    .map((row) => [
      row.name,
      `${short(row.microseconds)} (${short(row.least)}-${short(row.most)})`,
      row.gflops ? short(row.gflops) : '',
      row.gigabytes ? short(row.gigabytes) : '',
      row.percent ? `${row.percent.toFixed(0)}% of the ${row.ceiling}` : '',
    ])
  const about =
    `Ceilings of this run (${ceilings.what}): ${(ceilings.copyBytesPerSecond / 1e9).toFixed(1)} GB/s, ` +
    `${(ceilings.productFlops / 1e9).toFixed(0)} GFLOP/s.`
  return `${about}\n\n${table(['kernel', 'µs', 'GFLOP/s', 'GB/s', 'of the ceiling'], lines)}`
}

/** Replaces what stands between `<!-- NAME -->` and `<!-- /NAME -->`. */
export function writeBlocks(file, blocks) {
  let text = readFileSync(file, 'utf8')
  for (const [name, content] of Object.entries(blocks)) {
    const [begin, end] = [`<!-- ${name} -->`, `<!-- /${name} -->`]
    const [from, to] = [text.indexOf(begin), text.indexOf(end)]
    if (from < 0 || to < from) throw new Error(`${file}: no ${begin} … ${end}`)
    text = `${text.slice(0, from + begin.length)}\n\n${content}\n\n${text.slice(to)}`
  }
  writeFileSync(file, text)
}
