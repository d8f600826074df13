/**
 * docs/api.md and the guides, run as a reader runs them: every block of a page in turn, all pages in one folder, where the model of the
 * sample text stands. A block behind the comment `<!-- not run: REASON -->` is left out.
 */
import { spawn } from 'node:child_process'
import { readdirSync, readFileSync, symlinkSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { mainFile } from '../helpers/training.js'

t.setTimeout(230_000)

const root = fileURLToPath(new URL('../../', import.meta.url))
const folder = t.testdir({ node_modules: { '.bin': {} } })
symlinkSync(root, join(folder, 'node_modules', 'voltaic'))
symlinkSync(mainFile, join(folder, 'node_modules', '.bin', 'voltaic'))
symlinkSync(join(root, 'docs'), join(folder, 'docs'))

interface Block {
  readonly language: string
  readonly code: string
  readonly line: number
}

/** The blocks of a page that are to be run. */
function blocksOf(page: string): Block[] {
  const text = readFileSync(join(root, page), 'utf8')
  const fences = /(<!-- not run: [^>]+ -->\s*)?^```(\w*)\n([\s\S]*?)^```$/gm
  return [...text.matchAll(fences)].flatMap(({ 1: left, 2: language, 3: code, index }) => {
    const line = text.slice(0, index).split('\n').length
    return left === undefined && (language === 'js' || language === 'sh')
      ? [{ language, code: code as string, line }]
      : []
  })
}

interface Ended {
  readonly code: number | null
  readonly output: string
}

/** Runs a block in the folder: JavaScript as a module, shell commands until the first that fails. */
function run({ language, code }: Block): Promise<Ended> {
  const [command, args] =
    language === 'js' ? [process.execPath, ['--input-type=module', '-e', code]] : ['bash', ['-ec', code]]
  const path = [dirname(process.execPath), process.env.PATH].join(delimiter)
  const child = spawn(command as string, args as string[], {
    cwd: folder,
    env: { ...process.env, PATH: path },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += data))
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, output }))
  })
}

async function runPage(t: Test, page: string): Promise<void> {
  const blocks = blocksOf(page)
  t.ok(blocks.length > 0, `${page} has blocks to run`)
  for (const block of blocks) {
    const { code, output } = await run(block)
    t.equal(code, 0, `${page}:${block.line}`) || t.comment(output.slice(-2000))
  }
}

/** Pages run together, one after the other: the runs share the folder, and training takes all processors. */
const guides = readdirSync(join(root, 'docs', 'guides'))
  .filter((name) => name.endsWith('.md'))
  .map((name) => `docs/guides/${name}`)

t.test('the sample model', async (t) => {
  const { code, output } = await run({ language: 'sh', code: 'npx voltaic pretrain', line: 0 })
  t.equal(code, 0, 'ends well') || t.comment(output.slice(-2000))
})

for (const page of ['docs/api.md', ...guides]) t.test(page, (t) => runPage(t, page))
