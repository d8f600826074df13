// C++ layout with clang-format 14: checks, or rewrites with --write. Biome does the TypeScript (npm run lint).
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

process.chdir(dirname(dirname(fileURLToPath(import.meta.url))))
const write = process.argv.includes('--write')
const files = ['native', 'cuda', 'test']
  .flatMap((folder) => {
    try {
      return readdirSync(folder, { recursive: true }).map((file) => join(folder, file))
    } catch {
      return []
    }
  })
  .filter((file) => /\.(cpp|h|cu|cuh)$/.test(file))

const tool = ['clang-format-14', 'clang-format'].find((name) => spawnSync(name, ['--version']).status === 0)
if (!tool) {
  console.log(
    'clang-format 14 is not installed (Debian: apt-get install clang-format-14): C++ layout not checked',
  )
  process.exit(0)
}
if (write) spawnSync('npx', ['biome', 'check', '--write', '.'], { stdio: 'inherit' })
const run = spawnSync(tool, [...(write ? ['-i'] : ['--dry-run', '--Werror']), ...files], { stdio: 'inherit' })
process.exit(run.status ?? 1)
