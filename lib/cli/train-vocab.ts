/** `voltaic train-vocab`: a WordPiece vocabulary from text, deterministic. */
import type { Command } from 'commander'
import { openCorpus } from '../data/index.js'
import { trainTokenizer } from '../training/vocabulary.js'
import { formatBytes, formatCount } from './format.js'
import { parsePositive } from './parse.js'

interface Options {
  readonly vocabSize: number
  readonly output: string
  readonly cased?: boolean
  readonly minFrequency: number
}

export function addTrainVocabCommand(program: Command): void {
  program
    .command('train-vocab')
    .description('train a WordPiece vocabulary from text')
    .argument('<files...>', 'text files and globs, plain or gzip, or JSON lines')
    .requiredOption('--vocab-size <n>', 'how many tokens', parsePositive)
    .requiredOption('--output <dir>', 'folder for vocab.txt, tokenizer.json and tokenizer_config.json')
    .option('--cased', 'keep case and accents')
    .option('--min-frequency <n>', 'pairs seen less often are not merged', parsePositive, 2)
    .action(async (files: string[], options: Options, command: Command) => {
      if (options.vocabSize < 100)
        command.error(`error: --vocab-size is ${options.vocabSize}, expected 100 or more`)
      const corpus = await openCorpus(files)
      const tokenizer = await trainTokenizer(corpus, {
        vocabSize: options.vocabSize,
        cased: options.cased ?? false,
        minFrequency: options.minFrequency,
      })
      await tokenizer.save(options.output)
      process.stdout.write(
        `${formatCount(tokenizer.vocabularySize)} tokens from ${formatBytes(corpus.bytes)} of text in ${options.output}\n`,
      )
    })
}
