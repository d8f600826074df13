import t from 'tap'
import { readSafetensorsHeader } from '../../dist/formats/safetensors-header.js'
import { dtypeBits } from '../../dist/formats/tensor-data.js'

/** A file of the format, from a header's text (or bytes) as it is and `dataLength` zero bytes. */
function fileOf(header: string | Uint8Array, dataLength = 0, statedLength?: bigint): Buffer {
  const json = Buffer.from(header)
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(statedLength ?? BigInt(json.length))
  return Buffer.concat([length, json, Buffer.alloc(dataLength)])
}

const tensor = (dtype: string, shape: string, begin: number | string, end: number | string): string =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":[${begin},${end}]}`

const parse = (file: Uint8Array): ReturnType<typeof readSafetensorsHeader> =>
  readSafetensorsHeader(file, 'x.safetensors')

t.test('the reader takes what the format allows', async (t) => {
  t.test(
    'scalars, tensors without elements, every element type, spaces, escapes, any order of keys',
    async (t) => {
      const rows: [header: string, data: number][] = [
        ['{}', 0],
        ['{}      ', 0],
        ['{"__metadata__":{}}', 0],
        ['{"__metadata__":{"format":"pt","":"\\u00e9\\ud83d\\ude00"}}', 0],
        [`{"scalar":${tensor('F32', '[]', 0, 4)}}`, 4],
        [`{"none":${tensor('F32', '[0]', 0, 0)}}`, 0],
        [`{"none":${tensor('F32', '[7,0,3]', 0, 0)},"one":${tensor('U8', '[1]', 0, 1)}}`, 1],
        [`{"last":${tensor('U8', '[1]', 4, 5)},"first":${tensor('F32', '[1]', 0, 4)}}`, 5],
        [`{ "a" :\n{ "data_offsets" : [ 0 , 4 ] ,\t"shape":[ 2, 1 ],\r"dtype":"I16" } } `, 4],
        [`{"":${tensor('BOOL', '[3]', 0, 3)}}`, 3],
        [`{"\\"\\\\\\u0041é😀":${tensor('I8', '[3]', 0, 3)}}`, 3],
        [`{"a":${tensor('F4', '[2,3]', 0, 3)}}`, 3],
        [`{"a":${tensor('F6_E2M3', '[4]', 0, 3)}}`, 3],
      ]
      for (const [header, data] of rows) t.doesNotThrow(() => parse(fileOf(header, data)), header)
      for (const [dtype, bits] of Object.entries(dtypeBits)) {
        const { tensors } = parse(fileOf(`{"a":${tensor(dtype, '[3,8]', 0, 3 * bits)}}`, 3 * bits))
        t.equal(tensors.get('a')?.byteLength, 3 * bits, dtype)
      }
    },
  )

  t.test('names and metadata come out decoded, even those that objects treat specially', async (t) => {
    const header = `{"__metadata__":{"__proto__":"x","a\\n":"é"},"__proto__":${tensor('U8', '[1]', 0, 1)},"constructor":${tensor('U8', '[]', 1, 2)}}`
    const { tensors, metadata } = parse(fileOf(header, 2))
    t.strictSame([...tensors.keys()], ['__proto__', 'constructor'])
    t.strictSame(Object.entries(metadata), [
      ['__proto__', 'x'],
      ['a\n', 'é'],
    ])
  })
})

t.test(
  'the reader refuses every broken rule with ERR_FORMAT that names the file and the trouble',
  async (t) => {
    const a = (text: string, data = 0): Buffer => fileOf(`{"a":${text}}`, data)
    const big = '9007199254740992'
    const rows: [what: string, file: Buffer, message: RegExp][] = [
      ['no bytes', Buffer.alloc(0), /0 bytes; expected at least the 8 bytes/],
      ['7 bytes', Buffer.alloc(7), /7 bytes/],
      ['a header of length 0', fileOf(''), /does not start with/],
      ['a header above 100 MB', fileOf('{}', 0, 100_000_001n), /at most 100000000/],
      ['a header of 2^64 - 1 bytes', fileOf('{}', 0, 2n ** 64n - 1n), /at most 100000000/],
      ['a header past the end of the file', fileOf('{}', 0, 3n), /header of 3 bytes in a file of 10/],
      ['a start that is not {', fileOf(' {}'), /does not start with/],
      ['a byte order mark', fileOf('\ufeff{}'), /does not start with/],
      ['a list', fileOf('[]'), /does not start with/],
      ['an open object', fileOf('{'), /end of the header, expected '"'/],
      ['text after the object', fileOf('{}{}'), /found '{', expected spaces only/],
      ['a NUL after the object', fileOf('{}\0'), /byte 0x0, expected spaces only/],
      ['a comma too many', fileOf('{"__metadata__":{},}'), /expected '"'/],
      ['an open string', fileOf('{"a'), /does not end/],
      ['an open escape', fileOf('{"a\\'), /does not end/],
      ['a wrong escape', fileOf(`{"\\x":${tensor('U8', '[0]', 0, 0)}}`), /wrong escape/],
      ['half a surrogate pair', fileOf(`{"\\ud800":${tensor('U8', '[0]', 0, 0)}}`), /half a surrogate pair/],
      ['a control character', fileOf(`{"\n":${tensor('U8', '[0]', 0, 0)}}`), /control character/],
      ['a name that is not UTF-8', fileOf(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a])), /not UTF-8/],
      ['UTF-8 of a surrogate', fileOf(Buffer.from([0x7b, 0x22, 0xed, 0xa0, 0x80, 0x22])), /not UTF-8/],
      ['metadata that are no strings', fileOf('{"__metadata__":{"a":1}}'), /__metadata__: found '1'/],
      ['metadata that nest', fileOf('{"__metadata__":{"a":{}}}'), /__metadata__: found '{'/],
      ['metadata twice', fileOf('{"__metadata__":{},"__metadata__":{}}'), /stands twice/],
      ['a metadata key twice', fileOf('{"__metadata__":{"a":"","\\u0061":""}}'), /key "a" stands twice/],
      ['deep nesting', fileOf(`{"a":${'['.repeat(100_000)}`), /expected '{'/],
      ['deep nesting in a shape', a(`{"shape":${'['.repeat(100_000)}`), /expected a whole number/],
      ['deep objects', fileOf('{"a":'.repeat(100_000)), /unknown key "a"/],
      [
        'a tensor twice',
        fileOf(`{"a":${tensor('U8', '[0]', 0, 0)},"a":${tensor('U8', '[0]', 0, 0)}}`),
        /"a" stands twice/,
      ],
      [
        'a tensor twice through an escape',
        fileOf(`{"a":${tensor('U8', '[0]', 0, 0)},"\\u0061":{}}`),
        /"a" stands twice/,
      ],
      ['no dtype', a('{"shape":[0],"data_offsets":[0,0]}'), /tensor "a": dtype is missing/],
      ['no shape', a('{"dtype":"U8","data_offsets":[0,0]}'), /tensor "a": shape is missing/],
      ['no offsets', a('{"dtype":"U8","shape":[0]}'), /tensor "a": data_offsets is missing/],
      ['one offset', a('{"dtype":"U8","shape":[0],"data_offsets":[0]}'), /data_offsets is missing or short/],
      ['three offsets', a('{"dtype":"U8","shape":[0],"data_offsets":[0,0,0]}'), /more than 2/],
      ['dtype twice', a('{"dtype":"U8","dtype":"U8"'), /dtype stands twice/],
      ['shape twice', a('{"shape":[],"shape":[]'), /shape stands twice/],
      ['offsets twice', a('{"data_offsets":[0,0],"data_offsets":[0,0]'), /data_offsets stands twice/],
      ['an unknown key', a('{"dtype":"U8","extra":{}'), /unknown key "extra"/],
      ['an unknown dtype', a(tensor('F33', '[1]', 0, 4), 4), /unknown dtype "F33"; expected one of BOOL/],
      ['a dtype that objects have', a(tensor('constructor', '[1]', 0, 4), 4), /unknown dtype/],
      ['null for a dtype', a('{"dtype":null'), /found 'n', expected '"'/],
      ['a negative size', a(tensor('U8', '[-1]', 0, 0)), /found '-', expected a whole number/],
      ['a fraction', a(tensor('U8', '[1.0]', 0, 1), 1), /found '\.', expected a whole number/],
      ['an exponent', a(tensor('U8', '[1e0]', 0, 1), 1), /found 'e', expected a whole number/],
      ['a leading zero', a(tensor('U8', '[01]', 0, 1), 1), /starts with 0/],
      ['a size above 2^53', a(tensor('U8', `[${big}]`, 0, 0)), /too large/],
      ['an offset above 2^64', a(tensor('U8', '[0]', 0, '18446744073709551616')), /too large/],
      ['sizes whose product overflows', a(tensor('U8', '[4294967296,4294967296]', 0, 0)), /overflows/],
      ['sizes that overflow to 0', a(tensor('U8', '[4294967296,4294967296,0]', 0, 0)), /overflows/],
      ['bits that overflow', a(tensor('F64', '[9007199254740991]', 0, 0)), /overflows/],
      ['1,000 dimensions', a(tensor('U8', `[${'1,'.repeat(999)}1]`, 0, 1), 1), /more than 64/],
      ['half a byte', a(tensor('F4', '[3]', 0, 2), 2), /does not fill whole bytes/],
      ['an end before the beginning', a(tensor('U8', '[0]', 4, 0), 4), /end before they begin/],
      [
        'fewer bytes than the shape',
        a(tensor('F32', '[2]', 0, 4), 4),
        /hold 4 bytes, but shape \[2\] of F32 takes 8/,
      ],
      [
        'more bytes than the shape',
        a(tensor('F32', '[]', 0, 8), 8),
        /hold 8 bytes, but shape \[\] of F32 takes 4/,
      ],
      ['an end past the file', a(tensor('U8', '[5]', 0, 5), 4), /ends at 5, but the file holds 4/],
      ['a rest', a(tensor('U8', '[4]', 0, 4), 5), /end at 4, but the file holds 5/],
      ['data without tensors', fileOf('{}', 1), /end at 0, but the file holds 1/],
      ['a hole at the start', a(tensor('U8', '[4]', 1, 5), 5), /leaves a hole: it begins at 1, expected 0/],
      [
        'a hole',
        fileOf(`{"a":${tensor('U8', '[1]', 0, 1)},"b":${tensor('U8', '[1]', 2, 3)}}`, 3),
        /"b" leaves a hole/,
      ],
      [
        'an overlap',
        fileOf(`{"a":${tensor('U8', '[2]', 0, 2)},"b":${tensor('U8', '[2]', 1, 3)}}`, 3),
        /"b" overlaps/,
      ],
      [
        'the same place twice',
        fileOf(`{"a":${tensor('U8', '[2]', 0, 2)},"b":${tensor('U8', '[2]', 0, 2)}}`, 2),
        /overlaps/,
      ],
      ['an empty tensor in a hole', fileOf(`{"a":${tensor('U8', '[0]', 1, 1)}}`, 1), /leaves a hole/],
    ]
    for (const [what, file, message] of rows) {
      t.throws(() => parse(file), { code: 'ERR_FORMAT', message }, what)
      t.throws(() => parse(file), { message: /^x\.safetensors: / }, `${what}: the file is named`)
    }
  },
)

t.test('a long hostile name is cut in messages', async (t) => {
  const error = (() => {
    try {
      parse(fileOf(`{"${'n'.repeat(1_000_000)}":{"dtype":"?"`))
    } catch (caught) {
      return caught as Error
    }
    return undefined
  })()
  t.ok(error !== undefined && error.message.length < 1000)
})

t.test('hostile headers of megabytes are refused quickly', async (t) => {
  const many = Array.from({ length: 60_000 }, (_, i) => `"t${i}":${tensor('U8', '[0]', 0, 0)}`)
  const rows: [what: string, file: Buffer][] = [
    ['60,000 tensors that end in a duplicate', fileOf(`{${many.join(',')},"t0":{}}`)],
    ['an 8 MB shape', fileOf(`{"a":{"shape":[${'1,'.repeat(4_000_000)}1]}}`)],
    ['an 8 MB number', fileOf(`{"a":{"shape":[${'9'.repeat(8_000_000)}]}}`)],
    ['8 MB of backslashes', fileOf(`{"${'\\'.repeat(8_000_001)}`)],
    ['8 MB of brackets', fileOf(`{"a":${'['.repeat(8_000_000)}`)],
    ['8 MB of spaces', fileOf(`{${' '.repeat(8_000_000)}`)],
  ]
  for (const [what, file] of rows) {
    const start = performance.now()
    t.throws(() => parse(file), { code: 'ERR_FORMAT' }, what)
    // Measured at 0.2 s for the slowest on a slow core; quadratic work would take minutes.
    t.ok(performance.now() - start < 5000, `${what}: within 5 s`)
  }
})

/** A small generator of numbers for random cases: a 32-bit xorshift. */
function random(seed: number): (limit: number) => number {
  let state = seed | 1
  return (limit) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % limit
  }
}

t.test('damaged files are read whole or refused with ERR_FORMAT, never anything else', async (t) => {
  const names = ['a', 'bé', '__metadata__']
  const header = `{"${names[2]}":{"format":"pt"},"${names[0]}":${tensor('F32', '[2,3]', 0, 24)},"${names[1]}":${tensor('I64', '[2]', 24, 40)}}`
  const good = fileOf(header, 40)
  const pieces = [
    '"',
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '0',
    '9'.repeat(17),
    '\\',
    '\\u0000',
    'F16',
    '\0',
    '-',
    '1e9',
    'null',
  ]
  const seed = Number(process.env.VOLTAIC_TEST_SEED ?? 20260301)
  const next = random(seed)
  let refused = 0
  for (let round = 0; round < 20_000; round++) {
    let file = Buffer.from(good)
    for (let edits = 1 + next(3); edits > 0; edits--) {
      const at = next(file.length)
      const kind = next(4)
      if (kind === 0) file[at] = next(256)
      else if (kind === 1) file = Buffer.concat([file.subarray(0, at), file.subarray(at + 1 + next(8))])
      else if (kind === 2) file = file.subarray(0, Math.max(at, 1))
      else {
        const piece = Buffer.from(pieces[next(pieces.length)] as string)
        file = Buffer.concat([file.subarray(0, at), piece, file.subarray(at)])
        // Half of the insertions keep the stated length right, so that they reach the parser.
        if (next(2) === 0 && file.length >= 8) file.writeBigUInt64LE(BigInt(Math.max(0, file.length - 48)))
      }
    }
    try {
      const { tensors, dataOffset } = parse(file)
      let total = 0
      for (const { byteLength } of tensors.values()) total += byteLength
      if (dataOffset + total !== file.length)
        t.fail(`accepted a file that does not add up; seed ${seed}, round ${round}`)
    } catch (error) {
      refused += 1
      if ((error as { code?: string }).code !== 'ERR_FORMAT') {
        t.fail(`seed ${seed}, round ${round}: ${error}`)
      }
    }
  }
  t.ok(refused > 10_000, `${refused} of 20,000 refused`)
})
