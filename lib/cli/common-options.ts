/** Options that several commands have alike. */
import { type Command, Option } from 'commander'
import { parsePositive } from './parse.js'

/** How weights are updated: by commands that train. */
export function addRecipeOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--optimizer <form>', 'AdamW without or with bias correction').choices([
        'original',
        'pytorch',
      ]),
    )
    .addOption(
      new Option('--schedule <form>', 'warmup times decay, or warmup then decay').choices([
        'original',
        'linear',
      ]),
    )
}

/** Where a model computes, and how. */
export function addDeviceOptions(command: Command): Command {
  return command
    .option('--device <name>', 'auto, cpu, cuda or cuda:N')
    .addOption(new Option('--precision <kind>', 'arithmetic of products').choices(['auto', 'fp32', 'bf16']))
    .option('--threads <n>', 'CPU threads; never changes a result', parsePositive)
}
