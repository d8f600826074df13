/** What can be wrong with text, options, folders and disks: a clear error each time, and nothing lost that was there. */
import { spawnSync } from 'node:child_process'
import { cpSync, readdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { type PretrainRun, pretrain, VoltaicError } from 'voltaic'
import { openCheckpoints } from '../../dist/training/checkpoint.js'
import { JointTrainer } from '../../dist/training/joint-trainer.js'
import {
  contentOf,
  corpusText,
  leftovers,
  mainFile,
  metricsOf,
  repeatable,
  smallRun,
  train,
  voltaic,
  weightsOf,
} from '../helpers/training.js'

t.setTimeout(230_000)
const folder = t.testdir({
  'corpus.txt': corpusText(),
  'empty.txt': '',
  'blank.txt': '\n \n\n\t\n',
  'unspecial.txt': 'the\ncat\nsat\n',
  file: 'a file',
  'broken.jsonl': '{"text": "one document"}\n{"text": 5}\n',
})
const at = (...names: string[]): string => join(folder, ...names)
let count = 0
const options = (changes: Partial<PretrainRun> = {}): PretrainRun => ({
  ...smallRun,
  corpus: [at('corpus.txt')],
  output: at(`run-${count++}`),
  ...changes,
})

async function stopAfter(options: PretrainRun, step: number): Promise<void> {
  for await (const done of pretrain(options)) if (done.step === step) break
}

const reference = options()
await train(reference)
const expected = { weights: weightsOf(reference.output), rows: repeatable(metricsOf(reference.output)) }

/** A run stopped after step 14 and saved, with the checkpoint of step 12 beside it; a copy for each test that damages it. */
const stopped = options()
await stopAfter(stopped, 13)
function stoppedCopy(): PretrainRun {
  const copy = options()
  cpSync(stopped.output, copy.output, { recursive: true, preserveTimestamps: true })
  return copy
}

t.test('text that cannot be trained on', async (t) => {
  const bad: [Partial<PretrainRun>, string, RegExp][] = [
    [{ corpus: [at('empty.txt')] }, 'ERR_FORMAT', /empty\.txt/],
    [{ corpus: [at('blank.txt')] }, 'ERR_FORMAT', /nothing but blank lines in .*blank\.txt/],
    [{ corpus: [at('missing.txt')] }, 'ERR_IO', /missing\.txt/],
    [{ corpus: [at('*.nothing')] }, 'ERR_IO', /no file matches.*\*\.nothing/],
    [{ corpus: [folder] }, 'ERR_IO', /is a folder/],
    [{ corpus: [at('broken.jsonl')] }, 'ERR_FORMAT', /broken\.jsonl:2: the field/],
    [{ validation: [at('empty.txt')] }, 'ERR_FORMAT', /empty\.txt/],
    [{ vocab: at('unspecial.txt') }, 'ERR_FORMAT', /unspecial\.txt.*\[MASK\]/],
    [{ vocab: at('missing.txt') }, 'ERR_IO', /missing\.txt/],
  ]
  for (const [change, code, message] of bad)
    await t.rejects(train(options(change)), { code, message }, JSON.stringify(change))
})

t.test('options that do not fit are refused before any work', async (t) => {
  const bad: [Partial<Record<keyof PretrainRun, unknown>>, string, RegExp][] = [
    [{ sequenceLength: 65 }, 'ERR_CONFIG', /sequenceLength is 65.*64 positions/],
    [{ steps: 0 }, 'ERR_CONFIG', /steps is 0/],
    [{ steps: '20' }, 'ERR_CONFIG', /steps is "20"/],
    [{ batchSize: 8, accumulate: 3 }, 'ERR_CONFIG', /accumulate is 3.*divisor of the batch size, 8/],
    [{ learningRate: Number.NaN }, 'ERR_CONFIG', /learningRate/],
    [{ maskProbability: 1.5 }, 'ERR_CONFIG', /maskProbability is 1\.5/],
    [{ size: 'huge' }, 'ERR_CONFIG', /size is "huge".*tiny/],
    [{ corpus: 'corpus.txt' }, 'ERR_CONFIG', /corpus is "corpus\.txt".*list/],
    [{ cased: 'yes' }, 'ERR_CONFIG', /cased is "yes".*true or false/],
    [{ vocab: 5 }, 'ERR_CONFIG', /vocab is 5/],
    [{ model: { hidden: 32 } }, 'ERR_CONFIG', /model\.hidden.*hiddenSize/],
    [{ model: { hiddenSize: 33 } }, 'ERR_CONFIG', /33/],
    [{ model: { hiddenSize: 'big' } }, 'ERR_CONFIG', /hidden/],
    [{ device: 'gpu' }, 'ERR_DEVICE', /'gpu' names no device/],
    [{ precision: 'fp8' }, 'ERR_CONFIG', /precision is "fp8"/],
    [{ output: '' }, 'ERR_CONFIG', /output/],
  ]
  const before = readdirSync(folder)
  for (const [change, code, message] of bad)
    await t.rejects(train(options(change as Partial<PretrainRun>)), { code, message }, JSON.stringify(change))
  t.same(readdirSync(folder), before, 'no folder was made')
})

t.test('folders that cannot be written', async (t) => {
  for (const [output, message] of [
    [at('file', 'run'), /file.*not a folder/],
    [at('file'), /in the way/],
    ['/dev/null/run', /\/dev\/null\/run/],
    ['/proc/voltaic-run', /\/proc\/voltaic-run/],
  ] as const)
    await t.rejects(train(options({ output })), { code: 'ERR_IO', message }, output)
  t.equal(readFileSync(at('file'), 'utf8'), 'a file')
})

t.test('a loss that is not finite stops the run; the step is named, the checkpoint kept', async (t) => {
  const given = stoppedCopy()
  const checkpoints = openCheckpoints(given.output, 2)
  const good = checkpoints.load()
  if (good === undefined) throw new Error('no checkpoint to poison')
  t.equal(good.state.step, 14)
  const { parameters, firstMoment, secondMoment, others } = good.tensors
  parameters.fill(Number.NaN, 0, 64)
  const flat = (values: Float32Array) => ({ length: values.length, pieces: () => [values] })
  await checkpoints.save(good.state, {
    parameters: flat(parameters),
    firstMoment: flat(firstMoment),
    secondMoment: flat(secondMoment),
    others: others as Record<string, Int32Array>,
  })
  const before = contentOf(join(given.output, 'checkpoints'))
  const error = await train(given).catch((error) => error)
  t.equal(error.code, 'ERR_NOT_FINITE')
  t.match(error.message, /^step 15: the .* is NaN/)
  t.match(error.message, /The first tensor that is not finite is the value of \w+[\w.]*\. /)
  t.match(error.message, /checkpoint of step 14 is kept; try a lower --learning-rate/)
  t.same(contentOf(join(given.output, 'checkpoints')), before)
  t.notOk(readdirSync(given.output).includes('discriminator'), 'no model is written of it')

  const hopeless = options({ model: { ...smallRun.model, initializerRange: 1e30 } })
  await t.rejects(train(hopeless), {
    code: 'ERR_NOT_FINITE',
    message: /^step 1: .*There is no checkpoint yet/,
  })
  t.same(openCheckpoints(hopeless.output, 2).steps(), [])
})

t.test('a damaged checkpoint is noticed, and the one before it serves', async (t) => {
  const flip = (path: string, position: number): void => {
    const bytes = readFileSync(path)
    const place = position < 0 ? bytes.length + position : position
    bytes.writeUInt8(bytes.readUInt8(place) ^ 4, place)
    writeFileSync(path, bytes)
  }
  const edit = (path: string, from: RegExp, to: string): void => {
    const text = readFileSync(path, 'utf8')
    if (!from.test(text)) throw new Error(`nothing to edit in ${path}`)
    writeFileSync(path, text.replace(from, to))
  }
  const damages: [string, (checkpoint: string) => void][] = [
    ['state.json cut', (path) => truncateSync(join(path, 'state.json'), 40)],
    ['state.json empty', (path) => writeFileSync(join(path, 'state.json'), '')],
    ['state.json null', (path) => writeFileSync(join(path, 'state.json'), 'null')],
    ['state.json of another format', (path) => edit(join(path, 'state.json'), /"format": 1/, '"format": 99')],
    [
      'another place in the data',
      (path) => edit(join(path, 'state.json'), /"position": \d+/, '"position": 1'),
    ],
    ['another step', (path) => edit(join(path, 'state.json'), /"step": 14/, '"step": 13')],
    ['state.json missing', (path) => rmSync(join(path, 'state.json'))],
    ['tensors missing', (path) => rmSync(join(path, 'tensors.safetensors'))],
    ['tensors cut', (path) => truncateSync(join(path, 'tensors.safetensors'), 5000)],
    ['tensors empty', (path) => truncateSync(join(path, 'tensors.safetensors'), 0)],
    ['a header with a flipped bit', (path) => flip(join(path, 'tensors.safetensors'), 20)],
    ['a weight with a flipped bit', (path) => flip(join(path, 'tensors.safetensors'), 4001)],
    ['a count with a flipped bit', (path) => flip(join(path, 'tensors.safetensors'), -1)],
  ]
  for (const [name, damage] of damages) {
    const given = stoppedCopy()
    const newest = join(given.output, 'checkpoints', 'step-000000014')
    damage(newest)
    const before = contentOf(given.output)
    const error = await train(given).catch((error) => error)
    t.equal(error.code, 'ERR_FORMAT', `${name}: ${error.message}`)
    t.match(error.message, newest, name)
    t.same(contentOf(given.output), before, `${name}: nothing is touched`)
    rmSync(newest, { recursive: true })
    await train(given)
    t.same(weightsOf(given.output), expected.weights, `${name}: with that folder gone the run goes on`)
    t.same(repeatable(metricsOf(given.output)), expected.rows, name)
  }
})

t.test('damaged shards, records and logs', async (t) => {
  const shardOf = (output: string): string => {
    const key = readdirSync(join(output, 'data'))[0] as string
    return join(output, 'data', key, 'shard-00000.bin')
  }
  const damages: [string, (output: string) => void, RegExp][] = [
    ['a shard cut', (output) => truncateSync(shardOf(output), 300), /shard-00000\.bin.*Delete the folder/s],
    [
      'a shard with other tokens',
      (output) => {
        const bytes = readFileSync(shardOf(output))
        const middle = bytes.length >> 1
        bytes.writeUInt8(bytes.readUInt8(middle) ^ 1, middle)
        writeFileSync(shardOf(output), bytes)
      },
      /shard-00000\.bin.*Delete the folder/s,
    ],
    [
      'a manifest that is none',
      (output) => writeFileSync(join(shardOf(output), '..', 'manifest.json'), '{}'),
      /manifest\.json.*Delete the folder/s,
    ],
    [
      'run.json cut',
      (output) => truncateSync(join(output, 'run.json'), 30),
      /run\.json cannot be read.*--fresh/,
    ],
    ['run.json null', (output) => writeFileSync(join(output, 'run.json'), 'null'), /run\.json.*--fresh/],
    [
      'run.json empty of content',
      (output) => writeFileSync(join(output, 'run.json'), '{"format":1}'),
      /run\.json/,
    ],
    [
      'run.json of the future',
      (output) => writeFileSync(join(output, 'run.json'), '{"format":2}'),
      /run\.json has format 2, this version reads format 1/,
    ],
    [
      'metrics cut',
      (output) => truncateSync(join(output, 'metrics.jsonl'), 50),
      /metrics\.jsonl.*records are missing/,
    ],
  ]
  for (const [name, damage, message] of damages) {
    const given = stoppedCopy()
    damage(given.output)
    const before = contentOf(join(given.output, 'checkpoints'))
    await t.rejects(train(given), { code: 'ERR_FORMAT', message }, name)
    t.same(contentOf(join(given.output, 'checkpoints')), before, `${name}: the checkpoints stay`)
  }
  const given = stoppedCopy()
  truncateSync(shardOf(given.output), 300)
  rmSync(join(shardOf(given.output), '..'), { recursive: true })
  await train(given)
  t.same(weightsOf(given.output), expected.weights, 'shards are made anew')
})

t.test('a full disk', async (t) => {
  t.test('under the metrics', async (t) => {
    const given = options()
    await stopAfter(given, 2)
    rmSync(join(given.output, 'metrics.jsonl'))
    symlinkSync('/dev/full', join(given.output, 'metrics.jsonl'))
    const before = contentOf(join(given.output, 'checkpoints'))
    await t.rejects(train(given), { code: 'ERR_IO', message: /metrics\.jsonl.*ENOSPC/ })
    t.same(contentOf(join(given.output, 'checkpoints')), before)
    rmSync(join(given.output, 'metrics.jsonl'))
    await train(given)
    t.same(weightsOf(given.output), expected.weights, 'with room again the run goes on')
    t.same(repeatable(metricsOf(given.output)), expected.rows)
  })

  const disk = at('disk')
  const tmpfs = (script: string) =>
    spawnSync(
      'unshare',
      [
        '-rm',
        'sh',
        '-c',
        `mkdir -p "${disk}" && mount -t tmpfs -o size=16m none "${disk}" || exit 99\n${script}`,
      ],
      { encoding: 'utf8' },
    )
  const skip = tmpfs('true').status === 0 ? false : 'no small file system can be mounted here'
  t.test('under checkpoints and models', { skip }, async (t) => {
    const config = at('config.json')
    writeFileSync(config, JSON.stringify({ ...smallRun, saveEvery: 2 }))
    const command = `"${process.execPath}" "${mainFile}" pretrain "${at('corpus.txt')}" --config "${config}" --output "${disk}/run"`
    for (const room of [0, 30, 100, 200]) {
      const copies = at(`disk-${room}`)
      const { status, stdout, stderr } = tmpfs(`
        ${command} --steps 10 || exit 98
        mkdir "${copies}" && cp -r "${disk}/run" "${copies}/before"
        dd if=/dev/zero of="${disk}/filler" bs=4k 2> /dev/null
        truncate -s -${room}K "${disk}/filler"
        ${command} --steps 20
        echo "exit $?"
        cp -r "${disk}/run" "${copies}/full"
        rm "${disk}/filler"
        ${command} --steps 20 || exit 97
        cp -r "${disk}/run" "${copies}/after"`)
      t.equal(status, 0, stderr)
      t.match(stdout, /exit 1\n/, `${room} kB free: the command fails`)
      t.match(stderr, /voltaic: .*\/run.*ENOSPC.*\[ERR_IO\]/, `${room} kB free: and says why`)
      const before = contentOf(join(copies, 'before'))
      const full = contentOf(join(copies, 'full'))
      for (const name of Object.keys(before).filter((name) =>
        /^(discriminator|generator|tokenizer|data)\//.test(name),
      ))
        t.equal(full[name], before[name], `${room} kB free: ${name} is whole`)
      t.same(leftovers(join(copies, 'full')), [])
      const more = options({ steps: 10 })
      await train(more)
      await train({ ...more, steps: 20 })
      t.same(
        weightsOf(join(copies, 'after')),
        weightsOf(more.output),
        `${room} kB free: with room again it goes on`,
      )
    }
  })
})

t.test('warnings about the text are said for people', async (t) => {
  const path = at('malformed.txt')
  writeFileSync(
    path,
    Buffer.concat([Buffer.from(`${corpusText(20)}\nbroken `), Buffer.from([0xff, 0xfe, 0x0a])]),
  )
  const config = at('warnings.json')
  writeFileSync(config, JSON.stringify({ ...smallRun, steps: 1, vocabSize: 150 }))
  const { code, stderr } = await voltaic(['pretrain', path, '--config', config, '--output', at('warned')])
  t.equal(code, 0, stderr)
  t.match(
    stderr,
    /warning .*malformed\.txt: 2 malformed UTF-8 sequences became U\+FFFD, the first near line \d+/,
  )
})

t.test('a device that fails: the first failure is told, and nothing after it is saved', async (t) => {
  const failing = options()
  // Of two steps in a row: the second has been queued when the first is read, and is never asked for.
  const { queueStep } = JointTrainer.prototype
  let failures = 0
  JointTrainer.prototype.queueStep = async function (step, batches) {
    const numbers = await queueStep.call(this, step, batches)
    if (step < 10) return numbers
    failures++
    throw new VoltaicError('ERR_BACKEND', `step ${step} failed`)
  }
  t.teardown(() => {
    JointTrainer.prototype.queueStep = queueStep
  })
  await t.rejects(train(failing), { code: 'ERR_BACKEND', message: /step 10 failed/ })
  while (failures < 2) await new Promise((resolve) => setTimeout(resolve, 5))
  // A rejection that nobody handles would end the process about now.
  await new Promise((resolve) => setTimeout(resolve, 5))
  t.same(openCheckpoints(failing.output, 3).steps(), [6])
})
