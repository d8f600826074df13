// The package as users get it: packed with a prebuild, installed into an empty folder on a PATH without a compiler, it
// loads through import and require, and the command line answers.
import { execFileSync, spawnSync } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

process.chdir(dirname(dirname(fileURLToPath(import.meta.url))))
const scratch = mkdtempSync(join(tmpdir(), 'voltaic-package-'))
let passed = 0
let failed = 0
const check = (ok, what) => {
  if (ok) passed++
  else failed++
  console.log(`${ok ? 'ok' : 'not ok'} ${what}`)
}
const prebuilt = join('prebuilds', `${process.platform}-${process.arch}`, 'voltaic.node')
// A CUDA library travels beside the addon, where one has been built: check-cuda.mjs leaves one for two cards.
const cudaBuilt = join('build-cuda-check', 'libvoltaic_cuda.so')
const quiet = { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }

try {
  execFileSync('npm', ['run', '--silent', 'prebuilds'], quiet)
  const withCuda = existsSync(cudaBuilt)
  if (withCuda) copyFileSync(cudaBuilt, join(dirname(prebuilt), 'libvoltaic_cuda.so'))
  execFileSync('npm', ['pack', '--silent', '--pack-destination', scratch], quiet)
  const tarball = readdirSync(scratch).find((file) => file.endsWith('.tgz'))
  check(Boolean(tarball), 'npm pack makes a tarball')
  // A PATH with node, npm, npx and a shell alone.
  const bin = join(scratch, 'bin')
  mkdirSync(bin)
  for (const name of ['node', 'npm', 'npx', 'sh', 'env']) {
    const found = spawnSync('which', [name], { encoding: 'utf8' }).stdout.trim()
    if (found) symlinkSync(found, join(bin, name))
  }
  const app = join(scratch, 'app')
  mkdirSync(app)
  writeFileSync(join(app, 'package.json'), '{ "name": "app", "private": true, "type": "module" }')
  const options = { ...quiet, cwd: app, env: { ...process.env, PATH: bin, npm_config_nodedir: '' } }
  const install = spawnSync('npm', ['install', '--no-audit', '--no-fund', join(scratch, tarball)], options)
  check(
    install.status === 0,
    `it installs without a compiler${install.status === 0 ? '' : `: ${install.stderr}`}`,
  )
  const run = (...args) => spawnSync('node', args, options)
  const imported = run(
    '--input-type=module',
    '-e',
    "import { tensor } from 'voltaic'; console.log(tensor([1, 2]).add(1).dataSync().join())",
  )
  check(
    imported.stdout?.trim() === '2,3',
    `import works${imported.status === 0 ? '' : `: ${imported.stderr}`}`,
  )
  const required = run('--input-type=commonjs', '-e', "console.log(typeof require('voltaic').tensor)")
  check(required.stdout?.trim() === 'function', 'require works')
  const main = join('node_modules', 'voltaic', 'dist', 'cli', 'main.js')
  const info = run(main, 'info')
  check(info.status === 0 && /cpu/i.test(info.stdout), 'voltaic info answers')
  if (withCuda) {
    // Without its look for a driver, so that the library itself is opened.
    const { cuda } = JSON.parse(
      spawnSync('node', [main, 'info', '--json'], {
        ...options,
        env: {
          ...options.env,
          VOLTAIC_CUDA: 'emulated',
          VOLTAIC_CUDA_LIBRARY: join(app, 'node_modules', 'voltaic', dirname(prebuilt), 'libvoltaic_cuda.so'),
        },
      }).stdout,
    )
    check(
      cuda.devices > 0 || /NVIDIA driver/.test(cuda.reason),
      `the packed CUDA library opens: ${cuda.reason || `${cuda.devices} devices`}`,
    )
  }
} catch (error) {
  check(false, `${error.message}\n${error.stderr ?? ''}`)
} finally {
  rmSync(scratch, { recursive: true, force: true })
  // prebuildify moves the addon out of build/Release: it goes back, so that the checkout works on.
  if (existsSync(prebuilt)) renameSync(prebuilt, join('build', 'Release', 'voltaic.node'))
  rmSync('prebuilds', { recursive: true, force: true })
}
console.log(`${passed} passed, ${failed} failed`)
process.exit(failed ? 1 : 0)
