import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { readSafetensors, type TensorToWrite, writeSafetensors } from '../../dist/formats/safetensors.js'
import { type FileDtype, toFloat32, toInt32 } from '../../dist/formats/tensor-data.js'
import { needsSharedData, sharedData } from '../helpers/shared.js'

t.test('the writer', async (t) => {
  const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values)

  t.test('orders by element type descending, then by name, and pads the header to 8 bytes', async (t) => {
    const path = join(t.testdir(), 'x.safetensors')
    await writeSafetensors(path, [
      { name: 'b', dtype: 'F32', shape: [1], data: Float32Array.of(2) },
      { name: 'mask', dtype: 'BOOL', shape: [3], data: bytes(1, 0, 1) },
      { name: 'a', dtype: 'F32', shape: [], data: Float32Array.of(1) },
      { name: 'ids', dtype: 'I64', shape: [1], data: BigInt64Array.of(-1n) },
      { name: 'half', dtype: 'F16', shape: [1, 1], data: bytes(0, 0x3c) },
    ])
    const json =
      '{"__metadata__":{"format":"pt"},"ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},' +
      '"a":{"dtype":"F32","shape":[],"data_offsets":[8,12]},"b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]},' +
      '"half":{"dtype":"F16","shape":[1,1],"data_offsets":[16,18]},"mask":{"dtype":"BOOL","shape":[3],"data_offsets":[18,21]}}'
    const data = bytes(255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 128, 63, 0, 0, 0, 64, 0, 0x3c, 1, 0, 1)
    const padded = json.padEnd(Math.ceil(json.length / 8) * 8)
    const length = Buffer.alloc(8)
    length.writeBigUInt64LE(BigInt(padded.length))
    const expected = Buffer.concat([length, Buffer.from(padded), data])
    t.strictSame(readFileSync(path), expected)
  })

  t.test('orders names by code point, where JavaScript would order by UTF-16', async (t) => {
    const path = join(t.testdir(), 'x.safetensors')
    const names = ['😀', '\uffee', 'a', 'Z']
    await writeSafetensors(
      path,
      names.map((name): TensorToWrite => ({ name, dtype: 'U8', shape: [0], data: bytes() })),
    )
    using file = readSafetensors(path)
    t.strictSame(file.names, ['Z', 'a', '\uffee', '😀'])
  })

  t.test('takes data when their turn comes, one after another', async (t) => {
    const path = join(t.testdir(), 'x.safetensors')
    let open = 0
    const make = (value: number) => async (): Promise<Uint8Array> => {
      open += 1
      t.equal(open, 1, 'one at a time')
      await new Promise((resolve) => setTimeout(resolve, 1))
      open -= 1
      return bytes(value)
    }
    const names = ['c', 'a', 'b']
    await writeSafetensors(
      path,
      names.map((name, i): TensorToWrite => ({ name, dtype: 'U8', shape: [1], data: make(i) })),
      {},
    )
    using file = readSafetensors(path)
    t.strictSame(file.metadata, {})
    t.strictSame(
      ['a', 'b', 'c'].map((name) => file.bytes(name)[0]),
      [1, 2, 0],
    )
  })

  t.test('refuses tensors that are not right, and keeps the old file', async (t) => {
    const folder = t.testdir({ 'x.safetensors': 'old' })
    const path = join(folder, 'x.safetensors')
    const one = (part: Partial<TensorToWrite>): TensorToWrite => ({
      name: 'a',
      dtype: 'F32',
      shape: [1],
      data: Float32Array.of(1),
      ...part,
    })
    const rows: [what: string, tensors: TensorToWrite[], message: RegExp][] = [
      ['a name twice', [one({}), one({})], /"a" is given twice/],
      ['data too short', [one({ shape: [2] })], /data of 4 bytes; shape \[2\] of F32 takes 8/],
      ['late data too short', [one({ data: () => bytes(1) })], /data of 1 bytes/],
      ['a negative size', [one({ shape: [-1] })], /shape \[-1\]/],
      ['a size that is no whole number', [one({ shape: [0.5] })], /shape \[0\.5\]/],
      ['an unknown dtype', [one({ dtype: 'F33' as FileDtype })], /unknown dtype "F33"/],
      ['the name of the metadata', [one({ name: '__metadata__' })], /keeps this name/],
      ['a name that is no text', [one({ name: '\ud800' })], /half a surrogate pair/],
    ]
    for (const [what, tensors, message] of rows) {
      await t.rejects(writeSafetensors(path, tensors), { code: 'ERR_ARGUMENT', message }, what)
    }
    const error = new Error('the device is gone')
    const failing = (): never => {
      throw error
    }
    await t.rejects(writeSafetensors(path, [one({ data: failing })]), error)
    await t.rejects(writeSafetensors(path, [one({})], { a: '\udc00' }), { code: 'ERR_ARGUMENT' })
    t.equal(readFileSync(path, 'utf8'), 'old')
    t.strictSame(readdirSync(folder), ['x.safetensors'])
  })
})

t.test('an opened file', async (t) => {
  const folder = t.testdir()
  const path = join(folder, 'x.safetensors')
  await writeSafetensors(path, [
    { name: 'w', dtype: 'F32', shape: [2, 2], data: Float32Array.of(1, 2, 3, 4) },
    { name: 'i', dtype: 'I64', shape: [2], data: BigInt64Array.of(-5n, 7n) },
  ])

  t.test('hands out views without copying, and ends them when closed', async (t) => {
    const file = readSafetensors(path)
    t.strictSame(file.info('w'), { dtype: 'F32', shape: [2, 2], byteLength: 16 })
    const floats = file.float32('w')
    t.equal(floats.buffer, file.bytes('w').buffer, 'a view of the file')
    t.strictSame([...floats], [1, 2, 3, 4])
    t.strictSame([...file.int32('i')], [-5, 7])
    file.close()
    t.equal(floats.length, 0)
    t.throws(() => file.bytes('w'), { code: 'ERR_DISPOSED' })
    t.strictSame(file.info('w').shape, [2, 2])
  })

  t.test('names itself and the tensor when asked for what is not there or does not convert', async (t) => {
    using file = readSafetensors(path)
    t.throws(() => file.bytes('missing'), {
      code: 'ERR_ARGUMENT',
      message: /x\.safetensors: holds no tensor "missing"/,
    })
    t.throws(() => file.float32('i'), {
      code: 'ERR_FORMAT',
      message: /x\.safetensors: tensor "i": element type I64/,
    })
  })

  t.test('cut short anywhere is refused', async (t) => {
    const whole = readFileSync(path)
    for (let length = 0; length < whole.length; length++) {
      const cut = join(folder, 'cut.safetensors')
      writeFileSync(cut, whole.subarray(0, length))
      t.throws(() => readSafetensors(cut), { code: 'ERR_FORMAT' }, `${length} of ${whole.length} bytes`)
    }
  })

  t.test('that is not there is ERR_IO', async (t) => {
    t.throws(() => readSafetensors(join(folder, 'no')), { code: 'ERR_IO', message: /ENOENT/ })
  })
})

t.test('conversions', async (t) => {
  t.test('F16 is exact for all 65,536 values', async (t) => {
    const all = Uint16Array.from({ length: 65536 }, (_, i) => i)
    const floats = toFloat32(new Uint8Array(all.buffer), 'F16')
    let wrong = 0
    for (let bits = 0; bits < 65536; bits++) {
      const sign = bits & 0x8000 ? -1 : 1
      const exponent = (bits >> 10) & 31
      const fraction = bits & 1023
      const normal =
        exponent === 31 ? (fraction === 0 ? Infinity : NaN) : (1 + fraction / 1024) * 2 ** (exponent - 15)
      const expected = sign * (exponent === 0 ? (fraction / 1024) * 2 ** -14 : normal)
      if (!Object.is(floats[bits], expected)) wrong += 1
    }
    t.equal(wrong, 0)
  })

  t.test('BF16 is the upper half of a float, every bit of it', async (t) => {
    const all = Uint16Array.from({ length: 65536 }, (_, i) => i)
    const bits = new Uint32Array(toFloat32(new Uint8Array(all.buffer), 'BF16').buffer)
    t.ok(bits.every((value, i) => value === i * 65536))
  })

  t.test('F64 is rounded to nearest', async (t) => {
    const doubles = Float64Array.of(0.1, 1e300, -0, 1 + 2 ** -24, 1 + 3 * 2 ** -24)
    const floats = toFloat32(new Uint8Array(doubles.buffer), 'F64')
    t.ok(floats.every((value, i) => Object.is(value, Math.fround(doubles[i] as number))))
  })

  t.test('unaligned bytes are copied, not refused', async (t) => {
    const shifted = new Uint8Array(1 + 8)
    shifted.set(new Uint8Array(Float32Array.of(1.5, -2).buffer), 1)
    t.strictSame([...toFloat32(shifted.subarray(1), 'F32')], [1.5, -2])
    shifted.set(new Uint8Array(BigInt64Array.of(-3n).buffer), 1)
    t.strictSame([...toInt32(shifted.subarray(1), 'I64')], [-3])
  })

  t.test('I64 is range-checked', async (t) => {
    const convert = (...values: bigint[]): Int32Array =>
      toInt32(new Uint8Array(BigInt64Array.from(values).buffer), 'I64')
    t.strictSame([...convert(2n ** 31n - 1n, -(2n ** 31n), 0n)], [2 ** 31 - 1, -(2 ** 31), 0])
    t.throws(() => convert(0n, 2n ** 31n), {
      code: 'ERR_FORMAT',
      message: /element 1 is 2147483648; expected/,
    })
    t.throws(() => convert(-(2n ** 31n) - 1n), { code: 'ERR_FORMAT', message: /-2147483649/ })
    t.throws(() => toInt32(new Uint8Array(4), 'F32'), { code: 'ERR_FORMAT' })
  })
})

// What the reference implementation (safetensors 0.8.0, save_file) writes from the tensors of these files.
const referenceHashes: Readonly<Record<string, string>> = {
  'joint_training/batches.safetensors': '6140c0e6b3b84b5271ac43b9aea8b893c052070f80230c106b31d83c11000124',
  'joint_training/generator.safetensors': 'a46863cc7addcb9dbab51ac64aac9ff0d84d81abed463df79da9a2316277992b',
  'masked_lm/model.safetensors': '5608404eb0aa8f97ef7c9b2037c128c7868abdf8d7cce5d281146bce4fa1f598',
  'pretraining/outputs.safetensors': 'a19a359a95deead87a64560c16130e74b066797f7b6c1d6e73be68aa9cddf6a8',
  'sequence_regression/inputs.safetensors':
    'fd4244c3851463353f0a022b244644f91db6c556642c389a302f4e23a5cfa9aa',
}

t.test('every golden file, read and written again', needsSharedData, async (t) => {
  const golden = join(sharedData ?? '', 'golden')
  const files = readdirSync(golden, { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.safetensors'),
  )
  t.ok(files.length > 10)
  const folder = t.testdir()
  const path = join(folder, 'again.safetensors')
  let compared = 0
  for (const name of files) {
    using source = readSafetensors(join(golden, name))
    const tensors = source.names.map((tensorName): TensorToWrite => {
      const { dtype, shape } = source.info(tensorName)
      return { name: tensorName, dtype, shape, data: source.bytes(tensorName) }
    })
    await writeSafetensors(path, tensors, source.metadata)
    using again = readSafetensors(path)
    t.strictSame([...again.names].sort(), [...source.names].sort(), `${name}: names`)
    t.strictSame(again.metadata, source.metadata, `${name}: metadata`)
    const same = source.names.every((tensorName) => {
      const [a, b] = [source.info(tensorName), again.info(tensorName)]
      const sameInfo = a.dtype === b.dtype && a.shape.join() === b.shape.join()
      return sameInfo && Buffer.compare(source.bytes(tensorName), again.bytes(tensorName)) === 0
    })
    t.ok(same, `${name}: every byte of every tensor`)
    const reference = referenceHashes[name]
    if (reference === undefined) continue
    compared += 1
    const hash = createHash('sha256').update(readFileSync(path)).digest('hex')
    t.equal(hash, reference, `${name}: byte for byte what the reference implementation writes`)
  }
  t.equal(compared, Object.keys(referenceHashes).length)
  t.throws(() => readSafetensors(join(golden, 'README.md')), { code: 'ERR_FORMAT' })
})

t.test('a tensor in pieces that share their memory', async (t) => {
  const folder = t.testdir()
  const path = join(folder, 'pieces.safetensors')
  const memory = new Float32Array(3)
  const inPieces = (count: number): TensorToWrite => ({
    name: 'long',
    dtype: 'F32',
    shape: [9],
    data: {
      *pieces() {
        for (let piece = 0; piece < count; piece++) {
          for (let i = 0; i < 3; i++) memory[i] = 3 * piece + i
          yield memory
        }
      },
    },
  })
  await writeSafetensors(path, [inPieces(3)])
  {
    using file = readSafetensors(path)
    t.strictSame([...file.float32('long')], [0, 1, 2, 3, 4, 5, 6, 7, 8])
  }
  for (const count of [0, 2, 4]) {
    const before = readFileSync(path)
    await t.rejects(writeSafetensors(path, [inPieces(count)]), {
      code: 'ERR_ARGUMENT',
      message: /'?"?long"?'?: its pieces are not the 36 bytes of shape \[9\]/,
    })
    t.ok(readFileSync(path).equals(before), 'the old file stays')
  }
})
