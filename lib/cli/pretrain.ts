/** `voltaic pretrain`: options to `pretrain()`, its events and steps to lines. */
import { type Command, Option } from 'commander'
import type { CorpusWarning } from '../data/index.js'
import { initializations, sizeNames } from '../electra/index.js'
import {
  type PretrainEvent,
  type PretrainOptions,
  type PretrainResult,
  type PretrainStep,
  pretrain,
} from '../training/index.js'
import { pretrainOptionNames } from '../training/options.js'
import { addDeviceOptions, addRecipeOptions } from './common-options.js'
import { readConfigFile } from './config-file.js'
import { formatBytes, formatCount, formatDuration } from './format.js'
import { interruptible } from './interrupt.js'
import { parseFraction, parseLanguage, parseNumber, parsePositive, parseWhole } from './parse.js'
import { showProbes } from './probes.js'
import { createProgress, type Progress, timeLeft } from './progress.js'

type Options = Partial<Omit<PretrainOptions, 'from' | 'languages'>> & {
  readonly language?: PretrainOptions['languages']
  readonly from?: string
  readonly fromGenerator?: string
  readonly config?: string
  readonly json?: boolean
}

export function addPretrainCommand(program: Command): void {
  const command = program
    .command('pretrain')
    .description('pre-train a generator and a discriminator on text; run it again to go on')
    .argument(
      '[files...]',
      'text files and globs, plain or gzip, or JSON lines; none: the built-in sample text',
    )
    .option('--output <dir>', 'folder of the run (required with files; else voltaic-model)')
    .option(
      '--language <name=files...>',
      'instead of files: those of each language, drawn in balanced shares; may be repeated',
      parseLanguage,
    )
    .option(
      '--language-exponent <x>',
      'with --language: 0, all alike, to 1, as large as they are',
      parseNumber,
    )
    .option(
      '--from <model>',
      "go on from trained models: a run's folder, a discriminator, or a name on the hub",
    )
    .option('--from-generator <model>', 'the generator that belongs to --from, where it stands elsewhere')
    .option('--positions <n>', 'with --from: extend the position table, for longer inputs', parsePositive)
    .option(
      '--trained-positions <n>',
      'with --positions: rows that training has reached (default: all)',
      parsePositive,
    )
    .addOption(new Option('--size <name>', 'model size').choices([...sizeNames]))
    .option('--config <file>', 'JSON file with options under the same names in camelCase')
    .option('--vocab <file>', 'vocab.txt, tokenizer.json, or a folder with one; else a vocabulary is trained')
    .option('--vocab-size <n>', 'tokens of a trained vocabulary', parsePositive)
    .option('--cased', 'keep case and accents')
    .option('--steps <n>', 'training steps', parsePositive)
    .option('--batch-size <n>', 'sequences of full length in a step', parsePositive)
    .option('--sequence-length <n>', 'tokens of a sequence at most', parsePositive)
    .option('--learning-rate <x>', 'peak learning rate', parseNumber)
    .option('--warmup-steps <n>', 'steps over which the rate rises', parseWhole)
    .addOption(
      new Option('--training <kind>', 'both models together, or one after the other').choices([
        'joint',
        'two-stage',
      ]),
    )
    .addOption(
      new Option(
        '--initialization <style>',
        'first values; sinusoidal: a position table of waves, for short runs',
      ).choices([...initializations]),
    )
    .option(
      '--discriminator-learning-rate <x>',
      "with --training two-stage: the second stage's peak rate",
      parseNumber,
    )
    .option(
      '--generator-size <x>',
      "the generator's width, as a fraction of the discriminator's",
      parseFraction,
    )
    .option('--mask-probability <x>', 'share of tokens that are masked', parseNumber)
    .option('--discriminator-weight <x>', "weight of the discriminator's loss", parseNumber)
    .addOption(new Option('--segments <kind>', 'how documents are cut').choices(['packed', 'pairs']))
    .option('--accumulate <n>', 'micro-batches a step', parsePositive)
    .option('--validation <files...>', 'validation text; else part of the corpus')
    .option('--validation-fraction <x>', 'part of the documents kept for validation', parseFraction)
    .option('--validate-every <n>', 'steps between validations', parsePositive)
    .option('--validation-batches <n>', 'batches of a validation at most', parsePositive)
    .option('--log-every <n>', 'steps between rows of metrics', parsePositive)
    .option('--save-every <n>', 'steps between checkpoints', parsePositive)
    .option('--keep <n>', 'checkpoints kept', parsePositive)
    .option('--fresh', 'start over in a folder that holds a run')
    .option('--seed <n>', 'seed of everything random', parseWhole)
  addDeviceOptions(addRecipeOptions(command))
    .option('--tune', "CUDA: time the matmul library's algorithms and keep the fastest")
    .option('--json', 'JSON lines on standard output')
    .action(run)
}

/** Both flags as the one option that they are. */
function fromFlags(
  { from, fromGenerator }: Options,
  given: PretrainOptions['from'],
  command: Command,
): PretrainOptions['from'] {
  if (fromGenerator === undefined) return from ?? given
  const discriminator = from ?? (typeof given === 'object' ? given.discriminator : given)
  if (discriminator === undefined) command.error('error: --from-generator goes with --from')
  return { discriminator, generator: fromGenerator }
}

async function run(files: string[], given: Options, command: Command): Promise<void> {
  const { config, json = false, from: _, fromGenerator: __, language, ...flags } = given
  const fromFile = config === undefined ? {} : readConfigFile<PretrainOptions>(config, pretrainOptionNames)
  const corpus = files.length > 0 ? files : (fromFile.corpus ?? [])
  const languages = language ?? fromFile.languages
  const isSample = corpus.length === 0 && languages === undefined
  const output = flags.output ?? fromFile.output ?? (isSample ? 'voltaic-model' : undefined)
  if (output === undefined) command.error('error: --output DIR is required with files')
  const from = fromFlags(given, fromFile.from, command)
  const options: PretrainOptions = { ...fromFile, ...flags, from, languages, corpus, output }

  const progress = createProgress()
  const display = json ? jsonDisplay() : textDisplay(progress)
  const announcement = 'stopping after this step, and saving (again: stop at once, losing what is not saved)'
  await interruptible(announcement, async (signal) => {
    try {
      const steps = pretrain({ ...options, signal, onEvent: display.event })
      let next = await steps.next()
      for (; next.done !== true; next = await steps.next()) display.step(next.value)
      progress.done()
      display.result(next.value)
      if (isSample && !json) await showProbes(next.value.discriminator)
    } finally {
      progress.done()
    }
  })
}

interface Display {
  event(event: PretrainEvent): void
  step(step: PretrainStep): void
  result(result: PretrainResult): void
}

function jsonDisplay(): Display {
  const write = (value: unknown): void => {
    process.stdout.write(`${JSON.stringify(value)}\n`)
  }
  return {
    event: (event) => {
      if (event.kind === 'row') write(event.row)
      else if (event.kind !== 'tokenizing') write(event)
    },
    step: () => undefined,
    result: (result) => write({ kind: 'result', ...result }),
  }
}

const show = (value: unknown, digits: number): string =>
  typeof value === 'number' ? value.toFixed(digits) : '-'

function textDisplay(progress: Progress): Display {
  const begin = performance.now()
  let firstStep: number | undefined
  let stepsBegin = 0
  const event = (event: PretrainEvent): void => {
    switch (event.kind) {
      case 'vocabulary':
        progress.log(`training a vocabulary of ${event.size.toLocaleString('en-US')} tokens`)
        break
      case 'tokenizing':
        progress.update(
          `tokenizing: ${formatBytes(event.bytes)} of ${formatBytes(event.totalBytes)}, ${formatCount(event.documents)} documents`,
          event.bytes / Math.max(1, event.totalBytes),
        )
        break
      case 'transfer': {
        const { special, shared, averaged, fresh } = event
        progress.log(
          `vocabulary ${formatCount(special + shared)} tokens keep their embeddings, ${formatCount(averaged)} start as the mean of ` +
            `old pieces, ${formatCount(fresh)} anew`,
        )
        break
      }
      case 'data': {
        const { train, languages, validation, warnings, reused } = event.statistics
        progress.log(
          `data       ${formatCount(train.documents)} documents, ${formatCount(train.tokens)} tokens; validation ` +
            `${validation ? `${formatCount(validation.documents)} documents` : 'none'}${reused ? ' (tokenized before)' : ''}`,
        )
        for (const { name, documents, tokens, share } of languages)
          progress.log(
            `language   ${name}: ${formatCount(documents)} documents, ${formatCount(tokens)} tokens; ` +
              `${(100 * share).toFixed(1)} % of training`,
          )
        for (const warning of warnings) progress.log(`warning    ${describeWarning(warning)}`)
        break
      }
      case 'plan': {
        const { plan } = event
        progress.log(
          `model      ${formatCount(plan.parameters)} parameters (discriminator ${formatCount(plan.discriminatorParameters)}, ` +
            `generator ${formatCount(plan.generatorParameters)}, embeddings shared)`,
        )
        progress.log(
          `plan       ${plan.steps.toLocaleString('en-US')} steps of ${plan.tokensPerStep.toLocaleString('en-US')} tokens, ` +
            `${(plan.flopsPerToken / 1e6).toFixed(1)} MFLOP a token, about ${formatBytes(plan.memoryBytes)} of memory, ` +
            `about ${formatDuration(plan.expectedSeconds)}`,
        )
        progress.log(`device     ${event.device}, ${event.precision}, ${event.instructionSet}`)
        break
      }
      case 'resumed':
        progress.log(`resuming after step ${event.step.toLocaleString('en-US')}`)
        for (const note of event.notes) progress.log(`note       ${note}`)
        break
      case 'note':
        progress.log(`note       ${event.text}`)
        break
      case 'row':
        progress.log(describeRow(event.row))
        break
      case 'complete':
        progress.log(
          `this run is complete (${event.step.toLocaleString('en-US')} steps); more --steps continue it`,
        )
    }
  }
  return {
    event,
    step(step) {
      if (firstStep === undefined) {
        firstStep = step.step
        stepsBegin = performance.now()
      }
      const done = (step.step - firstStep) / Math.max(1, step.steps - firstStep)
      progress.update(
        `step ${step.step}/${step.steps}  loss ${step.loss.toFixed(2)}  ${formatCount(step.tokensPerSecond)} tokens/s  ` +
          `${timeLeft(done, (performance.now() - stepsBegin) / 1000)} left`,
        step.step / step.steps,
      )
    },
    result(result) {
      const { validation } = result
      if (validation !== undefined)
        progress.log(
          `validation discriminator AUC ${show(validation.disc_auc, 3)}, accuracy ${show(validation.disc_accuracy, 3)}; ` +
            `generator loss ${show(validation.generatorLoss, 3)}`,
        )
      progress.log(`models     ${result.discriminator}, ${result.generator}`)
      progress.log(`done in ${formatDuration((performance.now() - begin) / 1000)}`)
    },
  }
}

function describeRow(row: Readonly<Record<string, unknown>>): string {
  const isValidation = row.split === 'validation'
  const parts = [
    `${isValidation ? 'validation' : 'step'.padEnd(10)} ${String(row.step).padStart(7)}`,
    `loss ${show(row.loss, 3)}`,
    `generator ${show(row.generator_loss, 3)}`,
    `discriminator ${show(row.discriminator_loss, 4)}`,
    `masked ${show(row.masked_lm_accuracy, 3)}`,
    `AUC ${show(row.disc_auc, 3)}`,
  ]
  if (!isValidation) parts.push(`${formatCount(Number(row.tokens_per_second))} tokens/s`)
  return parts.join('  ')
}

const times = (count: number, what: string): string =>
  `${count.toLocaleString('en-US')} ${count === 1 ? what : `${what}s`}`

function describeWarning({ file, malformed, firstMalformedLine, cuts }: CorpusWarning): string {
  const what: string[] = []
  if (malformed > 0)
    what.push(
      `${times(malformed, 'malformed UTF-8 sequence')} became U+FFFD, the first near line ${firstMalformedLine.toLocaleString('en-US')}`,
    )
  if (cuts > 0) what.push(`an overlong document was cut ${times(cuts, 'time')}; blank lines part documents`)
  return `${file}: ${what.join('; ')}`
}
