import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { readPytorchCheckpoint } from '../../dist/formats/pytorch-checkpoint.js'
import {
  global,
  legacyHead,
  type PicklePart,
  pickle,
  pickleStateDict,
  type TensorToPickle,
  text,
  writeLegacyCheckpoint,
  writeZipCheckpoint,
  zipEntries,
} from '../helpers/formats/pytorch.js'
import { refusesCheaply } from '../helpers/formats/refusals.js'
import { writeZip } from '../helpers/formats/zip.js'

const fixtures = fileURLToPath(new URL('../../test/fixtures/pytorch/', import.meta.url))

const floats = (...values: number[]): Uint8Array => new Uint8Array(Float32Array.from(values).buffer)
const two: TensorToPickle[] = [
  { name: 'a', dtype: 'F32', shape: [2, 2], data: floats(1, 2, 3, 4) },
  { name: 'b', dtype: 'F32', shape: [1], data: floats(5) },
]

t.test('what PyTorch wrote, in both layouts', async (t) => {
  const eighths = Array.from({ length: 12 }, (_, i) => i / 8)
  const expected: [name: string, dtype: string, shape: number[], values: number[]][] = [
    ['words', 'F32', [4, 3], eighths],
    ['tied', 'F32', [4, 3], eighths],
    ['part', 'F32', [2, 3], [3, 4, 5, 6, 7, 8]],
    ['transposed', 'F32', [3, 4], [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]],
    ['every_other', 'F32', [6], [0, 2, 4, 6, 8, 10]],
    ['scalar', 'F32', [], [2.5]],
    ['empty', 'F32', [0, 7], []],
    ['half', 'F16', [3], [1, -2, 65504]],
    ['bfloat', 'BF16', [3], [1, -2.5, 1.765625 * 2 ** 127]],
    ['double', 'F64', [1], [Math.fround(0.1)]],
  ]
  for (const layout of ['zip', 'legacy']) {
    using file = readPytorchCheckpoint(join(fixtures, `${layout}.bin`))
    for (const [name, dtype, shape, values] of expected) {
      t.match(file.info(name), { dtype, shape }, `${layout}: ${name}`)
      t.strictSame([...file.float32(name)], values.map(Math.fround), `${layout}: ${name}`)
    }
    t.strictSame([...file.int32('ids')], [0, 1, 2, 3, 4])
    t.strictSame(file.info('ids').shape, [1, 5])
    t.strictSame([...file.bytes('int32')], [249, 255, 255, 255])
    t.strictSame([...file.bytes('int16')], [0xd4, 0xfe])
    t.strictSame([...file.bytes('int8')], [253])
    t.strictSame([...file.bytes('uint8')], [200])
    t.strictSame([...file.bytes('bool')], [1, 0])
    t.match(file.info('bool'), { dtype: 'BOOL' })
    t.equal(file.names.length, 16)
    t.throws(() => file.bytes('no'), { code: 'ERR_ARGUMENT' })
  }
  const closed = readPytorchCheckpoint(join(fixtures, 'zip.bin'))
  closed.close()
  t.throws(() => closed.bytes('words'), { code: 'ERR_DISPOSED' })
})

t.test('a whole model is refused by the name of what it would run', async (t) => {
  t.throws(() => readPytorchCheckpoint(join(fixtures, 'whole-model.bin')), {
    code: 'ERR_FORMAT',
    message: /asks for "torch\.nn\.modules\.linear\.Linear", which no tensor needs/,
  })
})

t.test('files of the tests’ own writer', async (t) => {
  const path = join(t.testdir(), 'x.bin')
  const open = (bytes: Uint8Array): Record<string, number[]> => {
    writeFileSync(path, bytes)
    using file = readPytorchCheckpoint(path)
    return Object.fromEntries(file.names.map((name) => [name, [...file.float32(name)]]))
  }
  const same = { a: [1, 2, 3, 4], b: [5] }
  const entries = zipEntries(pickleStateDict(two), two)
  t.strictSame(open(writeZipCheckpoint(two)), same)
  t.strictSame(open(writeLegacyCheckpoint(two)), same)
  t.strictSame(open(writeZip(entries, { zip64: true })), same, 'zip64')
  t.strictSame(open(writeZip(entries.map((entry) => ({ ...entry, deflate: true })))), same, 'deflated')
  t.strictSame(
    open(Buffer.concat([writeZipCheckpoint(two).subarray(0, -2), Buffer.from([3, 0, 1, 2, 3])])),
    same,
    'comment',
  )

  const inner = pickleStateDict(two).subarray(2, -1)
  const nested = pickle(0x80, 2, '}', text('epoch'), 'K', 3, 's', text('state_dict'), inner, 's.')
  t.strictSame(open(writeZip(zipEntries(nested, two))), same, 'the weights of a training script')

  const [a] = two as [TensorToPickle]
  const views: TensorToPickle[] = [
    { ...a, name: 'turned', key: 'k', strides: [1, 2] },
    { ...a, name: 'row', key: 'k', shape: [2], offset: 2 },
    { ...a, name: 'spread', key: 'k', shape: [1, 4], strides: [99, 1] },
    { ...a, name: 'none', key: 'k', shape: [3, 0], strides: [7, 7], offset: 4 },
  ]
  for (const write of [writeZipCheckpoint, writeLegacyCheckpoint]) {
    t.strictSame(open(write(views)), { turned: [1, 3, 2, 4], row: [3, 4], spread: [1, 2, 3, 4], none: [] })
  }
})

/** A pickle that is the whole of a legacy file's state dict. */
const alone = (...parts: PicklePart[]): Buffer => writeLegacyCheckpoint([], pickle(0x80, 2, ...parts))
const zipOf = (pickled: Uint8Array): Buffer => writeZip(zipEntries(pickled, []))
const [a, b] = two as [TensorToPickle, TensorToPickle]
const view = (changes: Partial<TensorToPickle>): Buffer => writeZipCheckpoint([{ ...a, ...changes }])
const entries = zipEntries(pickleStateDict(two), two)
const [first, second, ...rest] = entries as [(typeof entries)[0], (typeof entries)[0]]
const good = writeZipCheckpoint(two)
const mebibyte = Buffer.alloc(2 ** 20)

const hostile: [what: string, file: Uint8Array, message: RegExp][] = [
  [
    'system',
    alone(global('posix', 'system'), text('touch /tmp/owned'), 0x85, 'R.'),
    /asks for "posix\.system"/,
  ],
  [
    'eval',
    zipOf(pickle(0x80, 2, global('builtins', 'eval'), text('1'), 0x85, 'R.')),
    /asks for "builtins\.eval"/,
  ],
  ['a global from the stack', alone(text('os'), text('system'), 0x93, '.'), /asks for "os\.system"/],
  ['a cousin of an allowed one', alone(global('torch._utils', '_import_dotted_name'), '.'), /asks for/],
  ['a prototype’s name', alone(global('constructor', 'x'), '.'), /asks for "constructor\.x"/],
  [
    'a global in the head',
    Buffer.concat([legacyHead.subarray(0, 15), global('os', 'system'), Buffer.from('.')]),
    /its head asks for/,
  ],
  ['INST', alone('(', text('x'), 'ios\nsystem\n.'), /opcode 0x69 is not one/],
  ['OBJ', alone('(', global('collections', 'OrderedDict'), 'o.'), /opcode 0x6f is not one/],
  ['NEWOBJ', alone(global('collections', 'OrderedDict'), ')', 0x81, '.'), /opcode 0x81 is not one/],
  ['EXT1', alone(0x82, 1, '.'), /opcode 0x82 is not one/],
  ['an empty stack', alone('.'), /the stack is empty/],
  ['no mark', alone('t.'), /a mark is missing/],
  ['a mark popped', alone('(0.'), /the stack is empty/],
  ['a value that was never kept', alone('h', 5, '.'), /never kept/],
  ['a list called', alone(']', ')', 'R.'), /is called that is no function/],
  ['a state on a list', alone(']', '}', 'b.'), /a state is set on what is no dict/],
  ['no dict', alone('].'), /no dict of tensors/],
  ['a number as tensor', alone('}', text('x'), 'K', 1, 's.'), /member "x" is no tensor/],
  ['a string that is too long', alone('X', 0xff, 0xff, 0xff, 0x7f, 'x.'), /a pickle ends early/],
  ['a long integer', alone(0x8a, 200, '.'), /an integer of 200 bytes/],
  ['protocol 9', writeLegacyCheckpoint([], pickle(0x80, 9, 'N.')), /pickle protocol 9/],
  ['no end', alone(Buffer.alloc(300_000, 'N')), /more than 250000 opcodes/],
  ['deep nesting', alone(Buffer.alloc(100_000, ')'), Buffer.alloc(99_999, 0x86), '.'), /no dict of tensors/],
  [
    'one list in many dicts',
    alone(
      ...[']q', 0, '(', Buffer.alloc(50_000, ')'), 'e0('],
      ...Array.from({ length: 100 }, () => pickle(global('collections', 'OrderedDict'), 'h', 0, 0x85, 'R')),
      't.',
    ),
    /not made of pairs/,
  ],
  ['many axes', view({ shape: Array(65).fill(1) }), /at most 64 whole numbers/],
  ['a size below 0', view({ shape: [-1] }), /whole numbers, 0 or more/],
  ['sizes without strides', view({ shape: [2, 2], strides: [1] }), /as many strides as sizes/],
  ['beyond the storage', view({ shape: [2, 3] }), /does not fit in storage "a" of 4 elements/],
  ['an offset beyond the storage', view({ offset: 2 ** 50 }), /does not fit/],
  ['a stride beyond the storage', view({ strides: [3, 1] }), /does not fit/],
  ['a huge tensor of one number', view({ shape: [2 ** 20, 2 ** 20], strides: [0, 0] }), /does not fit/],
  ['sizes that overflow', view({ shape: [2 ** 40, 2 ** 40], strides: [0, 0] }), /larger than any file/],
  ['a storage described twice', writeZipCheckpoint([a, { ...b, key: 'a' }]), /described twice, differently/],
  [
    'a storage of another size',
    writeZip([first, { ...second, data: floats(1) }, ...rest]),
    /storage "a" has 4 bytes; expected 16/,
  ],
  ['a storage that is missing', writeZip([first, ...rest]), /entry "archive\/data\/a" is missing/],
  [
    'a storage with no elements of its own',
    zipOf(pickle(0x80, 2, text('storage'), 'Q.')),
    /not described as PyTorch does/,
  ],
  [
    'other order of bytes',
    writeZip([first, { name: 'archive/byteorder', data: Buffer.from('big') }]),
    /not little-endian/,
  ],
  ['no pickle', writeZip(rest), /0 entries named ROOT\/data\.pkl/],
  ['two pickles', writeZip([first, { ...first, name: 'other/data.pkl' }]), /2 entries named/],
  [
    'a bomb',
    writeZip([first, { name: 'x', data: mebibyte, deflate: true, claims: { unpacked: 2 ** 40 } }], {
      zip64: true,
    }),
    /unpack to \d+ bytes/,
  ],
  [
    'a pickle that unpacks further than it says',
    writeZip([{ ...first, data: mebibyte, deflate: true, claims: { unpacked: 50 } }]),
    /does not unpack/,
  ],
  [
    'a pickle that unpacks to less',
    writeZip([{ ...first, deflate: true, claims: { unpacked: 2 ** 20 } }]),
    /unpacks to \d+ bytes/,
  ],
  [
    'entries that overlap',
    writeZip([first, second, { ...second, name: 'archive/data/z', claims: { header: 40 } }]),
    /overlaps/,
  ],
  [
    'an entry beyond the file',
    writeZip([first, { ...second, claims: { packed: 1e6, unpacked: 1e6 } }]),
    /reaches past the data/,
  ],
  ['an entry twice', writeZip([first, first]), /stands twice/],
  ['a zip cut short', good.subarray(0, -30), /no list of entries/],
  ['four bytes', good.subarray(0, 4), /4 bytes are too few/],
  ['a legacy file cut short', writeLegacyCheckpoint(two).subarray(0, -3), /cut short in storage "b"/],
  ['nothing', Buffer.alloc(0), /neither as a zip archive nor/],
  ['text', Buffer.from('version https://git-lfs.github.com/spec/v1\n'), /neither as a zip archive nor/],
]

t.test('hostile and damaged files are ERR_FORMAT, within a second and 200 MB', async (t) => {
  const folder = t.testdir()
  for (const [what, bytes, message] of hostile) {
    const path = join(folder, 'x.bin')
    writeFileSync(path, bytes)
    refusesCheaply(t, () => readPytorchCheckpoint(path).close(), message, what)
  }
  mkdirSync(join(folder, 'folder.bin'))
  t.throws(() => readPytorchCheckpoint(join(folder, 'folder.bin')), { code: 'ERR_IO' })
  t.throws(() => readPytorchCheckpoint(join(folder, 'missing.bin')), { code: 'ERR_IO', message: /ENOENT/ })
})
