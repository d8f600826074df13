/** `voltaic train-vocab`: a WordPiece vocabulary from text, deterministic. */
import type { Command } from 'commander'
import { defaultLanguageExponent, openCorpus } from '../data/index.js'
import { openLanguages, trainTokenizer } from '../training/vocabulary.js'
import { formatBytes, formatCount } from './format.js'
import { parseLanguage, parseNumber, parsePositive } from './parse.js'

interface Options {
  readonly vocabSize: number
  readonly output: string
  readonly cased?: boolean
  readonly minFrequency: number
  readonly language?: Readonly<Record<string, readonly string[]>>
  readonly languageExponent: number
}

export function addTrainVocabCommand(program: Command): void {
  program
    .command('train-vocab')
    .description('train a WordPiece vocabulary from text')
    .argument('[files...]', 'text files and globs, plain or gzip, or JSON lines')
    .requiredOption('--vocab-size <n>', 'how many tokens', parsePositive)
    .requiredOption('--output <dir>', 'folder for vocab.txt, tokenizer.json and tokenizer_config.json')
    .option('--cased', 'keep case and accents')
    .option('--min-frequency <n>', 'pairs seen less often are not merged', parsePositive, 2)
    .option(
      '--language <name=files...>',
      'instead of files: those of each language, counted in balanced shares; may be repeated',
      parseLanguage,
    )
    .option(
      '--language-exponent <x>',
      'with --language: 0, all alike, to 1, as large as they are',
      parseNumber,
      defaultLanguageExponent,
    )
    .action(async (files: string[], options: Options, command: Command) => {
      if (options.vocabSize < 100)
        command.error(`error: --vocab-size is ${options.vocabSize}, expected 100 or more`)
      const { language, languageExponent } = options
      if (files.length === 0 && language === undefined)
        command.error("error: missing required argument 'files'")
      if (files.length > 0 && language !== undefined)
        command.error('error: --language stands in place of files')
      const text =
        language === undefined ? await openCorpus(files) : await openLanguages(language, languageExponent)
      const bytes =
        'languages' in text ? text.languages.reduce((sum, { corpus }) => sum + corpus.bytes, 0) : text.bytes
      const tokenizer = await trainTokenizer(text, {
        vocabSize: options.vocabSize,
        cased: options.cased ?? false,
        minFrequency: options.minFrequency,
      })
      await tokenizer.save(options.output)
      process.stdout.write(
        `${formatCount(tokenizer.vocabularySize)} tokens from ${formatBytes(bytes)} of text in ${options.output}\n`,
      )
    })
}
