// npm's install script: takes the prebuilt addon where one fits, else compiles it, on all cores.
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'

process.env.JOBS ??= 'max'
const loader = createRequire(import.meta.url).resolve('node-gyp-build/bin.js')
process.exit(spawnSync(process.execPath, [loader], { stdio: 'inherit' }).status ?? 1)
