import { execFile, execFileSync, spawn } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Worker } from 'node:worker_threads'
import t from 'tap'
import { addon } from '../../dist/runtime/addon.js'
import {
  removeLeftovers,
  writeFileAtomically,
  writeFolderAtomically,
} from '../../dist/runtime/atomic-file.js'
import { mapFile } from '../../dist/runtime/mapped-file.js'

const distUrl = new URL('../../dist/', import.meta.url)
const mappedFileUrl = new URL('runtime/mapped-file.js', distUrl).href
const atomicFileUrl = new URL('runtime/atomic-file.js', distUrl).href
const onLinux = process.platform === 'linux' ? {} : { skip: 'needs /proc' }

const mappingsOf = (path: string): number =>
  readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.endsWith(path)).length

t.test('a mapped file', async (t) => {
  const folder = t.testdir({ 'a.bin': 'hello mapped world', empty: '', sub: {} })
  const path = join(folder, 'a.bin')

  t.test('shows its bytes, and a stray write stays in this process', async (t) => {
    using file = mapFile(path)
    t.equal(file.byteLength, 18)
    t.equal(Buffer.from(file.bytes).toString(), 'hello mapped world')
    file.bytes[0] = 0x48
    t.equal(file.bytes[0], 0x48)
    t.equal(readFileSync(path, 'utf8'), 'hello mapped world')
  })

  t.test('is unmapped by close at once; views have length 0, twice is harmless', onLinux, async (t) => {
    const file = mapFile(path)
    const view = file.bytes.subarray(2, 5)
    t.equal(mappingsOf(path), 1)
    file.close()
    t.equal(mappingsOf(path), 0)
    t.equal(view.length, 0)
    t.throws(() => file.bytes, { code: 'ERR_DISPOSED' })
    t.doesNotThrow(() => file.close())
  })

  t.test('that nothing refers to any more is unmapped by the collector', onLinux, async (t) => {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    for (let i = 0; i < 50; i++) mapFile(path)
    for (let i = 0; i < 20 && mappingsOf(path) > 0; i++) {
      collect()
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    t.equal(mappingsOf(path), 0)
  })

  t.test(
    'closed and mapped again at the same address is not unmapped by the first one’s finalizer',
    async (t) => {
      const collect = runInNewContext('gc') as () => void
      for (let i = 0; i < 30; i++) mapFile(path).close()
      const file = mapFile(path)
      for (let i = 0; i < 5; i++) {
        collect()
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
      t.equal(Buffer.from(file.bytes).toString(), 'hello mapped world')
      file.close()
    },
  )

  t.test('may be empty', async (t) => {
    using file = mapFile(join(folder, 'empty'))
    t.equal(file.byteLength, 0)
    t.equal(file.bytes.length, 0)
  })

  t.test('can be a copy, which another program may cut short', async (t) => {
    const other = join(folder, 'cut.bin')
    writeFileSync(other, Buffer.alloc(100_000, 7))
    using file = mapFile(other, { copy: true })
    writeFileSync(other, '')
    t.equal(file.bytes[99_999], 7)
  })

  t.test('stays readable when its name is replaced', async (t) => {
    const other = join(folder, 'replaced.bin')
    writeFileSync(other, 'old content')
    using file = mapFile(other)
    await writeFileAtomically(other, 'new')
    t.equal(Buffer.from(file.bytes).toString(), 'old content')
    t.equal(readFileSync(other, 'utf8'), 'new')
  })

  t.test('that cannot be read is ERR_IO with the path and the system’s name', async (t) => {
    const missing = join(folder, 'missing')
    t.throws(() => mapFile(missing), { code: 'ERR_IO', message: new RegExp(`${missing}: ENOENT`) })
    t.throws(() => mapFile(folder), { code: 'ERR_IO', message: /EISDIR/ })
    t.throws(() => mapFile(join(path, 'below')), { code: 'ERR_IO', message: /ENOTDIR/ })
    t.throws(() => mapFile(`${path}\0x`), { code: 'ERR_IO' })
    t.throws(() => mapFile('/dev/null'), { code: 'ERR_IO', message: /ENODEV/ })
  })

  t.test('that is a named pipe is refused, not waited for', async (t) => {
    const pipe = join(folder, 'pipe')
    execFileSync('mkfifo', [pipe])
    t.throws(() => mapFile(pipe), { code: 'ERR_IO', message: /ENODEV/ })
  })

  t.test('can be mapped in several worker threads that end without closing it', async (t) => {
    const script = `
      const { parentPort, workerData } = require('node:worker_threads')
      import(workerData.module).then(({ mapFile }) => {
        const files = Array.from({ length: 10 }, () => mapFile(workerData.path))
        parentPort.postMessage(files.every((file) => file.bytes[1] === 0x65))
      })`
    const results = await Promise.all(
      [1, 2, 3, 4].map(
        () =>
          new Promise((resolve, reject) => {
            const worker = new Worker(script, { eval: true, workerData: { module: mappedFileUrl, path } })
            let result: unknown
            worker.once('message', (message) => {
              result = message
            })
            worker.once('error', reject)
            worker.once('exit', () => resolve(result))
          }),
      ),
    )
    t.strictSame(results, [true, true, true, true])
  })
})

t.test('writeFileAtomically', async (t) => {
  t.test('creates and replaces a file and leaves nothing beside it', async (t) => {
    const folder = t.testdir()
    const path = join(folder, 'file.txt')
    await writeFileAtomically(path, 'first')
    await writeFileAtomically(path, Buffer.from('second'))
    t.equal(readFileSync(path, 'utf8'), 'second')
    await writeFileAtomically(path, async (handle) => {
      await handle.write('in ')
      await handle.write('pieces')
    })
    t.equal(readFileSync(path, 'utf8'), 'in pieces')
    t.strictSame(readdirSync(folder), ['file.txt'])
  })

  t.test('keeps the old file when the writer throws, and passes its error on', async (t) => {
    const folder = t.testdir({ 'file.txt': 'old' })
    const path = join(folder, 'file.txt')
    const error = new Error('mine')
    const writing = writeFileAtomically(path, async (handle) => {
      await handle.write('half')
      throw error
    })
    await t.rejects(writing, error)
    t.equal(readFileSync(path, 'utf8'), 'old')
    t.strictSame(readdirSync(folder), ['file.txt'])
  })

  t.test('on a full disk is ERR_IO with advice, and keeps the old file', async (t) => {
    const folder = t.testdir({ 'file.txt': 'old' })
    const path = join(folder, 'file.txt')
    const writing = writeFileAtomically(path, async (handle) => {
      await handle.write('half')
      const full = await open('/dev/full', 'w')
      try {
        await full.write('the rest')
      } finally {
        await full.close()
      }
    })
    await t.rejects(writing, {
      code: 'ERR_IO',
      message: new RegExp(`${path}: ENOSPC: no space is left; free some`),
    })
    t.equal(readFileSync(path, 'utf8'), 'old')
    t.strictSame(readdirSync(folder), ['file.txt'])
  })

  t.test('past the limit on a file’s size is ERR_IO, and keeps the old file', async (t) => {
    const folder = t.testdir({ 'file.txt': 'old' })
    const path = join(folder, 'file.txt')
    const script = `
      import { writeFileAtomically } from ${JSON.stringify(atomicFileUrl)}
      const error = await writeFileAtomically(${JSON.stringify(path)}, Buffer.alloc(1 << 20)).catch((error) => error)
      console.log(error.code, error.message)`
    const { stdout } = await promisify(execFile)('bash', [
      '-c',
      // Without the test runner's preloads, which answer SIGXFSZ by ending the process.
      'unset NODE_OPTIONS; ulimit -f 64; exec "$0" --input-type=module -e "$1"',
      process.execPath,
      script,
    ])
    t.match(stdout, /^ERR_IO .*file\.txt: EFBIG/)
    t.equal(readFileSync(path, 'utf8'), 'old')
    t.strictSame(readdirSync(folder), ['file.txt'])
  })

  t.test('in a folder that cannot be written is ERR_IO with the path', async (t) => {
    const folder = t.testdir({ file: 'x', locked: {} })
    const below = join(folder, 'file', 'below.txt')
    await t.rejects(writeFileAtomically(below, ''), {
      code: 'ERR_IO',
      message: new RegExp(`${below}: ENOTDIR`),
    })
    await t.rejects(writeFileAtomically(join(folder, 'no', 'x'), ''), { code: 'ERR_IO', message: /ENOENT/ })
    if (process.getuid?.() === 0) return
    chmodSync(join(folder, 'locked'), 0o555)
    await t.rejects(writeFileAtomically(join(folder, 'locked', 'x'), ''), {
      code: 'ERR_IO',
      message: /EACCES/,
    })
  })

  t.test('does not replace a folder', async (t) => {
    const folder = t.testdir({ sub: { kept: 'x' } })
    await t.rejects(writeFileAtomically(join(folder, 'sub'), ''), { code: 'ERR_IO', message: /EISDIR/ })
    t.strictSame(readdirSync(folder), ['sub'])
    t.equal(readFileSync(join(folder, 'sub', 'kept'), 'utf8'), 'x')
  })

  t.test('many at once to one path end with one of them, whole', async (t) => {
    const folder = t.testdir()
    const path = join(folder, 'file.txt')
    const contents = Array.from({ length: 12 }, (_, i) => String(i).repeat(10_000))
    await Promise.all(contents.map((content) => writeFileAtomically(path, content)))
    t.ok(contents.includes(readFileSync(path, 'utf8')))
    t.strictSame(readdirSync(folder), ['file.txt'])
  })
})

/** Runs a module that prints "ready" and waits; kills it there with SIGKILL. */
async function killWhenReady(script: string): Promise<void> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const exit = new Promise((resolve) => child.once('exit', resolve))
  await new Promise((resolve) => child.stdout.once('data', resolve))
  child.kill('SIGKILL')
  await exit
}

const wait = 'console.log("ready"); await new Promise((resolve) => setTimeout(resolve, 60_000))'

t.test('a process killed in the middle of a write', async (t) => {
  t.test('leaves the old file, and its remains are removed later', async (t) => {
    const folder = t.testdir({ 'file.txt': 'old' })
    const path = join(folder, 'file.txt')
    await killWhenReady(`
      import { writeFileAtomically } from ${JSON.stringify(atomicFileUrl)}
      await writeFileAtomically(${JSON.stringify(path)}, async (handle) => { await handle.write('half'); ${wait} })`)
    t.equal(readFileSync(path, 'utf8'), 'old')
    t.equal(readdirSync(folder).length, 2)
    t.equal((await removeLeftovers(folder)).length, 1)
    t.strictSame(readdirSync(folder), ['file.txt'])
  })

  t.test('leaves the old folder, and its remains are removed later', async (t) => {
    const folder = t.testdir({ model: { a: 'old', only: 'old' } })
    const path = join(folder, 'model')
    await killWhenReady(`
      import { writeFile } from 'node:fs/promises'
      import { writeFolderAtomically } from ${JSON.stringify(atomicFileUrl)}
      await writeFolderAtomically(${JSON.stringify(path)}, async (place) => { await writeFile(place + '/a', 'new'); ${wait} })`)
    t.equal(readFileSync(join(path, 'a'), 'utf8'), 'old')
    t.equal((await removeLeftovers(folder)).length, 1)
    t.strictSame(readdirSync(folder), ['model'])
    t.strictSame(readdirSync(path), ['a', 'only'])
  })
})

t.test('writeFolderAtomically', async (t) => {
  t.test('creates and replaces a folder with all that is in it', async (t) => {
    const folder = t.testdir()
    const path = join(folder, 'model')
    await writeFolderAtomically(path, async (place) => {
      await writeFile(join(place, 'a'), '1')
      await writeFile(join(place, 'b'), '1')
    })
    t.strictSame(readdirSync(path), ['a', 'b'])
    await writeFolderAtomically(path, async (place) => {
      mkdirSync(join(place, 'deep'))
      await writeFile(join(place, 'deep', 'c'), '2')
    })
    t.strictSame(readdirSync(path), ['deep'])
    t.equal(readFileSync(join(path, 'deep', 'c'), 'utf8'), '2')
    t.strictSame(readdirSync(folder), ['model'])
  })

  t.test('replaces a folder where the file system cannot exchange two', async (t) => {
    const folder = t.testdir({ model: { a: 'old', only: 'old' } })
    const path = join(folder, 'model')
    t.intercept(addon, 'exchangePaths', { value: () => false })
    await writeFolderAtomically(path, async (place) => writeFile(join(place, 'a'), 'new'))
    t.strictSame(readdirSync(folder), ['model'])
    t.strictSame(readdirSync(path), ['a'])
    t.equal(readFileSync(join(path, 'a'), 'utf8'), 'new')
  })

  t.test('exchanges two folders in one step on this file system', onLinux, async (t) => {
    const folder = t.testdir({ a: { one: '' }, b: { two: '' } })
    t.equal(addon.exchangePaths(join(folder, 'a'), join(folder, 'b')), true)
    t.strictSame([readdirSync(join(folder, 'a')), readdirSync(join(folder, 'b'))], [['two'], ['one']])
    t.throws(() => addon.exchangePaths(join(folder, 'a'), join(folder, 'no')), {
      errno: -2,
    } as unknown as Error)
  })

  t.test('keeps the old folder when the writer throws', async (t) => {
    const folder = t.testdir({ model: { a: 'old' }, file: 'x' })
    const path = join(folder, 'model')
    await t.rejects(
      writeFolderAtomically(path, async (place) => {
        await writeFile(join(place, 'a'), 'new')
        throw new Error('mine')
      }),
      { message: 'mine' },
    )
    await t.rejects(
      writeFolderAtomically(path, async (place) => writeFile(join(place, 'no', 'a'), 'new')),
      { code: 'ERR_IO' },
    )
    t.equal(readFileSync(join(path, 'a'), 'utf8'), 'old')
    await t.rejects(
      writeFolderAtomically(join(folder, 'file'), async () => undefined),
      { code: 'ERR_IO', message: /in the way/ },
    )
    t.strictSame(readdirSync(folder), ['file', 'model'])
  })
})

t.test('removeLeftovers', async (t) => {
  // The highest process number Linux gives is 4194304.
  const dead = 5_000_000

  t.test('removes what the dead left, keeps what the living write and what is not ours', async (t) => {
    const folder = t.testdir({
      [`.a.${dead}-0-1.tmp`]: 'x',
      [`.b.c.${dead}-3-7.tmp`]: { deep: 'x' },
      [`.a.${process.ppid}-0-1.tmp`]: 'alive',
      [`.a.${process.pid}-0-1.tmp`]: 'ours',
      '.a.tmp': 'not ours',
      'a.5000000-0-1.tmp': 'not ours',
    })
    t.strictSame(await removeLeftovers(folder), [`.a.${dead}-0-1.tmp`, `.b.c.${dead}-3-7.tmp`])
    t.strictSame(readdirSync(folder).length, 4)
    t.strictSame(await removeLeftovers(join(folder, 'missing')), [])
  })

  t.test('removes what a predecessor with the same process number left, as in a container', async (t) => {
    const folder = t.testdir()
    const script = `
      import { removeLeftovers } from ${JSON.stringify(atomicFileUrl)}
      console.log((await removeLeftovers(${JSON.stringify(folder)})).length)`
    const { stdout } = await promisify(execFile)('bash', [
      '-c',
      'touch "$0/.a.$$-0-1.tmp"; sleep 0.1; exec "$1" --input-type=module -e "$2"',
      folder,
      process.execPath,
      script,
    ])
    t.equal(stdout, '1\n')
    t.strictSame(readdirSync(folder), [])
  })

  t.test('puts a folder back that stepped aside for a successor that never came', async (t) => {
    const folder = t.testdir({
      [`.model.${dead}-0-2.old`]: { weights: 'old' },
      [`.model.${dead}-0-1.tmp`]: { weights: 'new' },
    })
    await removeLeftovers(folder)
    t.strictSame(readdirSync(folder), ['model'])
    t.equal(readFileSync(join(folder, 'model', 'weights'), 'utf8'), 'old')
  })

  t.test('removes the old folder where the successor came', async (t) => {
    const folder = t.testdir({ [`.model.${dead}-0-2.old`]: { weights: 'old' }, model: { weights: 'new' } })
    await removeLeftovers(folder)
    t.strictSame(readdirSync(folder), ['model'])
    t.equal(readFileSync(join(folder, 'model', 'weights'), 'utf8'), 'new')
  })
})
