import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { loadTokenizer, version } from 'voltaic'
import {
  contentOf,
  corpusText,
  metricsOf,
  repeatable,
  smallRun,
  snapshot,
  voltaic,
  weightsOf,
} from '../helpers/training.js'

t.setTimeout(230_000)
const folder = t.testdir({
  'corpus.txt': corpusText(),
  'lines.txt': 'The baker found a boat.\n\nnaïve café 🚢!\n',
})
const at = (...names: string[]): string => join(folder, ...names)
const config = at('config.json')
writeFileSync(config, JSON.stringify(smallRun))
const pretraining = (output: string, ...more: string[]): string[] => [
  'pretrain',
  at('corpus.txt'),
  ...['--config', config, '--output', output],
  ...more,
]
const jsonLines = (text: string): Record<string, unknown>[] => {
  const lines = text.split('\n')
  if (lines.pop() !== '') throw new Error(`the output ends within a line: ${text.slice(-80)}`)
  return lines.map((line) => JSON.parse(line))
}

t.test('help and version', async (t) => {
  const help = await voltaic(['--help'])
  t.equal(help.code, 0)
  for (const name of [
    'pretrain',
    'convert',
    'inspect',
    'predict',
    'finetune',
    'evaluate',
    'tokenize',
    'train-vocab',
    'info',
    'build-cuda',
  ])
    t.match(help.stdout, name)
  for (const [name, option] of [
    ['pretrain', '--discriminator-weight'],
    ['finetune', '--layerwise-decay'],
    ['evaluate', '--data'],
    ['convert', '--part'],
    ['inspect', '--examples'],
    ['predict', '--batch-tokens'],
    ['tokenize', '--offsets'],
    ['train-vocab', '--min-frequency'],
    ['info', '--json'],
    ['build-cuda', '--archs'],
  ] as const) {
    const { code, stdout } = await voltaic([name, '--help'])
    t.equal(code, 0)
    t.match(stdout, option)
  }
  const { code, stdout } = await voltaic(['--version'])
  t.equal(code, 0)
  t.equal(stdout, `${version}\n`)
})

t.test('wrong usage exits with 2, says what is wrong and where help is', async (t) => {
  const cases: [string[], RegExp][] = [
    [[], /Usage: voltaic/],
    [['pretrian'], /unknown command 'pretrian'/],
    [['pretrain', '--stpes', '5'], /unknown option '--stpes'/],
    [['pretrain', '--steps'], /argument missing/],
    [['pretrain', '--steps', 'many'], /'many' is not a number/],
    [['pretrain', '--steps', '0'], /'0' is not 1 or more/],
    [['pretrain', '--steps', '2.5'], /'2\.5' is not a whole number/],
    [['pretrain', '--size', 'huge'], /Allowed choices are tiny/],
    [['pretrain', '--generator-size', 'x'], /'x' is not a number/],
    [['pretrain', at('corpus.txt')], /--output DIR is required with files/],
    [['tokenize'], /--model DIR or --vocab FILE/],
    [['tokenize', '--model', 'a', '--vocab', 'b'], /one of the two/],
    [['train-vocab', '--vocab-size', '500', '--output', 'x'], /missing required argument 'files'/],
    [['train-vocab', at('corpus.txt'), '--output', 'x'], /--vocab-size/],
    [['train-vocab', at('corpus.txt'), '--vocab-size', '5', '--output', at('v')], /--vocab-size is 5/],
    [['convert', at('corpus.txt')], /missing required argument 'dir'/],
    [['convert', 'a', 'b', '--part', 'both'], /Allowed choices are discriminator, generator/],
    [['info', 'more'], /too many arguments/],
  ]
  for (const [args, message] of cases) {
    const { code, stdout, stderr } = await voltaic(args)
    t.equal(code, 2, args.join(' '))
    t.match(stderr, message)
    t.equal(stdout, '')
  }
})

t.test('failures exit with 1 and say it in one line', async (t) => {
  writeFileSync(at('unknown.json'), '{"stepz": 3}')
  writeFileSync(at('wrong.json'), '{"steps": "many"}')
  writeFileSync(at('broken.json'), '{"steps": ')
  writeFileSync(at('list.json'), '[]')
  const cases: [string[], RegExp][] = [
    [
      ['pretrain', '--output', at('x'), '--config', at('unknown.json')],
      /unknown options: stepz\. Known are .*steps/,
    ],
    [['pretrain', '--output', at('x'), '--config', at('wrong.json')], /steps is "many"/],
    [['pretrain', '--output', at('x'), '--config', at('broken.json')], /broken\.json cannot be read as JSON/],
    [['pretrain', '--output', at('x'), '--config', at('list.json')], /list\.json holds no JSON object/],
    [['pretrain', '--output', at('x'), '--config', at('missing.json')], /missing\.json/],
    [['pretrain', at('missing.txt'), '--output', at('x')], /missing\.txt/],
    [pretraining(at('x'), '--sequence-length', '65'), /sequenceLength is 65/],
    [pretraining(at('lines.txt', 'x')), /lines\.txt.*not a folder/],
    [['tokenize', '--vocab', at('missing.txt')], /missing\.txt/],
    [['tokenize', '--model', at('no-model')], /no-model/],
    [['convert', at('no-model'), at('x')], /no-model/],
    [['convert', at('lines.txt'), at('x')], /lines\.txt: it starts neither as a zip archive/],
    [['train-vocab', at('missing.txt'), '--vocab-size', '500', '--output', at('v')], /missing\.txt/],
  ]
  for (const [args, message] of cases) {
    const { code, stdout, stderr } = await voltaic(args)
    t.equal(code, 1, args.join(' '))
    t.match(stderr, message)
    t.match(stderr, /^(training a vocabulary.*\n)?voltaic: .*\[ERR_[A-Z_]+\]\n$/)
    t.equal(stdout, '')
  }
  t.notOk(existsSync(at('v')))
})

t.test('info', async (t) => {
  const plain = await voltaic(['info'])
  t.equal(plain.code, 0)
  t.match(plain.stdout, new RegExp(`^voltaic ${version.replaceAll('.', '\\.')}, Node`))
  t.match(plain.stdout, /instruction set \w+ of portable/)
  const { code, stdout } = await voltaic(['info', '--json'], {
    env: { VOLTAIC_CUDA: 'off', VOLTAIC_CPU: 'portable' },
  })
  t.equal(code, 0)
  t.match(JSON.parse(stdout), {
    version,
    cpu: { instructionSet: 'portable', processors: Number, threads: Number },
    cuda: { devices: 0, reason: 'turned off with VOLTAIC_CUDA=off', cards: [] },
  })
  const wrong = await voltaic(['info'], { env: { VOLTAIC_CPU: 'sse9' } })
  t.equal(wrong.code, 1)
  t.match(
    wrong.stderr,
    /^voltaic: VOLTAIC_CPU=sse9 does not run here; this processor and build have: portable.*\n$/,
  )
})

t.test('train-vocab, then tokenize', async (t) => {
  const made = await voltaic([
    'train-vocab',
    at('corpus.txt'),
    '--vocab-size',
    '200',
    '--output',
    at('vocabulary'),
  ])
  t.equal(made.code, 0, made.stderr)
  t.match(made.stdout, /^200 tokens from .* of text in /)
  t.same(readdirSync(at('vocabulary')).sort(), ['tokenizer.json', 'tokenizer_config.json', 'vocab.txt'])
  await voltaic(['train-vocab', at('corpus.txt'), '--vocab-size', '200', '--output', at('again')])
  t.same(contentOf(at('again')), contentOf(at('vocabulary')), 'deterministic')

  const tokenizer = await loadTokenizer(at('vocabulary'))
  const text = readFileSync(at('lines.txt'), 'utf8')
  const lines = text.trimEnd().split('\n')
  const expected = lines.map((line) => {
    const { inputIds, offsetsMapping } = tokenizer(line, { returnOffsetsMapping: true })
    const ids = Array.from(inputIds[0] as Int32Array)
    const flat = offsetsMapping?.[0] as Int32Array
    return {
      tokens: tokenizer.convertIdsToTokens(ids),
      ids,
      offsets: ids.map((_, i) => [flat[2 * i], flat[2 * i + 1]]),
    }
  })
  const file = await voltaic(['tokenize', '--vocab', at('vocabulary', 'vocab.txt'), at('lines.txt')])
  t.equal(file.code, 0, file.stderr)
  t.same(
    jsonLines(file.stdout),
    expected.map(({ tokens, ids }) => ({ tokens, ids })),
  )
  const piped = await voltaic(['tokenize', '--vocab', at('vocabulary', 'vocab.txt'), '--offsets'], {
    input: text,
  })
  t.same(jsonLines(piped.stdout), expected)
  const ids = await voltaic([
    'tokenize',
    '--vocab',
    at('vocabulary', 'tokenizer.json'),
    '--ids',
    at('lines.txt'),
  ])
  t.equal(ids.stdout, expected.map((row) => `${row.ids.join(' ')}\n`).join(''))
  const [word] = lines as [string]
  const first = expected[0] as (typeof expected)[number]
  t.equal(first.offsets.map(([begin, end]) => word.slice(begin, end)).join(''), word.replaceAll(' ', ''))
})

t.test('a reader that has seen enough ends tokenize quietly', async (t) => {
  writeFileSync(at('long.txt'), 'the baker found a boat in the village.\n'.repeat(20_000))
  const { stderr, signal } = await voltaic(
    ['tokenize', '--vocab', at('vocabulary', 'vocab.txt'), at('long.txt')],
    {
      onOutput: (_, child) => child.stdout?.destroy(),
    },
  )
  t.equal(signal, null)
  t.equal(stderr, '')
})

t.test('pretrain', async (t) => {
  const whole = at('whole')
  const run = await voltaic(pretraining(whole))
  t.equal(run.code, 0, run.stderr)
  t.equal(run.stdout, '', 'standard output is for results that were asked for')
  for (const line of [/training a vocabulary of 200/, /^data .*documents/m, /^plan .*20 steps/m, /^done in/m])
    t.match(run.stderr, line)
  t.notOk(run.stderr.includes('\r') || run.stderr.includes('\u001b'), 'a pipe sees plain lines')

  t.test('again: complete, exit 0, nothing touched', async (t) => {
    const before = snapshot(whole)
    const { code, stderr } = await voltaic(pretraining(whole))
    t.equal(code, 0)
    t.match(stderr, /this run is complete \(20 steps\); more --steps continue it/)
    t.same(snapshot(whole), before)
  })

  t.test('more steps: the note about the schedule', async (t) => {
    const output = at('continued')
    await voltaic(pretraining(output, '--steps', '8'))
    const { code, stderr } = await voltaic(pretraining(output, '--steps', '12'))
    t.equal(code, 0, stderr)
    t.match(stderr, /resuming after step 8\nnote .*steps was 8, is 12\n/)
    t.match(stderr, /note .*schedule of the new number of steps/)
  })

  t.test('another run in the folder: exit 1, the difference named', async (t) => {
    const { code, stderr } = await voltaic(pretraining(whole, '--seed', '4'))
    t.equal(code, 1)
    t.match(stderr, /^voltaic: .*seed was 1, is 4.*--fresh/m)
  })

  t.test('--json: every line an object; rows, plan, result', async (t) => {
    const output = at('json')
    const { code, stdout, stderr } = await voltaic(pretraining(output, '--json'))
    t.equal(code, 0, stderr)
    const lines = jsonLines(stdout)
    t.same(
      lines.filter(({ kind }) => kind !== undefined).map(({ kind }) => kind),
      ['vocabulary', 'data', 'plan', 'saved', 'saved', 'saved', 'saved', 'result'],
    )
    t.same(
      lines.filter(({ kind }) => kind === undefined),
      metricsOf(output),
    )
    t.same(weightsOf(output), weightsOf(whole))
  })

  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    t.test(`${signal}: saved, exit 130, how to go on; and it goes on bit for bit`, async (t) => {
      const output = at(`stopped-${signal}`)
      let sent = false
      const { code, stderr } = await voltaic(pretraining(output, '--steps', '2000', '--json'), {
        onOutput: (stdout, child) => {
          if (!sent && stdout.includes('"step":10,')) child.kill(signal)
          sent ||= stdout.includes('"step":10,')
        },
      })
      t.equal(code, 130, stderr)
      t.match(stderr, /stopping after this step, and saving/)
      const step = Number(
        /interrupted after step (\d+), which is saved in .*run the same again to go on/.exec(stderr)?.[1],
      )
      t.ok(step >= 10 && step < 2000, `after step ${step}`)
      t.notOk(existsSync(join(output, 'discriminator')))
      const resumed = await voltaic(pretraining(output, '--steps', String(step + 5)))
      t.equal(resumed.code, 0)
      t.match(resumed.stderr, `resuming after step ${step.toLocaleString('en-US')}`)
    })

  t.test('SIGINT while a vocabulary is trained: exit 130, and the same again does it all', async (t) => {
    const output = at('early')
    let sent = false
    const stopped = await voltaic(pretraining(output), {
      onError: (stderr, child) => {
        if (!sent && stderr.includes('training a vocabulary')) child.kill('SIGINT')
        sent = true
      },
    })
    t.equal(stopped.code, 130, stopped.stderr)
    const { code } = await voltaic(pretraining(output))
    t.equal(code, 0)
    t.same(weightsOf(output), weightsOf(whole))
    t.same(repeatable(metricsOf(output)), repeatable(metricsOf(whole)))
  })
})

t.test(
  'tokenize says so when its input cannot be read',
  { skip: !existsSync('/proc/self/mem') },
  async (t) => {
    // A file that opens, and fails when it is read.
    const { code, stderr } = await voltaic([
      'tokenize',
      '--vocab',
      at('vocabulary', 'vocab.txt'),
      '/proc/self/mem',
    ])
    t.equal(code, 1)
    t.match(stderr, /^voltaic: .*\/proc\/self\/mem.*\[ERR_IO\]\n$/)
  },
)
