// npm run bench [-- FAMILY...] [--json FILE]: each kernel at ELECTRA's shapes, with GFLOP/s or GB/s and the percent of the
// ceiling measured in the same run. A family's rows stand in the file of its name. VOLTAIC_BENCH_DEVICE=cuda runs them on a card;
// npm run gpu:bench does more there.
import { device, figures, measureCeilings, printTable, timeRow, writeJson } from './harness.mjs'
import { families, rowsOf } from './rows.mjs'
import { scales } from './scales.mjs'

const args = process.argv.slice(2)
const json = args.indexOf('--json')
const asked = args.filter((arg, i) => !arg.startsWith('--') && (json < 0 || i !== json + 1))
for (const name of asked)
  if (!families.includes(name)) throw new Error(`no family ${name}; there are ${families.join(', ')}`)

const scale = scales[process.env.VOLTAIC_BENCH_SCALE ?? (device.kind === 'cuda' ? 'gpu' : 'cpu')]
const ceilings = await measureCeilings(scale)
const rows = []
for (const family of asked.length > 0 ? asked : families) {
  for (const entry of await rowsOf(family, scale)) {
    const name = `${family}: ${entry.name}`
    try {
      rows.push({ name, ...figures(await timeRow(entry), entry.work, ceilings) })
    } catch (error) {
      if (error.code !== 'ERR_UNSUPPORTED') throw error
      rows.push({ name, unsupported: error.message })
    }
  }
}
printTable(rows, ceilings)
writeJson({ device: device.name, ceilings, rows })
