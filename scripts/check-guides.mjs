// node scripts/check-guides.mjs [PAGE...]: runs the pages of docs/ that promise to run, as a reader runs them: every block in turn, all
// pages in one empty folder, and looks at what came of them. A block behind the comment `<!-- not run: REASON -->` is left out.
// Ends with a line "N passed, N failed".
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** Pages, and the least that the models which they train must reach: what chance or the largest class would not. */
const pages = {
  'docs/api.md': {},
  'docs/tasks.md': {},
  'docs/finetuning.md': { 'my-classifier': ['accuracy', 0.4] },
  'docs/guides/classify-texts.md': { reviews: ['accuracy', 0.8], topics: ['microF1', 0.8] },
  'docs/guides/route-requests.md': { requests: ['inScopeAccuracy', 0.4] },
  'docs/guides/rate-texts.md': { ratings: ['spearman', 0.7] },
  'docs/guides/find-entities.md': { entities: ['f1', 0.9] },
  'docs/guides/answer-questions.md': { answers: ['f1', 35] },
  'docs/guides/compare-sentences.md': {},
  'docs/guides/choose-an-answer.md': { choices: ['accuracy', 0.5] },
  'docs/guides/fill-and-detect.md': {},
}

const folder = mkdtempSync(join(tmpdir(), 'voltaic-guides-'))
mkdirSync(join(folder, 'node_modules', '.bin'), { recursive: true })
symlinkSync(root, join(folder, 'node_modules', 'voltaic'))
// As npm links it, whether or not the compiled file is executable.
const command = `#!/bin/sh\nexec '${process.execPath}' '${join(root, 'dist', 'cli', 'main.js')}' "$@"\n`
writeFileSync(join(folder, 'node_modules', '.bin', 'voltaic'), command, { mode: 0o755 })
symlinkSync(join(root, 'docs'), join(folder, 'docs'))

/** The blocks of a page that are to be run. */
function blocksOf(page) {
  const text = readFileSync(join(root, page), 'utf8')
  const fences = /(<!-- not run: [^>]+ -->\s*)?^```(\w*)\n([\s\S]*?)^```$/gm
  return [...text.matchAll(fences)].flatMap(({ 1: left, 2: language, 3: code, index }) => {
    const line = text.slice(0, index).split('\n').length
    return left === undefined && (language === 'js' || language === 'sh') ? [{ language, code, line }] : []
  })
}

/** Runs a block: JavaScript as a module, shell commands until the first that fails. What went wrong, or undefined. */
function problemOf({ language, code }) {
  const [command, args] =
    language === 'js' ? [process.execPath, ['--input-type=module', '-e', code]] : ['bash', ['-ec', code]]
  const path = [dirname(process.execPath), process.env.PATH].join(delimiter)
  const options = { cwd: folder, env: { ...process.env, PATH: path }, encoding: 'utf8', maxBuffer: 2 ** 26 }
  const { status, stdout, stderr } = spawnSync(command, args, { ...options, timeout: 600_000 })
  return status === 0 ? undefined : `ended with ${status}:\n${(stdout + stderr).slice(-2000)}`
}

/** What a model's validation says against the least that it must reach. */
function shortfallOf(model, [metric, least]) {
  const file = join(folder, model, 'metrics.json')
  if (!existsSync(file)) return 'was not trained'
  const found = JSON.parse(readFileSync(file, 'utf8')).validation[metric]
  return found >= least ? undefined : `${metric} is ${found}, expected ${least} or more`
}

let passed = 0
let failed = 0
function check(what, problem) {
  if (problem === undefined) passed++
  else {
    failed++
    console.log(`FAILED ${what}: ${problem}`)
  }
}

const asked = process.argv.slice(2).map((page) => basename(page))
check('the sample model', problemOf({ language: 'sh', code: 'npx voltaic pretrain' }))
for (const [page, models] of Object.entries(pages)) {
  if (asked.length > 0 && !asked.includes(basename(page))) continue
  const begin = performance.now()
  const blocks = blocksOf(page)
  check(page, blocks.length === 0 ? 'has no block to run' : undefined)
  for (const block of blocks) check(`${page}:${block.line}`, problemOf(block))
  for (const [model, expected] of Object.entries(models))
    check(`${page}: ${model}`, shortfallOf(model, expected))
  console.log(`${page}: ${blocks.length} blocks, ${((performance.now() - begin) / 1000).toFixed(0)} s`)
}
rmSync(folder, { recursive: true })
console.log(`${passed} passed, ${failed} failed`)
process.exit(failed === 0 ? 0 : 1)
