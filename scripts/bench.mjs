// npm run bench [-- FAMILY...] [--json FILE]; npm run bench:tokens; npm run bench:pipelines; npm run bench:pretrain [-- --size NAME --precision fp32|bf16] [--json FILE]
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const compiler = join(
  dirname(createRequire(import.meta.url).resolve('typescript/package.json')),
  'bin',
  'tsc',
)
const [what = 'kernels', ...args] = process.argv.slice(2)
const compiled = spawnSync(process.execPath, [compiler, '-b', root], { stdio: 'inherit' })
if (compiled.status !== 0) process.exit(1)
process.exit(
  spawnSync(process.execPath, [join(root, 'bench', `${what}.mjs`), ...args], { stdio: 'inherit' }).status ??
    1,
)
