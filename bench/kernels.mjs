// npm run bench [-- FAMILY...] [--json FILE]: each kernel at ELECTRA's shapes, with GFLOP/s or GB/s and the percent of the
// ceiling measured in the same run. A family's rows stand in the file of its name.
import { readdirSync } from 'node:fs'
import { device, measureCeilings, printTable, row, time, writeJson } from './harness.mjs'

const families = readdirSync(new URL('./families/', import.meta.url))
  .filter((file) => file.endsWith('.mjs'))
  .map((file) => file.slice(0, -4))
const args = process.argv.slice(2)
const json = args.indexOf('--json')
const asked = args.filter((arg, i) => !arg.startsWith('--') && (json < 0 || i !== json + 1))
for (const name of asked)
  if (!families.includes(name)) throw new Error(`no family ${name}; there are ${families.join(', ')}`)

const ceilings = await measureCeilings()
const rows = []
for (const family of asked.length > 0 ? asked : families) {
  const { benchmarks } = await import(`./families/${family}.mjs`)
  for (const { name, queue, work, free } of benchmarks()) {
    rows.push(row(`${family}: ${name}`, await time(queue), work, ceilings))
    free()
  }
}
printTable(rows, ceilings)
writeJson({ device: device.name, ceilings, rows })
