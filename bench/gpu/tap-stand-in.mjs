// The part of tap that the device's tests use, for the bundle: tap itself is 142 MB. Same names, same output line at the end.
// npm run gpu:bundle puts it where `import t from 'tap'` finds it.
import assert from 'node:assert'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const sum = { total: 0, pass: 0, fail: 0, skip: 0 }
const waiting = []
const cleanups = []

/** Whether a value has what a pattern asks for: expressions match text, objects their fields, classes their instances. */
function matches(value, pattern) {
  if (pattern instanceof RegExp) return pattern.test(String(value))
  if (typeof pattern === 'function')
    return value instanceof pattern || (Object(value) !== value && Object(value) instanceof pattern)
  if (typeof pattern === 'string' && typeof value === 'string') return value.includes(pattern)
  if (Array.isArray(value) && !Array.isArray(pattern)) return value.some((entry) => matches(entry, pattern))
  if (typeof pattern !== 'object' || pattern === null) return Object.is(value, pattern)
  if (typeof value !== 'object' || value === null) return false
  return Object.entries(pattern).every(([key, wanted]) => matches(value[key], wanted))
}

/** Writes a tree of folders (objects) and files (text or bytes). */
function writeTree(folder, tree) {
  for (const [name, content] of Object.entries(tree)) {
    const place = join(folder, name)
    if (typeof content === 'string' || ArrayBuffer.isView(content)) writeFileSync(place, content)
    else {
      mkdirSync(place)
      writeTree(place, content)
    }
  }
}

const holds = (compare, ...values) => {
  try {
    compare(...values)
    return true
  } catch {
    return false
  }
}

class Tap {
  constructor(path) {
    this.path = path
  }

  #check(condition, what, detail) {
    sum.total++
    if (condition) sum.pass++
    else {
      sum.fail++
      console.log(
        `not ok ${[...this.path, what].filter(Boolean).join(' > ')}${detail ? `\n  ${detail}` : ''}`,
      )
      const at = new Error().stack.split('\n').find((line) => /\.test\.js|test-build/.test(line))
      if (at) console.log(`  ${at.trim()}`)
    }
    return condition
  }

  #compare(condition, found, wanted, what) {
    const short = (value) => String(typeof value === 'object' ? JSON.stringify(value) : value).slice(0, 200)
    return this.#check(condition, what, condition ? '' : `found ${short(found)}, wanted ${short(wanted)}`)
  }

  ok = (value, what) => this.#check(Boolean(value), what)
  notOk = (value, what) => this.#check(!value, what)
  pass = (what) => this.#check(true, what)
  fail = (what) => this.#check(false, what)
  equal = (found, wanted, what) => this.#compare(Object.is(found, wanted), found, wanted, what)
  not = (found, wanted, what) => this.#compare(!Object.is(found, wanted), found, wanted, what)
  same = (found, wanted, what) => this.#compare(holds(assert.deepEqual, found, wanted), found, wanted, what)
  notSame = (found, wanted, what) =>
    this.#compare(holds(assert.notDeepEqual, found, wanted), found, wanted, what)
  strictSame = (found, wanted, what) =>
    this.#compare(holds(assert.deepStrictEqual, found, wanted), found, wanted, what)
  match = (found, pattern, what) => this.#compare(matches(found, pattern), found, pattern, what)
  type = (found, wanted, what) =>
    this.#compare(
      typeof wanted === 'string' ? typeof found === wanted : matches(found, wanted),
      found,
      wanted,
      what,
    )
  comment = (...text) => console.log('#', ...text)
  setTimeout = () => undefined
  teardown = (cleanup) => cleanups.push(cleanup)

  #threw(error, wanted, what) {
    const [pattern, text] = typeof wanted === 'string' ? [undefined, wanted] : [wanted, what]
    if (error === undefined) return this.#check(false, text, 'nothing was thrown')
    const fits = pattern === undefined || matches(error.thrown, pattern)
    return this.#check(fits, text, fits ? '' : `thrown: ${error.thrown?.stack ?? error.thrown}`)
  }

  throws = (body, wanted, what) => {
    let error
    try {
      body()
    } catch (thrown) {
      error = { thrown }
    }
    return this.#threw(error, wanted, what)
  }

  doesNotThrow = (body, what) => this.#check(holds(body), what)

  rejects = async (promise, wanted, what) => {
    let error
    try {
      await (typeof promise === 'function' ? promise() : promise)
    } catch (thrown) {
      error = { thrown }
    }
    return this.#threw(error, wanted, what)
  }

  testdir = (tree = {}) => {
    const folder = mkdtempSync(join(tmpdir(), 'voltaic-test-'))
    writeTree(folder, tree)
    cleanups.push(() => rmSync(folder, { recursive: true, force: true }))
    return folder
  }

  /** Tests run one after the other, those inside a test when it awaits them or ends. */
  test = (name, options, body = options) => {
    const run = async () => {
      if (options.skip) {
        sum.skip++
        console.log(`ok ${name} # SKIP ${options.skip}`)
        return
      }
      const failed = sum.fail
      const inner = new Tap([...this.path, name])
      try {
        await body(inner)
      } catch (error) {
        inner.fail(error.stack ?? String(error))
      }
      console.log(`${sum.fail === failed ? 'ok' : 'not ok'} ${[...this.path, name].join(' > ')}`)
    }
    if (this.path.length > 0) return run()
    waiting.push(run)
    return Promise.resolve()
  }
}

export const t = new Tap([])
export default t

setImmediate(async () => {
  for (let run = waiting.shift(); run; run = waiting.shift()) await run()
  for (const cleanup of cleanups.reverse()) await cleanup()
  const parts = Object.entries(sum).filter(([name, count]) => count > 0 || name === 'total')
  console.log(`# { ${parts.map(([name, count]) => `${name}: ${count}`).join(', ')} }`)
  process.exitCode = sum.fail > 0 ? 1 : 0
})
