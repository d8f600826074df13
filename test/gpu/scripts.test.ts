/** gpu:bench on the CPU, in tiny shapes: every row runs, results are written, and a time limit leaves out the rest and says so. */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

interface Results {
  readonly rows: readonly {
    readonly kind: string
    readonly id: string
    readonly ours: { readonly median?: number; readonly loss?: number; readonly error?: string }
  }[]
  readonly leftOut: readonly string[]
}

function bench(t: Test, ...args: string[]): { results: Results; table: string; stdout: string } {
  const output = t.testdir()
  const script = join(root, 'scripts', 'gpu-bench.mjs')
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [script, '--device', 'cpu', '--no-torch', '--output', output, ...args],
    { encoding: 'utf8' },
  )
  t.equal(status, 0, stderr)
  const read = (ending: string): string => {
    const name = readdirSync(output).find((file) => file.endsWith(ending))
    return readFileSync(join(output, name as string), 'utf8')
  }
  return { results: JSON.parse(read('.json')) as Results, table: read('.md'), stdout }
}

t.test('every row of every kernel family and a whole step run', async (t) => {
  const { results, table } = bench(t)
  const families = readdirSync(join(root, 'bench', 'families')).map((name) => name.replace('.mjs', ''))
  for (const family of families)
    t.ok(
      results.rows.some(({ id }) => id.startsWith(`${family}: `)),
      `${family} has rows`,
    )
  for (const { id, ours } of results.rows) t.ok(Number(ours.median) > 0, `${id}: ${ours.error ?? 'timed'}`)
  const step = results.rows[0]
  t.equal(step?.kind, 'step', 'whole steps come first')
  t.ok(Number.isFinite(step?.ours.loss), 'the step has a loss')
  t.match(table, /NOT A MEASUREMENT/)
  t.match(table, /attention: backward/)
  t.same(results.leftOut, [])
})

t.test('a time limit leaves rows out by name, and --only takes some', async (t) => {
  const { results, stdout } = bench(t, '--time-limit', '5', '--only', 'softmax')
  t.ok(results.leftOut.length > 0)
  t.ok(results.leftOut.every((id) => id.includes('softmax')))
  t.match(stdout, /Left out for lack of time/)
})

t.test('the stand-in for tap counts as tap does', async (t) => {
  const folder = t.testdir({
    node_modules: { tap: { 'package.json': '{"name":"tap","type":"module","exports":"./index.mjs"}' } },
    'package.json': '{"type":"module"}',
  })
  const standIn = readFileSync(join(root, 'bench', 'gpu', 'tap-stand-in.mjs'))
  writeFileSync(join(folder, 'node_modules', 'tap', 'index.mjs'), standIn)
  writeFileSync(
    join(folder, 'a.test.js'),
    `import t from 'tap'
     t.test('passes', async (t) => {
       t.ok(1); t.notOk(0); t.equal(1, 1); t.not(0, -0); t.same([1], ['1']); t.notSame([1], [2])
       t.match({ a: 'hello', b: [1] }, { a: /ell/ }); t.strictSame({ a: 1 }, { a: 1 })
       t.throws(() => { throw Object.assign(new Error('no way'), { code: 'E' }) }, { code: 'E', message: /way/ })
       await t.rejects(Promise.reject(new TypeError('x')), TypeError)
     })
     t.test('fails', async (t) => {
       t.ok(0); t.equal(1, 2); t.strictSame([1], ['1']); t.throws(() => undefined)
       t.throws(() => { throw new Error('other') }, { message: /way/ })
       throw new Error('and ends early')
     })
     t.test('is skipped', { skip: 'a reason' }, async (t) => t.fail())`,
  )
  const { status, stdout } = spawnSync(process.execPath, [join(folder, 'a.test.js')], { encoding: 'utf8' })
  t.equal(status, 1)
  t.match(stdout, /^# \{ total: 16, pass: 10, fail: 6, skip: 1 \}$/m)
})

t.test("PyTorch's compiled step goes into its step's row, and comes after it", async (t) => {
  const place = join(root, 'bench', 'gpu', 'plan.mjs')
  const { planOf } = (await import(place)) as {
    planOf(
      rows: readonly [],
      scale: string,
      options: object,
    ): { readonly kind: string; readonly step: object }[]
  }
  const plan = planOf([], 'gpu', { withoutLibrary: true })
  const compiled = plan.filter(({ kind }) => kind === 'compiled')
  t.ok(compiled.length > 0)
  for (const { step } of compiled) {
    const row = plan.findIndex((item) => item.kind === 'step' && item.step === step)
    t.ok(row >= 0 && row < plan.findIndex((item) => item.kind === 'compiled' && item.step === step))
  }
})

t.test('the stand-in for tap has what the tests of the device use', async (t) => {
  const standIn = readFileSync(join(root, 'bench', 'gpu', 'tap-stand-in.mjs'), 'utf8')
  for (const folder of ['electra', 'cuda', 'tensor'])
    for (const name of readdirSync(join(root, 'test', folder))) {
      const used = readFileSync(join(root, 'test', folder, name), 'utf8').matchAll(/\bt\.(\w+)\(/g)
      for (const [, method] of new Set(used))
        t.match(standIn, new RegExp(`^  ${method} = `, 'm'), `${folder}/${name} uses t.${method}`)
    }
})
