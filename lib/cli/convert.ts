/** `voltaic convert`: models in any file they come in, as a folder that today's libraries open. */
import { type Command, Option } from 'commander'
import { type ConvertTarget, convertModel, convertTargets } from '../formats/convert.js'
import type { HubProgress } from '../formats/hub.js'
import { type ElectraPart, electraParts } from '../formats/tensorflow-names.js'
import { formatBytes, formatCount } from './format.js'
import { parsePositive } from './parse.js'

interface Options {
  readonly part?: ElectraPart
  readonly config?: string
  readonly to: ConvertTarget
  readonly revision?: string
  readonly positions?: number
  readonly trainedPositions?: number
}

export function addConvertCommand(program: Command): void {
  program
    .command('convert')
    .description('convert a model of PyTorch, TensorFlow or the hub to a model folder')
    .argument('<source>', 'a model folder, a file of weights, a TensorFlow checkpoint, or a name on the hub')
    .argument('<dir>', 'where the model folder is written')
    .addOption(
      new Option('--part <part>', 'which model of a TensorFlow checkpoint (default: discriminator)').choices(
        electraParts,
      ),
    )
    .option('--config <file>', 'a config.json, where none stands beside the weights')
    .addOption(new Option('--to <format>', 'what to write').choices(convertTargets).default('safetensors'))
    .option('--revision <name>', 'with a name on the hub: a branch, tag or commit (default: main)')
    .option('--positions <n>', 'extend the position table, for longer inputs', parsePositive)
    .option(
      '--trained-positions <n>',
      'with --positions: rows that training has reached (default: all)',
      parsePositive,
    )
    .action(convert)
}

/** A line for each file that comes, as it begins. */
function announceDownloads(): (progress: HubProgress) => void {
  const seen = new Set<string>()
  return ({ file, total }) => {
    if (seen.has(file)) return
    seen.add(file)
    process.stderr.write(`downloading ${file}${total === undefined ? '' : `, ${formatBytes(total)}`}\n`)
  }
}

async function convert(source: string, folder: string, options: Options): Promise<void> {
  const { config, tensors, bytes, files, leftOut } = await convertModel(source, folder, {
    ...options,
    onDownload: announceDownloads(),
  })
  for (const { names, reason } of leftOut) {
    const shown = names.slice(0, 2).join(', ')
    const rest = names.length > 2 ? ` and ${formatCount(names.length - 2)} more` : ''
    process.stderr.write(`left out: ${shown}${rest}: ${reason}\n`)
  }
  const name = config.architectures[0] ?? 'model'
  const tokenizer = files.length === 0 ? 'no tokenizer beside it' : `with ${files.join(', ')}`
  process.stdout.write(
    `${name}, ${formatCount(tensors.length)} tensors of ${formatBytes(bytes)}, ${tokenizer}, in ${folder}\n`,
  )
}
