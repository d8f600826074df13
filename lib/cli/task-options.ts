/** The options that commands about tasks share, and what they show of the tasks' files. */
import { type Command, Option } from 'commander'
import type { FileReport, TaskExamples } from '../tasks/index.js'
import { addDeviceOptions } from './common-options.js'
import { parseNumber, parsePositive, parseWhole } from './parse.js'

/** Adds what says how files are read, what a task is told, and where it computes. */
export function addTaskOptions(command: Command): Command {
  const described = command
    .option('--text-column <name>', 'column of the texts (default: by the header)')
    .option('--pair-column <name>', 'column of the second texts (default: by the header)')
    .option('--label-column <name>', 'column of the labels (default: by the header)')
    .option('--strict', 'stop at a malformed row; else it is left out, and reported')
    .option('--max-length <n>', 'tokens of a sequence at most', parsePositive)
    .option('--stride <n>', 'tokens that windows of a long text share', parseWhole)
    .addOption(
      new Option('--labels <kind>', 'classification: labels of a text').choices(['single', 'multiple']),
    )
    .option('--label-separator <text>', 'classification: what parts several labels in a column')
    .option('--unordered', 'pairs of texts may be swapped: learn both orders')
    .option('--out-of-scope <label>', 'classification: the label of texts that belong to no other')
    .option('--in-scope-recall <x>', 'classification: part of the texts in scope to keep', parseNumber)
    .option('--label-all-pieces', 'tagging: learn from all pieces of a word, not from the first alone')
    .addOption(new Option('--head <form>', 'question answering').choices(['huggingface', 'original']))
  return addDeviceOptions(described)
}

const mostShown = 3

/** What was left out of a file: how many, and the first few with their places. */
export function describeSkipped(file: string, skipped: TaskExamples['skipped']): string[] {
  if (skipped.length === 0) return []
  const lines = skipped
    .slice(0, mostShown)
    .map(({ place, problem }) => `  ${file}:${place.replace(/^line /, '')}: ${problem}`)
  const more = skipped.length > mostShown ? [`  and ${skipped.length - mostShown} more`] : []
  const rows = skipped.length === 1 ? '1 example was' : `${skipped.length} examples were`
  return [`${rows} left out (--strict stops there):`, ...lines, ...more]
}

export function describeFile(what: string, { file, examples }: FileReport): string {
  return `${what.padEnd(10)} ${file}, ${examples.toLocaleString('en-US')} examples`
}

/** Metrics as text: fractions with four digits; others, such as percent, with two. */
export function describeMetrics(metrics: Readonly<Record<string, number | null>>): string {
  const show = (value: number | null): string => {
    if (value === null || Number.isNaN(value)) return 'not a number'
    if (Number.isInteger(value) && Math.abs(value) > 1) return String(value)
    return value.toFixed(Math.abs(value) > 1 ? 2 : 4)
  }
  return Object.entries(metrics)
    .map(([name, value]) => `${name} ${show(value)}`)
    .join('  ')
}
