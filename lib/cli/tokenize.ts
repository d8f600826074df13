/** `voltaic tokenize`: text in, one JSON object a line out. */
import { once } from 'node:events'
import type { Command } from 'commander'
import { AutoTokenizer, loadVocabulary, type Tokenizer } from '../text/index.js'
import { inputLines } from './input-lines.js'

interface Options {
  readonly model?: string
  readonly vocab?: string
  readonly cased?: boolean
  readonly offsets?: boolean
  readonly ids?: boolean
}

export function addTokenizeCommand(program: Command): void {
  program
    .command('tokenize')
    .description('tokenize a file, or standard input, line by line: JSON lines with tokens and ids')
    .argument('[file]', 'a text file; left out: standard input')
    .option('--model <dir>', 'a model folder')
    .option('--vocab <file>', 'a vocab.txt or tokenizer.json')
    .option('--cased', 'with --vocab: keep case and accents')
    .option('--offsets', 'add [start, end) of each token, in UTF-16 units')
    .option('--ids', 'plain ids separated by spaces instead of JSON')
    .action(tokenize)
}

async function openTokenizer(options: Options, command: Command): Promise<Tokenizer> {
  if ((options.model === undefined) === (options.vocab === undefined))
    command.error('error: give --model DIR or --vocab FILE (one of the two)')
  return options.model === undefined
    ? loadVocabulary(options.vocab as string, { cased: options.cased ?? false })
    : AutoTokenizer.fromPretrained(options.model)
}

async function tokenize(file: string | undefined, options: Options, command: Command): Promise<void> {
  const tokenizer = await openTokenizer(options, command)
  for await (const line of inputLines(file)) {
    const encoded = tokenizer(line, { returnOffsetsMapping: options.offsets ?? false })
    const ids = Array.from(encoded.inputIds[0] ?? [])
    const flat = encoded.offsetsMapping?.[0]
    const offsets = flat && ids.map((_, i) => [flat[2 * i], flat[2 * i + 1]])
    const row = { tokens: tokenizer.convertIdsToTokens(ids), ids, ...(offsets && { offsets }) }
    const out = options.ids ? ids.join(' ') : JSON.stringify(row)
    // A slow reader is waited for, so that a long file does not pile up in memory.
    if (!process.stdout.write(`${out}\n`)) await once(process.stdout, 'drain')
  }
}
