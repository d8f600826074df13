/** `voltaic finetune`: options to `finetune()`, its events and steps to lines. */
import { join } from 'node:path'
import type { Command } from 'commander'
import { finetuneOptionNames } from '../tasks/finetune-options.js'
import {
  type FinetuneEvent,
  type FinetuneOptions,
  type FinetuneResult,
  type FinetuneStep,
  finetune,
} from '../tasks/index.js'
import { addRecipeOptions } from './common-options.js'
import { readConfigFile } from './config-file.js'
import { formatCount, formatDuration } from './format.js'
import { interruptible } from './interrupt.js'
import { parseFraction, parseNumber, parsePositive, parseWhole } from './parse.js'
import { createProgress, type Progress, timeLeft } from './progress.js'
import { addTaskOptions, describeFile, describeMetrics, describeSkipped } from './task-options.js'

type Options = Partial<FinetuneOptions> & { readonly config?: string; readonly json?: boolean }

export function addFinetuneCommand(program: Command): void {
  const command = program
    .command('finetune')
    .description('fine-tune a model on a task; run it again to go on')
    .option('--model <dir>', 'a model folder, or a name on the hub')
    .option('--from-scratch <size>', 'random weights instead of a model: of a size, or like another model')
    .option('--vocab <file>', 'with --from-scratch: vocab.txt, tokenizer.json, or a folder with one')
    .option('--task <name>', "a task's name, such as text-classification, sst-2, squad")
    .option('--train <file>', 'the file to learn from')
    .option('--validation <file>', 'the file that decides which checkpoint is best; else part of --train')
    .option('--validation-fraction <x>', 'part of --train kept for validation', parseFraction)
    .option('--test <file>', 'a file to predict at the end')
    .option('--output <dir>', 'folder of the fine-tuned model, its metrics and predictions')
    .option('--config <file>', 'JSON file with options under the same names in camelCase')
    .option('--epochs <n>', 'passes over the training set', parseNumber)
    .option('--steps <n>', 'updates, instead of --epochs', parsePositive)
    .option('--batch-size <n>', 'sequences of an update', parsePositive)
    .option('--learning-rate <x>', 'peak learning rate', parseNumber)
    .option('--layerwise-decay <x>', 'factor of the rate from one layer to the one below', parseNumber)
    .option('--dropout <x>', "instead of the dropout in the model's configuration", parseNumber)
    .option('--weight-decay <x>', 'decoupled decay of weights', parseNumber)
    .option('--warmup-fraction <x>', 'part of the steps over which the rate rises', parseFraction)
    .option('--max-gradient-norm <x>', 'global norm that gradients are clipped to; 0: not', parseNumber)
    .option('--seed <n>', 'seed of everything random', parseWhole)
    .option('--seeds <n>', 'runs with as many seeds; the median is reported, the best kept', parsePositive)
    .option('--evaluate-every <n>', 'steps between evaluations (default: one epoch)', parsePositive)
    .option('--patience <n>', 'evaluations without a better one that end the run', parsePositive)
    .option('--log-every <n>', 'steps between rows of metrics', parsePositive)
    .option('--save-every <n>', 'steps between checkpoints', parsePositive)
    .option('--fresh', 'start over in a folder that holds a run')
  addTaskOptions(addRecipeOptions(command)).option('--json', 'JSON lines on standard output').action(run)
}

const required = { task: '--task NAME', train: '--train FILE', output: '--output DIR' } as const

async function run(given: Options, command: Command): Promise<void> {
  const { config, json = false, ...flags } = given
  const fromFile = config === undefined ? {} : readConfigFile<FinetuneOptions>(config, finetuneOptionNames)
  const options = { ...fromFile, ...flags }
  for (const [name, option] of Object.entries(required))
    if (options[name as keyof typeof required] === undefined) command.error(`error: ${option} is required`)
  if (options.model === undefined && options.fromScratch === undefined)
    command.error('error: --model DIR is required (or --from-scratch SIZE)')
  const progress = createProgress()
  const display = json ? jsonDisplay() : textDisplay(progress, options.seeds ?? 1)
  const announcement = 'stopping after this step, and saving (again: stop at once, losing what is not saved)'
  await interruptible(announcement, async (signal) => {
    try {
      const steps = finetune({ ...(options as FinetuneOptions), signal, onEvent: display.event })
      let next = await steps.next()
      for (; next.done !== true; next = await steps.next()) display.step(next.value)
      progress.done()
      display.result(next.value)
    } finally {
      progress.done()
    }
  })
}

interface Display {
  event(event: FinetuneEvent): void
  step(step: FinetuneStep): void
  result(result: FinetuneResult): void
}

function jsonDisplay(): Display {
  const write = (value: unknown): void => {
    process.stdout.write(`${JSON.stringify(value)}\n`)
  }
  return {
    event: (event) => write(event.kind === 'row' ? { seed: event.seed, ...event.row } : event),
    step: () => undefined,
    result: (result) => write({ kind: 'result', ...result }),
  }
}

const show = (value: unknown, digits: number): string =>
  typeof value === 'number' ? value.toFixed(digits) : '-'

function textDisplay(progress: Progress, seeds: number): Display {
  const begin = performance.now()
  let first = { step: 0, begin }
  /** Where there are several seeds, whose line it is. */
  const who = (seed: number): string => (seeds > 1 ? `seed ${seed}  ` : '')
  const event = (event: FinetuneEvent): void => {
    switch (event.kind) {
      case 'data': {
        const { task, metric, labels, train, validation, test } = event
        const files = { training: train, validation, test }
        progress.log(`task       ${task}${labels ? ` of ${describeLabels(labels)}` : ''}; best by ${metric}`)
        for (const [what, file] of Object.entries(files)) {
          if (file === undefined) continue
          progress.log(describeFile(what, file))
          for (const line of describeSkipped(file.file, file.skipped)) progress.log(`           ${line}`)
        }
        break
      }
      case 'plan': {
        const { seed, steps, epochs, sequences, tokens, learningRate, layerwiseDecay } = event
        progress.log(
          `plan       ${who(seed)}${formatCount(event.parameters)} parameters; ${steps.toLocaleString('en-US')} steps, ` +
            `${Number(epochs.toFixed(2))} epochs of ${formatCount(sequences)} sequences, ${formatCount(tokens)} tokens; ` +
            `rate ${learningRate}, by layer ${layerwiseDecay}`,
        )
        progress.log(`device     ${event.device}, ${event.precision}, ${event.instructionSet}`)
        first = { step: -1, begin: performance.now() }
        break
      }
      case 'resumed':
        progress.log(`resuming ${who(event.seed)}after step ${event.step.toLocaleString('en-US')}`)
        for (const note of event.notes) progress.log(`note       ${note}`)
        break
      case 'note':
        progress.log(`note       ${event.text}`)
        break
      case 'row':
        progress.log(who(event.seed) + describeRow(event.row))
        break
      case 'finished':
        if (seeds > 1) progress.log(`${who(event.seed)}best ${describeMetrics(event.metrics.validation)}`)
        break
      case 'complete':
        progress.log('this run is complete; --fresh starts it over')
    }
  }
  return {
    event,
    step(step) {
      if (first.step < 0) first = { step: step.step, begin: performance.now() }
      const done = (step.step - first.step) / Math.max(1, step.steps - first.step)
      progress.update(
        `${who(step.seed)}step ${step.step}/${step.steps}  loss ${step.loss.toFixed(3)}  ` +
          `${formatCount(step.tokensPerSecond)} tokens/s  ${timeLeft(done, (performance.now() - first.begin) / 1000)} left`,
        step.step / step.steps,
      )
    },
    result({ output, best, validation, test, runs, report }) {
      const names = Object.keys(runs?.median ?? {})
      if (report !== '') progress.log(`\n${report.trimEnd()}\n`)
      progress.log(
        `best       ${runs ? `seed ${runs.best}, ` : ''}step ${best.step}, epoch ${Number(best.epoch.toFixed(2))}`,
      )
      progress.log(`validation ${describeMetrics(validation)}`)
      if (test !== undefined) progress.log(`test       ${describeMetrics(test)}`)
      if (runs !== undefined)
        for (const name of names)
          progress.log(
            `median     of ${runs.seeds.length} seeds: ${name} ${show(runs.median[name], 4)} ` +
              `(${show(runs.least[name], 4)} to ${show(runs.most[name], 4)})`,
          )
      progress.log(`model      ${output}, with ${join(output, 'metrics.json')} and predictions.jsonl`)
      progress.log(`done in ${formatDuration((performance.now() - begin) / 1000)}`)
    },
  }
}

function describeLabels(labels: readonly string[]): string {
  const shown = labels.slice(0, 6).join(', ')
  return labels.length > 6 ? `${labels.length} labels (${shown}, …)` : `${labels.length} labels (${shown})`
}

function describeRow(row: Readonly<Record<string, unknown>>): string {
  const { step, split, epoch, loss, learning_rate, tokens_per_second, sequences_per_second, ...metrics } = row
  const place = `${String(step).padStart(6)}  epoch ${show(epoch, 2)}`
  if (split === 'validation')
    return `validation ${place}  ${describeMetrics(metrics as Record<string, number>)}`
  return (
    `step       ${place}  loss ${show(loss, 4)}  rate ${Number(learning_rate).toExponential(2)}  ` +
    `${formatCount(Number(tokens_per_second))} tokens/s, ${formatCount(Number(sequences_per_second))} sequences/s`
  )
}
