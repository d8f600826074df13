/** bench:peers with a tiny model: it runs without PyTorch, compares outputs before it times, and its tables go into a page. */
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

interface Result {
  readonly name: string
  readonly ours: boolean
  readonly distance?: number
  readonly seconds?: { readonly median: number }
}

interface Results {
  readonly contests: readonly {
    readonly name: string
    readonly results: readonly Result[]
    readonly ratios: readonly { readonly peer: string; readonly median: number }[]
  }[]
}

t.test('a quick run times every side that is here, and they agree', async (t) => {
  const file = join(t.testdir(), 'peers.json')
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(root, 'bench', 'peers.mjs'), '--quick', '--no-torch', '--only', 'train,infer', '--json', file],
    { encoding: 'utf8' },
  )
  t.equal(status, 0, stderr)
  t.match(stdout, /NOT A MEASUREMENT/)
  const { contests } = JSON.parse(readFileSync(file, 'utf8')) as Results
  t.equal(contests.length, 2)
  for (const { name, results } of contests) {
    for (const result of results) t.ok(Number(result.seconds?.median) > 0, `${name}: ${result.name} is timed`)
  }
  const inference = contests[1]
  t.match(inference?.name, /discriminator/)
  const peers = inference?.results.filter(({ ours }) => !ours) ?? []
  for (const { name, distance } of peers) t.ok(Number(distance) < 0.1, `${name}: logits within ${distance}`)
  t.equal(inference?.ratios.length, 2 * peers.length, 'each of ours against each peer')
})

t.test('generated blocks replace what stands between their marks', async (t) => {
  const { writeBlocks } = await import(join(root, 'bench', 'peers', 'report.mjs'))
  const page = join(t.testdir(), 'page.md')
  writeFileSync(page, 'before\n<!-- peers -->old<!-- /peers -->\nafter\n')
  writeBlocks(page, { peers: '| new |' })
  t.equal(readFileSync(page, 'utf8'), 'before\n<!-- peers -->\n\n| new |\n\n<!-- /peers -->\nafter\n')
  t.throws(() => writeBlocks(page, { kernels: '' }), /no <!-- kernels -->/)
})
