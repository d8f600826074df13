/** A hostile file must be refused before it has cost anything. */

interface Checks {
  ok(value: unknown, message: string): unknown
  match(value: unknown, pattern: unknown, message: string): unknown
}

/** ERR_FORMAT with this message, within a second of processor time (another process may hold the machine) and 200 MB. */
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
  t.ok(seconds < 1, `${what}: ${seconds} s`)
  t.ok(process.memoryUsage.rss() - before < 200e6, `${what}: memory`)
}
