/** `voltaic info`: devices, instruction sets, backends, and why one is missing. */
import type { Command } from 'commander'
import {
  cudaReport,
  deviceInfo,
  instructionSets,
  processors,
  resolveDevice,
  threads,
} from '../runtime/index.js'
import { packageVersion } from '../version.js'
import { formatBytes } from './format.js'

export function addInfoCommand(program: Command): void {
  program
    .command('info')
    .description('devices, instruction sets, backends, and why one is missing')
    .option('--json', 'one JSON object')
    .action((options: { json?: boolean }) => {
      const cpu = deviceInfo(resolveDevice('cpu'))
      const cuda = cudaReport()
      const report = {
        version: packageVersion,
        node: process.versions.node,
        platform: `${process.platform}-${process.arch}`,
        cpu: { ...cpu, instructionSets: instructionSets(), processors: processors(), threads: threads() },
        cuda: {
          ...cuda,
          cards: Array.from({ length: cuda.devices }, (_, index) =>
            deviceInfo(resolveDevice(`cuda:${index}`)),
          ),
        },
      }
      if (options.json) {
        process.stdout.write(`${JSON.stringify(report, null, 2)}\n`)
        return
      }
      const lines = [
        `voltaic ${report.version}, Node ${report.node}, ${report.platform}`,
        `cpu    ${cpu.name}: ${report.cpu.processors} processors, ${report.cpu.threads} threads in use, ${formatBytes(cpu.totalBytes)}`,
        `       instruction set ${cpu.instructionSet} of ${report.cpu.instructionSets.join(', ')} (VOLTAIC_CPU chooses)`,
        `       precision auto is ${cpu.bfloat16IsFast ? 'bf16' : 'fp32'}; addon ${cpu.buildInfo}`,
      ]
      if (cuda.devices === 0) {
        lines.push(`cuda   not used: ${cuda.reason}`)
        if (cuda.buildInfo) lines.push(`       ${cuda.path}: ${cuda.buildInfo}`)
      }
      for (const [index, card] of report.cuda.cards.entries()) {
        lines.push(
          `cuda:${index} ${card.name} (${card.instructionSet}), ${formatBytes(card.totalBytes)}, ${formatBytes(card.freeBytes)} free`,
          `       precision auto is ${card.bfloat16IsFast ? 'bf16' : 'fp32'}; matmul library ${card.matmulLibrary || 'none'}`,
        )
      }
      if (cuda.devices > 0) lines.push(`       ${cuda.path}: ${cuda.buildInfo}`)
      process.stdout.write(`${lines.join('\n')}\n`)
    })
}
