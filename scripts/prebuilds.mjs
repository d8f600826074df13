// npm run prebuilds [-- --cuda]: what a release carries for this platform, in prebuilds/. The addon; with --cuda also the
// CUDA library for every card of a release, which needs nvcc and some minutes.
import { spawnSync } from 'node:child_process'
import { statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

process.chdir(dirname(dirname(fileURLToPath(import.meta.url))))
process.env.JOBS ??= 'max' // node-gyp compiles on all cores
const require = createRequire(import.meta.url)
const releaseArchs = '75,80,86,89,90,100,120'
/** More would make the package a burden for those without a card: an optional package of its own then. */
const mostBytes = 8 * 2 ** 20

function run(file, ...args) {
  const { status } = spawnSync(process.execPath, [file, ...args], { stdio: 'inherit' })
  if (status !== 0) process.exit(status ?? 1)
}

const prebuildify = join(dirname(require.resolve('prebuildify/package.json')), 'bin.js')
run(prebuildify, '--napi', '--strip', '--name', 'voltaic')
if (process.argv.includes('--cuda')) {
  const folder = join('prebuilds', `${process.platform}-${process.arch}`)
  run('dist/cli/main.js', 'build-cuda', '--archs', releaseArchs, '--output', folder)
  const { size } = statSync(join(folder, 'libvoltaic_cuda.so'))
  console.log(`libvoltaic_cuda.so for ${releaseArchs}: ${(size / 2 ** 20).toFixed(2)} MB`)
  if (size > mostBytes) {
    console.error('over 8 MB: too much for the package')
    process.exit(1)
  }
}
