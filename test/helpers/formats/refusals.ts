/** A hostile file must be refused before it has cost anything. */
import { checkCost } from '../cost.js'

interface Checks {
  ok(value: unknown, message: string): unknown
  match(value: unknown, pattern: unknown, message: string): unknown
}

/** ERR_FORMAT with this message, at the cost that a refusal may have. */
export function refusesCheaply(t: Checks, open: () => void, message: RegExp, what: string): void {
  const before = process.memoryUsage.rss()
  const start = process.cpuUsage()
  let thrown: unknown
  try {
    open()
  } catch (error) {
    thrown = error
  }
  const { user, system } = process.cpuUsage(start)
  const seconds = (user + system) / 1e6
  t.match(thrown, { code: 'ERR_FORMAT', message }, what)
  checkCost(t, { seconds, megabytes: (process.memoryUsage.rss() - before) / 1e6 }, what)
}
