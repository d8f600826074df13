import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { crc32c } from '../../dist/formats/crc32c.js'
import { unpackSnappy } from '../../dist/formats/snappy.js'
import {
  findTensorflowCheckpoint,
  readTensorflowCheckpoint,
} from '../../dist/formats/tensorflow-checkpoint.js'
import { refusesCheaply } from '../helpers/formats/refusals.js'
import {
  packSnappy,
  type Variable,
  varint,
  writeBundle,
  writeCheckpoint,
  writeTable,
} from '../helpers/formats/tensorflow.js'

const floats = (...values: number[]): Uint8Array => new Uint8Array(Float32Array.from(values).buffer)
const variables: Variable[] = [
  { name: 'global_step', dtype: 9, shape: [], data: new Uint8Array(BigInt64Array.of(1000n).buffer) },
  { name: 'electra/a/kernel', shape: [2, 3], data: floats(1, 2, 3, 4, 5, 6) },
  { name: 'electra/a/bias', shape: [3], data: floats(7, 8, 9), shard: 1 },
  { name: 'electra/half', dtype: 19, shape: [1], data: Uint8Array.of(0, 0x3c) },
  { name: 'names', dtype: 7, shape: [1], data: Uint8Array.of(1, 65) },
]

t.test('the checksum is Castagnoli’s', async (t) => {
  t.equal(crc32c(Buffer.from('123456789')), 0xe3069283)
  t.equal(crc32c(Buffer.alloc(32)), 0x8a9136aa)
})

t.test('snappy', async (t) => {
  const round = (bytes: Uint8Array): Uint8Array | undefined => unpackSnappy(packSnappy(bytes), 1000)
  t.strictSame(round(Buffer.from('hello')), Uint8Array.from(Buffer.from('hello')))
  t.strictSame(round(Buffer.alloc(0)), new Uint8Array(0))
  const text = (...parts: (number | string)[]): string => {
    const packed = Buffer.concat(
      parts.map((part) => (typeof part === 'number' ? Buffer.of(part) : Buffer.from(part))),
    )
    return Buffer.from(unpackSnappy(packed, 1000) ?? 'damaged').toString()
  }
  t.equal(text(9, 2 << 2, 'abc', ((6 - 4) << 2) | 1, 3), 'abcabcabc', 'a copy that reaches into itself')
  t.equal(text(6, 2 << 2, 'abc', ((3 - 1) << 2) | 2, 3, 0), 'abcabc', 'a distance of two bytes')
  t.equal(text(6, 2 << 2, 'abc', ((3 - 1) << 2) | 3, 3, 0, 0, 0), 'abcabc', 'of four bytes')
  t.equal(text(61, 60 << 2, 60, 'x'.repeat(61)), 'x'.repeat(61), 'a long literal')
  t.equal(text(9, 2 << 2, 'abc', ((6 - 4) << 2) | 1, 4), 'damaged', 'a distance before the start')
  t.equal(text(9, 2 << 2, 'abc', ((6 - 4) << 2) | 1, 0), 'damaged', 'a distance of 0')
  t.equal(text(4, 2 << 2, 'abc'), 'damaged', 'too short')
  t.equal(text(2, 2 << 2, 'abc'), 'damaged', 'too long')
  t.equal(text(3, 2 << 2, 'ab'), 'damaged', 'cut short')
  t.equal(text(0xff, 0xff, 0xff, 0xff, 0x7f), 'damaged', 'a length that overflows')
  t.equal(text(0xff, 0x7f, 0), 'damaged', 'longer than allowed')
})

t.test('variables, in one block or several, plain or packed, in one data file or two', async (t) => {
  const folder = t.testdir()
  for (const options of [{}, { snappy: true }, { perBlock: 1 }, { perBlock: 2, snappy: true }]) {
    const prefix = join(folder, 'model.ckpt-1000')
    writeCheckpoint(prefix, variables, { ...options, shards: 2 })
    using checkpoint = readTensorflowCheckpoint(prefix)
    t.strictSame(checkpoint.names, ['electra/a/bias', 'electra/a/kernel', 'electra/half', 'global_step'])
    t.match(checkpoint.info('electra/a/kernel'), { dtype: 'F32', shape: [2, 3], byteLength: 24 })
    t.strictSame([...checkpoint.float32('electra/a/kernel')], [1, 2, 3, 4, 5, 6])
    t.strictSame([...checkpoint.float32('electra/a/bias')], [7, 8, 9])
    t.strictSame([...checkpoint.float32('electra/half')], [1])
    t.strictSame([...checkpoint.int32('global_step')], [1000])
  }
})

t.test('the checkpoint that a path means', async (t) => {
  const folder = t.testdir({ one: {}, two: {}, none: { 'a.txt': '' } })
  writeCheckpoint(join(folder, 'one', 'model.ckpt-5'), [])
  for (const step of [5, 10]) writeCheckpoint(join(folder, 'two', `model.ckpt-${step}`), [])
  const one = join(folder, 'one', 'model.ckpt-5')
  for (const path of [join(folder, 'one'), one, `${one}.index`, `${one}.data-00000-of-00001`, `${one}.meta`])
    t.equal(findTensorflowCheckpoint(path), one, path)
  t.equal(findTensorflowCheckpoint(join(folder, 'none')), undefined)
  t.equal(findTensorflowCheckpoint(join(folder, 'missing')), undefined)
  t.throws(() => findTensorflowCheckpoint(join(folder, 'two')), {
    code: 'ERR_ARGUMENT',
    message: /holds 2 TensorFlow checkpoints/,
  })
  const state =
    'model_checkpoint_path: "/elsewhere/model.ckpt-10"\nall_model_checkpoint_paths: "model.ckpt-5"\n'
  writeFileSync(join(folder, 'two', 'checkpoint'), state)
  t.equal(findTensorflowCheckpoint(join(folder, 'two')), join(folder, 'two', 'model.ckpt-10'))
})

/** A table whose index names its first block again and again. */
function sameBlock(times: number): Buffer {
  const entries = Array.from({ length: 10 }, (_, i): [string, Buffer] => [`x${i}`, Buffer.alloc(4000)])
  const blocks: Buffer[] = []
  const damage = (block: Buffer): Buffer => {
    blocks.push(block)
    if (blocks.length < 3) return block
    const handle = Buffer.concat([varint(0), varint(blocks[0]!.length)])
    const entry = Buffer.concat([Buffer.of(0, 1, handle.length, 0x6b), handle])
    return Buffer.concat([...Array(times).fill(entry), Buffer.of(0, 0, 0, 0, 1, 0, 0, 0)])
  }
  return writeTable(entries, { perBlock: 10, damage })
}

t.test('damaged and hostile checkpoints are ERR_FORMAT, within a second and 200 MB', async (t) => {
  const prefix = join(t.testdir(), 'm')
  const [, kernel] = variables as [Variable, Variable]
  const claiming = (claims: Variable['claims']): Buffer => writeBundle([{ ...kernel, claims: claims! }]).index
  const shaped = (shape: number[]): Buffer => writeBundle([{ ...kernel, shape }]).index
  const { index } = writeBundle([kernel])
  const flipped = Buffer.from(index)
  flipped[10]! ^= 1
  const footer = (handle: Buffer): Buffer => {
    const bytes = Buffer.from(index)
    bytes.fill(0, bytes.length - 48, bytes.length - 8)
    Buffer.concat([varint(0), varint(0), handle]).copy(bytes, bytes.length - 48)
    return bytes
  }
  const longNames = writeTable(
    Array.from({ length: 5000 }, (_, i) => ['x'.repeat(4000) + String(i).padStart(4, '0'), Buffer.of(8, 1)]),
    { perBlock: 5000 },
  )
  const cases: [what: string, index: Buffer, message: RegExp][] = [
    ['nothing', Buffer.alloc(0), /0 bytes are too few/],
    ['no magic', Buffer.alloc(100), /magic number of a table/],
    ['cut short', index.subarray(0, -1), /magic number of a table/],
    ['a bit turned', flipped, /another checksum/],
    ['a block beyond the file', footer(Buffer.concat([varint(2 ** 40), varint(5)])), /a block is said to be/],
    ['a block of a gigabyte', footer(Buffer.concat([varint(0), varint(2 ** 30)])), /a block is said to be/],
    ['a number that does not end', footer(Buffer.alloc(20, 0xff)), /a number does not end/],
    ['a thousand blocks that are one', sameBlock(1000), /more than \d+ bytes of entries/],
    ['names that share a long beginning', longNames, /more than \d+ bytes of names/],
    ['an entry of 5 KB', writeTable([['', Buffer.alloc(5000)]]), /an entry is too long/],
    ['no header', writeTable([]), /the header is missing/],
    ['no shards', writeTable([['', Buffer.alloc(0)]]), /says 0 files/],
    ['big-endian', writeTable([['', Buffer.of(8, 1, 16, 1)]]), /not little-endian/],
    [
      'a header that is no message',
      writeTable([['', Buffer.of(8, 1, 0xff)]]),
      /header: a number does not end/,
    ],
    [
      'an entry that is no message',
      writeTable([
        ['', Buffer.of(8, 1)],
        ['x', Buffer.of(0x0f)],
      ]),
      /unknown type 7/,
    ],
    ['an offset beyond the data', claiming({ offset: 8 }), /ends at byte 32 of .*, which has 24/],
    ['a huge offset', claiming({ offset: 2 ** 60 }), /ends at byte/],
    ['a size that is not the shape’s', claiming({ size: 23 }), /23 bytes are not those of shape \[2, 3\]/],
    ['a huge shape', shaped([2 ** 40, 2 ** 40]), /are not those of shape/],
    ['a size below 0', shaped([2 ** 64 - 1]), /larger than any file|not those/],
    ['many axes', shaped(Array(65).fill(1)), /65 axes/],
    ['slices', claiming({ sliced: true }), /is in slices/],
    ['another checksum', claiming({ crc: 5 }), /another checksum/],
    [
      'a shard too many',
      writeTable([
        ['', Buffer.of(8, 1)],
        ['x', Buffer.of(8, 1, 24, 3)],
      ]),
      /in file 3 of 1/,
    ],
  ]
  for (const [what, bytes, message] of cases) {
    writeCheckpoint(prefix, [kernel])
    writeFileSync(`${prefix}.index`, bytes)
    const open = (): void => {
      using checkpoint = readTensorflowCheckpoint(prefix)
      for (const name of checkpoint.names) checkpoint.bytes(name)
    }
    refusesCheaply(t, open, message, what)
  }
  t.throws(() => readTensorflowCheckpoint(join(prefix, 'no')), { code: 'ERR_IO' })
})
