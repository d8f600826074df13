/** `voltaic inspect`: what a corpus is like, before training. */
import type { Command } from 'commander'
import { inspectCorpus } from '../data/index.js'
import { AutoTokenizer, loadVocabulary, type Tokenizer } from '../text/index.js'
import { formatBytes, formatCount } from './format.js'
import { inspectionReport } from './inspect-report.js'
import { parsePositive, parseWhole } from './parse.js'
import { createProgress, timeLeft } from './progress.js'

interface Options {
  readonly model?: string
  readonly vocab?: string
  readonly cased?: boolean
  readonly textField: string
  readonly examples: number
  readonly seed: number
  readonly json?: boolean
}

export function addInspectCommand(program: Command): void {
  program
    .command('inspect')
    .description('what a corpus is like: lengths, duplicates, languages, odd characters, coverage')
    .argument('<files...>', 'text files and globs, plain or gzip, or JSON lines')
    .option('--vocab <file>', 'a vocab.txt or tokenizer.json: report how it fits the text')
    .option('--model <dir>', 'the same with the tokenizer of a model')
    .option('--cased', 'with --vocab: keep case and accents')
    .option('--text-field <name>', 'JSON lines: the field that holds the text', 'text')
    .option('--examples <n>', 'examples of each finding', parsePositive, 3)
    .option('--seed <n>', 'seed of the hashes that find duplicates', parseWhole, 1)
    .option('--json', 'one JSON object')
    .action(inspect)
}

async function openTokenizer(options: Options, command: Command): Promise<Tokenizer | undefined> {
  if (options.model !== undefined && options.vocab !== undefined)
    command.error('error: give --model DIR or --vocab FILE, not both')
  if (options.cased && options.vocab === undefined)
    command.error('error: --cased goes with --vocab FILE; a model says itself what it keeps')
  if (options.model !== undefined) return AutoTokenizer.fromPretrained(options.model)
  return options.vocab === undefined
    ? undefined
    : loadVocabulary(options.vocab, { cased: options.cased ?? false })
}

async function inspect(files: string[], options: Options, command: Command): Promise<void> {
  const { textField, examples, seed } = options
  const tokenizer = await openTokenizer(options, command)
  const progress = createProgress()
  const started = performance.now()
  try {
    const inspection = await inspectCorpus(files, {
      tokenizer,
      textField,
      examples,
      seed,
      onProgress({ documents, bytesRead, bytes }) {
        const fraction = bytes === 0 ? 1 : bytesRead / bytes
        const left = timeLeft(fraction, (performance.now() - started) / 1e3)
        progress.update(
          `${formatCount(documents)} documents, ${formatBytes(bytesRead)} of ${formatBytes(bytes)}, ${left} left`,
          fraction,
        )
      },
    })
    progress.done()
    process.stdout.write(
      options.json ? `${JSON.stringify(inspection, null, 2)}\n` : inspectionReport(inspection),
    )
  } finally {
    progress.done()
  }
}
