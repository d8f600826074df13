// A process that answers requests, one line of JSON each: `@{"result": …}` or `@{"error": …}` on its standard output; everything else
// it prints goes to a log. It is started when first asked, again after it died, and killed when an answer takes too long: a row that
// breaks a card's context costs that row alone.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'

export class LineServer {
  #options
  #child
  #waiting

  /** @param options name, command, args, env, and log(text) for what it prints beside its answers */
  constructor(options) {
    this.#options = options
  }

  #start() {
    const { name, command, args, env, log = () => undefined } = this.#options
    const child = spawn(command, args, {
      env: { ...process.env, ...env },
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    let last = ''
    const ended = (why) => {
      if (this.#child !== child) return
      this.#child = undefined
      const said = /^\s*(\S*Error\b.*)$/m.exec(last)?.[1]
      this.#settle({ error: { code: 'ERR_ENDED', message: `${name} ${why}${said ? `: ${said}` : ''}` } })
    }
    child.on('error', (error) => ended(`does not run: ${error.message}`))
    // A moment later, so that what it said last is read; not at 'close', since children of its own may hold the pipes.
    child.on('exit', (code, signal) =>
      setTimeout(() => ended(`ended with ${signal ?? `status ${code}`}`), 100),
    )
    child.stdin.on('error', () => undefined)
    child.stderr.setEncoding('utf8').on('data', (text) => {
      last = (last + text).slice(-4000)
      log(text)
    })
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (this.#child !== child) return
      if (line.startsWith('@')) this.#settle(JSON.parse(line.slice(1)))
      else log(`${line}\n`)
    })
    this.#child = child
  }

  #settle(answer) {
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.(answer)
  }

  /** What the process answers, or { error: { code, message } }. One request at a time. */
  async ask(request, milliseconds) {
    if (!this.#child) this.#start()
    const answer = new Promise((resolve) => {
      this.#waiting = resolve
    })
    const timer = setTimeout(() => {
      const seconds = Math.round(milliseconds / 1000)
      this.#settle({ error: { code: 'ERR_TIME', message: `took longer than ${seconds} s` } })
      this.stop()
    }, milliseconds)
    this.#child.stdin.write(`${JSON.stringify(request)}\n`)
    const { result, error } = await answer
    clearTimeout(timer)
    // Whatever a failed row left behind on the device, a new process begins without it.
    if (error && error.code !== 'ERR_UNSUPPORTED') this.stop()
    return error ? { error } : result
  }

  /** The process's number while it runs. */
  get pid() {
    return this.#child?.pid
  }

  stop() {
    const child = this.#child
    this.#child = undefined
    child?.kill('SIGKILL')
  }
}
