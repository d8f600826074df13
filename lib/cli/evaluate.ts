/** `voltaic evaluate`: a fine-tuned model on a file with answers. */
import type { Command } from 'commander'
import { type DeviceName, setThreads } from '../runtime/index.js'
import { type EvaluateOptions, evaluate } from '../tasks/index.js'
import { interruptible } from './interrupt.js'
import { printMinimalPairs } from './minimal-pairs.js'
import { createProgress } from './progress.js'
import { addTaskOptions, describeMetrics, describeSkipped } from './task-options.js'

type Options = Omit<EvaluateOptions, 'data' | 'task' | 'signal' | 'onProgress'> & {
  readonly data?: string
  readonly task?: string
  readonly json?: boolean
}

export function addEvaluateCommand(program: Command): void {
  const command = program
    .command('evaluate')
    .description("a fine-tuned model's metrics on a file with answers, or what minimal pairs say of a model")
    .requiredOption('--model <dir>', "a fine-tuned model's folder, or its name on the hub")
    .option('--data <file>', 'the file with texts and answers; of minimal pairs (default: the built-in ones)')
    .option(
      '--task <name>',
      "a task's name, or minimal-pairs (default: the one that the model was fine-tuned for)",
    )
    .option('--output <file>', 'where the predictions are written, as JSON lines')
    .option(
      '--official <file>',
      "where they are written as the task's own evaluation script reads them (SQuAD)",
    )
  addTaskOptions(command).option('--json', 'the result as JSON on standard output').action(run)
}

async function run({ json = false, ...given }: Options, command: Command): Promise<void> {
  const { data, task, model, output, strict, precision } = given
  if (task === 'minimal-pairs') {
    const device = given.device as DeviceName | undefined
    if (given.threads !== undefined) setThreads(given.threads)
    return printMinimalPairs({ model, data, output, strict, device, precision, json })
  }
  if (data === undefined) command.error("error: required option '--data <file>' not specified")
  const options = { ...given, data }
  const progress = createProgress()
  const onProgress = (done: number, all: number): void =>
    progress.update(`${done.toLocaleString('en-US')} of ${all.toLocaleString('en-US')} sequences`, done / all)
  await interruptible('stopping', async (signal) => {
    try {
      const result = await evaluate({ ...options, signal, onProgress })
      for (const line of describeSkipped(result.data, result.skipped)) progress.log(line)
      progress.done()
      if (json) {
        process.stdout.write(`${JSON.stringify(result)}\n`)
        return
      }
      const { task, examples, metrics, report } = result
      process.stdout.write(
        `${task}, ${examples.toLocaleString('en-US')} examples\n${describeMetrics(metrics)}\n`,
      )
      if (report !== '') process.stdout.write(`\n${report.trimEnd()}\n`)
      for (const file of [options.output, options.official])
        if (file !== undefined) progress.log(`predictions ${file}`)
    } finally {
      progress.done()
    }
  })
}
