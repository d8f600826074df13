/** What a call costs, measured in a process of its own, where nothing else has taken memory before or takes time beside it. */
import { execFileSync } from 'node:child_process'

export interface Cost {
  readonly code: string
  readonly message: string
  /** Of processor time, all threads. */
  readonly seconds: number
  /** The most memory that was resident at once, above what was before. */
  readonly megabytes: number
}

/**
 * What a refusal may cost. The project's bound is a second of processor time, and the dearest file here was measured at 0.7; tests
 * admit five, since a slow core that other processes share takes some times as long, and work without a bound takes minutes.
 */
const most = { seconds: 5, megabytes: 200 }

export function checkCost(
  t: { ok(value: unknown, message: string): unknown },
  { seconds, megabytes }: Pick<Cost, 'seconds' | 'megabytes'>,
  what: string,
): void {
  t.ok(seconds < most.seconds, `${what}: ${seconds} s`)
  t.ok(megabytes < most.megabytes, `${what}: ${megabytes} MB`)
}

const program = `
import { readFileSync, writeFileSync } from 'node:fs'
const [url, name, ...args] = process.argv.slice(1)
const call = (await import(url))[name]
const kilobytes = (key) => Number(new RegExp(key + ':\\\\s+(\\\\d+)').exec(readFileSync('/proc/self/status', 'utf8'))[1])
// The peak from here on.
writeFileSync('/proc/self/clear_refs', '5')
const before = kilobytes('VmRSS')
const start = process.cpuUsage()
let result = { code: 'none', message: 'accepted' }
try {
  await call(...args)
} catch ({ code = 'none', message }) {
  result = { code, message }
}
const { user, system } = process.cpuUsage(start)
const cost = { ...result, seconds: (user + system) / 1e6, megabytes: (kilobytes('VmHWM') - before) / 1e3 }
process.stdout.write(JSON.stringify(cost))
`

/** @param file a module of dist/; `name` a function of it that takes strings */
export function costOf(file: string, name: string, ...args: string[]): Cost {
  const url = new URL(`../../dist/${file}`, import.meta.url).href
  const output = execFileSync(process.execPath, ['--input-type=module', '-e', program, url, name, ...args])
  return JSON.parse(output.toString())
}
