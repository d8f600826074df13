// tap reporter: the raw TAP, then one plain closing line "N passed, N failed".
// Counts leaf assertions; a subtest or file that failed without a failing leaf of its
// own (crash, timeout, broken plan) counts as one failure.
import { Transform } from 'node:stream'
import { StringDecoder } from 'node:string_decoder'
import { Parser } from 'tap-parser'

function watch(parser, sum, done = () => {}) {
  let child = false
  let childBad = false
  let bad = false
  parser.on('child', (c) => {
    child = true
    watch(c, sum, (b) => {
      childBad = b
    })
  })
  parser.on('assert', (r) => {
    const summary = child
    const counted = childBad
    child = childBad = false
    const failed = !r.ok && !r.todo && !r.skip
    if (failed) bad = true
    if (summary) {
      if (failed && !counted) sum.failed++
      return
    }
    if (r.skip) sum.skipped++
    else if (r.todo) sum.todo++
    else if (r.ok) sum.passed++
    else sum.failed++
  })
  parser.on('bailout', () => {
    if (!sum.bail) {
      sum.bail = true
      sum.failed++
    }
    bad = true
  })
  parser.on('complete', () => done(bad))
}

export default class ClosingLine extends Transform {
  sum = { passed: 0, failed: 0, skipped: 0, todo: 0, bail: false }
  parser = new Parser()
  decoder = new StringDecoder('utf8')
  constructor() {
    super()
    watch(this.parser, this.sum)
  }
  _transform(chunk, _enc, cb) {
    this.parser.write(this.decoder.write(chunk))
    cb(null, chunk)
  }
  _flush(cb) {
    this.parser.end(this.decoder.end())
    const { passed, failed, skipped, todo } = this.sum
    if (skipped || todo) this.push(`# ${skipped} skipped, ${todo} todo\n`)
    this.push(`${passed} passed, ${failed} failed\n`)
    cb()
  }
}
