import { execFile } from 'node:child_process'
import { appendFileSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { crc32c, maskedCrc32c } from '../../dist/formats/crc32c.js'
import { openMetricsLog } from '../../dist/training/metrics-log.js'
import { openEventLog, tfRecord } from '../../dist/training/tensorboard.js'

const stepsIn = (path: string): number[] =>
  readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => (JSON.parse(line) as { step: number }).step)

t.test('metrics.jsonl', async (t) => {
  t.test('gets one JSON object a line, at once', async (t) => {
    const path = join(t.testdir(), 'metrics.jsonl')
    const log = openMetricsLog(path)
    log.append({ step: 1, loss: 44.5, split: 'validation' })
    t.equal(readFileSync(path, 'utf8'), '{"step":1,"loss":44.5,"split":"validation"}\n')
    log.append({ step: 2, loss: Number.NaN })
    t.equal(readFileSync(path, 'utf8').split('\n')[1], '{"step":2,"loss":null}')
    t.equal(log.position, readFileSync(path).length)
    await log.sync()
    t.throws(() => log.append({ step: 1.5 }), { code: 'ERR_ARGUMENT', message: /step is 1\.5/ })
    log.close()
    log.close()
    t.throws(() => log.append({ step: 3 }), { code: 'ERR_DISPOSED' })
  })

  t.test('has each row once after a resume at a checkpoint’s position', async (t) => {
    const path = join(t.testdir(), 'metrics.jsonl')
    const log = openMetricsLog(path)
    for (let step = 1; step <= 10; step++) log.append({ step, text: 'é' })
    const { position } = log
    for (let step = 11; step <= 15; step++) log.append({ step })
    log.close()
    appendFileSync(path, '{"step":16,"lo')
    const resumed = openMetricsLog(path, { resume: { position } })
    for (let step = 11; step <= 20; step++) resumed.append({ step })
    resumed.close()
    t.strictSame(
      stepsIn(path),
      Array.from({ length: 20 }, (_, i) => i + 1),
    )
  })

  t.test(
    'has each row once after a resume at a step, with a last line that was cut off anywhere',
    async (t) => {
      const path = join(t.testdir(), 'metrics.jsonl')
      const rows = [1, 2, 3, 3, 4, 5].map((step) => `{"step":${step},"loss":0.5}\n`).join('')
      for (let length = rows.length; length >= 0; length -= 3) {
        writeFileSync(path, rows.slice(0, length))
        const log = openMetricsLog(path, { resume: { step: 3 } })
        log.append({ step: 4 })
        log.close()
        const kept = rows.slice(0, Math.min(length, rows.indexOf('{"step":4'))).split('\n').length - 1
        t.strictSame(stepsIn(path), [...[1, 2, 3, 3].slice(0, kept), 4], `${length} bytes`)
      }
    },
  )

  t.test('drops zeros that a power cut left at the end', async (t) => {
    const path = join(t.testdir(), 'metrics.jsonl')
    writeFileSync(path, `{"step":1}\n${'\0'.repeat(50)}\n`)
    openMetricsLog(path, { resume: { step: 9 } }).close()
    t.equal(readFileSync(path, 'utf8'), '{"step":1}\n')
  })

  t.test('is not cut by guess where a line in its middle is damaged', async (t) => {
    const text = '{"step":1}\nrubbish\n{"step":3}\n'
    const path = join(t.testdir({ 'metrics.jsonl': text }), 'metrics.jsonl')
    t.throws(() => openMetricsLog(path, { resume: { step: 9 } }), {
      code: 'ERR_FORMAT',
      message: /line 2 is no row/,
    })
    t.equal(readFileSync(path, 'utf8'), text)
  })

  t.test('that is shorter than the checkpoint saw is refused, not continued with a gap', async (t) => {
    const path = join(t.testdir({ 'metrics.jsonl': '{"step":1}\n' }), 'metrics.jsonl')
    t.throws(() => openMetricsLog(path, { resume: { position: 12 } }), {
      code: 'ERR_FORMAT',
      message: /11 bytes, but the checkpoint saw 12: records are missing/,
    })
  })

  t.test('starts afresh without a resume', async (t) => {
    const path = join(t.testdir({ 'metrics.jsonl': '{"step":1}\n' }), 'metrics.jsonl')
    openMetricsLog(path).close()
    t.equal(readFileSync(path, 'utf8'), '')
  })

  t.test('that cannot be written is ERR_IO', async (t) => {
    const folder = t.testdir({ file: 'x' })
    t.throws(() => openMetricsLog(join(folder, 'file', 'metrics.jsonl')), {
      code: 'ERR_IO',
      message: /ENOTDIR/,
    })
    const log = openMetricsLog('/dev/full', { resume: { position: 0 } })
    t.throws(() => log.append({ step: 1 }), { code: 'ERR_IO', message: /ENOSPC/ })
    t.equal(log.position, 0)
    log.close()
  })

  t.test('takes back the part of a row that did not fit, so that the next one starts a line', async (t) => {
    const folder = t.testdir()
    const path = join(folder, 'metrics.jsonl')
    const module = new URL('../../dist/training/metrics-log.js', import.meta.url).href
    // The limit on a file's size stands in for a full disk: the row that crosses it is written in part.
    const script = `
      import { openMetricsLog } from ${JSON.stringify(module)}
      const log = openMetricsLog(${JSON.stringify(path)})
      log.append({ step: 1, text: 'x'.repeat(60_000) })
      try { log.append({ step: 2, text: 'x'.repeat(60_000) }) } catch (error) { console.log(error.code) }
      log.append({ step: 3 })
      console.log(log.position)`
    const { stdout } = await promisify(execFile)('bash', [
      '-c',
      'ulimit -f 64; exec "$0" --input-type=module -e "$1"',
      process.execPath,
      script,
    ])
    t.equal(stdout, `ERR_IO\n${readFileSync(path).length}\n`)
    t.strictSame(stepsIn(path), [1, 3])
  })
})

t.test('checksums are CRC-32C', async (t) => {
  // RFC 3720, B.4, and the check value of the catalogue of CRCs.
  t.equal(crc32c(Buffer.from('123456789')), 0xe3069283)
  t.equal(crc32c(Buffer.alloc(32)), 0x8a9136aa)
  t.equal(crc32c(Buffer.alloc(32, 0xff)), 0x62a8ab43)
  t.equal(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e)
  t.equal(crc32c(new Uint8Array(0)), 0)
  const rotated = (((0xe3069283 >>> 15) | (0xe3069283 << 17)) >>> 0) + 0xa282ead8
  t.equal(maskedCrc32c(Buffer.from('123456789')), rotated % 2 ** 32)
})

/** Takes a file of records apart, checksums checked. */
function recordsOf(file: Buffer): Buffer[] {
  const records: Buffer[] = []
  for (let at = 0; at < file.length; ) {
    const length = Number(file.readBigUInt64LE(at))
    if (file.readUInt32LE(at + 8) !== maskedCrc32c(file.subarray(at, at + 8)))
      throw new Error('length checksum')
    const message = file.subarray(at + 12, at + 12 + length)
    if (file.readUInt32LE(at + 12 + length) !== maskedCrc32c(message)) throw new Error('message checksum')
    records.push(message)
    at += 16 + length
  }
  return records
}

/** Reads a protocol buffer's fields: number to values, as numbers or bytes. */
function fieldsOf(message: Buffer): Map<number, (number | Buffer)[]> {
  const fields = new Map<number, (number | Buffer)[]>()
  let at = 0
  const varint = (): number => {
    let value = 0
    for (let scale = 1; ; scale *= 128) {
      const byte = message.readUInt8(at++)
      value += (byte & 0x7f) * scale
      if (byte < 0x80) return value
    }
  }
  while (at < message.length) {
    const key = varint()
    let value: number | Buffer
    if (key % 8 === 0) value = varint()
    else if (key % 8 === 1) {
      value = message.readDoubleLE(at)
      at += 8
    } else if (key % 8 === 5) {
      value = message.readFloatLE(at)
      at += 4
    } else {
      const length = varint()
      value = message.subarray(at, at + length)
      at += length
    }
    fields.set(key >> 3, [...(fields.get(key >> 3) ?? []), value])
  }
  return fields
}

interface Scalars {
  readonly wallTime: unknown
  readonly step: unknown
  readonly values: Readonly<Record<string, unknown>>
}

function scalarsIn(path: string): Scalars[] {
  const [first, ...events] = recordsOf(readFileSync(path)).map(fieldsOf)
  if (String(first?.get(3)?.[0]) !== 'brain.Event:2') throw new Error('no file version')
  return events.map((event) => {
    const summary = fieldsOf(event.get(5)?.[0] as Buffer)
    const values = (summary.get(1) ?? []).map((value) => {
      const fields = fieldsOf(value as Buffer)
      return [String(fields.get(1)?.[0]), fields.get(2)?.[0]]
    })
    return { wallTime: event.get(1)?.[0], step: event.get(2)?.[0], values: Object.fromEntries(values) }
  })
}

t.test('TensorBoard events', async (t) => {
  t.test('are framed and coded as TensorBoard reads them', async (t) => {
    const folder = t.testdir()
    let clock = 1_700_000_000.5
    const log = openEventLog(folder, { now: () => clock })
    t.equal(log.fileName, 'events.out.tfevents.1700000000.voltaic')
    clock += 1
    log.scalars(1, { loss: 44.5, 'generator/loss': 10.25 })
    log.scalars(2 ** 40 + 3, { loss: Number.POSITIVE_INFINITY })
    await log.sync()
    const file = readFileSync(join(folder, log.fileName))
    t.equal(log.position, file.length)
    log.close()
    t.strictSame(scalarsIn(join(folder, log.fileName)), [
      { wallTime: 1_700_000_001.5, step: 1, values: { loss: 44.5, 'generator/loss': 10.25 } },
      { wallTime: 1_700_000_001.5, step: 2 ** 40 + 3, values: { loss: Number.POSITIVE_INFINITY } },
    ])
    // The first record (wall time 1700000000.5, file version) from an independent implementation of the framing.
    const first = '1800000000000000a37f4b220900002040fc54d9411a0d627261696e2e4576656e743a322b353110'
    t.equal(file.subarray(0, 40).toString('hex'), first)
    t.throws(() => log.scalars(-1, {}), { code: 'ERR_ARGUMENT' })
  })

  t.test('are the same bytes for the same clock', async (t) => {
    const write = (folder: string): Buffer => {
      const log = openEventLog(folder, { now: () => 1e9 })
      for (let step = 0; step < 300; step += 100) log.scalars(step, { loss: 1 / (step + 3) })
      log.close()
      return readFileSync(join(folder, log.fileName))
    }
    const folder = t.testdir({ a: {}, b: {} })
    t.strictSame(write(join(folder, 'a')), write(join(folder, 'b')))
  })

  t.test('stand once each after a resume, in the same file', async (t) => {
    const folder = t.testdir()
    const log = openEventLog(folder, { now: () => 1e9 })
    for (let step = 1; step <= 5; step++) log.scalars(step, { loss: step })
    const { fileName, position } = log
    for (let step = 6; step <= 8; step++) log.scalars(step, { loss: step })
    log.close()
    const path = join(folder, fileName)
    truncateSync(path, readFileSync(path).length - 5)
    const resumed = openEventLog(folder, { now: () => 2e9, resume: { fileName, position } })
    for (let step = 6; step <= 10; step++) resumed.scalars(step, { loss: step })
    resumed.close()
    t.strictSame(readdirSync(folder), [fileName])
    t.strictSame(
      scalarsIn(path).map(({ step }) => step),
      [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    )
  })

  t.test(
    'of an earlier run in the folder go when a run starts afresh; other programs’ files stay',
    async (t) => {
      const folder = t.testdir({
        'events.out.tfevents.0999999999.voltaic': 'old',
        'events.out.tfevents.1.host': 'other',
      })
      openEventLog(folder, { now: () => 1e9 }).close()
      t.strictSame(readdirSync(folder), [
        'events.out.tfevents.1.host',
        'events.out.tfevents.1000000000.voltaic',
      ])
    },
  )

  t.test('that a checkpoint counts on and that are missing are refused', async (t) => {
    const folder = t.testdir()
    const resume = { fileName: 'events.out.tfevents.1000000000.voltaic', position: 100 }
    t.throws(() => openEventLog(folder, { resume }), { code: 'ERR_FORMAT', message: /records are missing/ })
    const elsewhere = { fileName: '../events.out.tfevents.1000000000.voltaic', position: 0 }
    t.throws(() => openEventLog(folder, { resume: elsewhere }), { code: 'ERR_FORMAT' })
    t.throws(() => openEventLog(join(folder, 'missing')), { code: 'ERR_IO', message: /ENOENT/ })
  })

  t.test('a record is length, checksum, message, checksum', async (t) => {
    const record = tfRecord(Buffer.from('abc'))
    t.equal(record.length, 8 + 4 + 3 + 4)
    t.strictSame(recordsOf(Buffer.concat([record, tfRecord(Buffer.alloc(0))])).map(String), ['abc', ''])
  })
})
