#!/usr/bin/env node
/** The command line: one file a command; this one knows their names, and how a command ends. */
import { Command, CommanderError } from 'commander'
import { packageVersion } from '../version.js'
import { addBuildCudaCommand } from './build-cuda.js'
import { addConvertCommand } from './convert.js'
import { addEvaluateCommand } from './evaluate.js'
import { exitCodes, reportFailure } from './exit.js'
import { addFinetuneCommand } from './finetune.js'
import { addInfoCommand } from './info.js'
import { addInspectCommand } from './inspect.js'
import { addPredictCommand } from './predict.js'
import { addPretrainCommand } from './pretrain.js'
import { addTokenizeCommand } from './tokenize.js'
import { addTrainVocabCommand } from './train-vocab.js'

const program = new Command('voltaic')
  .description('Pre-train, fine-tune and run ELECTRA models.')
  .version(packageVersion, '-v, --version')
  .showHelpAfterError('(--help lists the options)')
  .exitOverride()

addPretrainCommand(program)
addFinetuneCommand(program)
addEvaluateCommand(program)
addPredictCommand(program)
addTokenizeCommand(program)
addTrainVocabCommand(program)
addConvertCommand(program)
addInspectCommand(program)
addInfoCommand(program)
addBuildCudaCommand(program)
for (const command of program.commands)
  command.exitOverride().showHelpAfterError('(--help lists the options)')

// A reader that has seen enough (`| head`) ends the command.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') reportFailure(error)
  process.exit(exitCodes.failed)
})

try {
  await program.parseAsync()
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? exitCodes.done : exitCodes.usage
  } else {
    reportFailure(error)
  }
}
