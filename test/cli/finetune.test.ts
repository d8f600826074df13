/** `voltaic finetune` and `voltaic evaluate` as processes: output, exit codes, and a run that is killed. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { leftBy, smallFiles } from '../helpers/finetuning.js'
import { voltaic } from '../helpers/training.js'

t.setTimeout(300_000)
const folder = t.testdir()
const { model, train, validation } = await smallFiles(folder)
const options = ['--epochs', '4', '--batch-size', '16', '--learning-rate', '5e-3', '--layerwise-decay', '1']
const common = ['--max-length', '32', '--precision', 'fp32', '--device', 'cpu', '--threads', '1']
const command = (output: string, ...more: string[]): string[] => [
  'finetune',
  ...['--model', model, '--task', 'text-classification', '--train', train, '--validation', validation],
  ...['--output', output, ...options, ...common, ...more],
]
const lines = (text: string): Record<string, unknown>[] =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))

const output = join(folder, 'whole')

t.test('lines for people, a table at the end; the same again says that it is complete', async (t) => {
  const { code, stdout, stderr } = await voltaic(command(output))
  t.equal(code, 0, stderr)
  t.equal(stdout, '')
  t.match(stderr, /^task {7}text-classification of 2 labels \(bad, good\); best by accuracy\n/)
  t.match(stderr, /training +.*train\.tsv, 200 examples/)
  t.match(stderr, /52 steps, 4 epochs of 200 sequences/)
  t.match(stderr, /validation +52 {2}epoch 4\.00 {2}accuracy 1\.0000/)
  t.match(stderr, /precision +recall/)
  t.match(stderr, /model +.*whole, with .*metrics\.json and predictions\.jsonl/)
  const again = await voltaic(command(output))
  t.equal(again.code, 0)
  t.match(again.stderr, /this run is complete; --fresh starts it over/)
  const other = await voltaic(command(output, '--batch-size', '8'))
  t.equal(other.code, 1)
  t.match(other.stderr, /batch size was 16, is 8.*--fresh/)
})

t.test('a process that is killed goes on to the same files', async (t) => {
  const killed = join(folder, 'killed')
  const { signal } = await voltaic(command(killed, '--json'), {
    onOutput: (stdout, child) => {
      if (stdout.includes('"kind":"saved"')) child.kill('SIGKILL')
    },
  })
  t.equal(signal, 'SIGKILL')
  const { code, stdout } = await voltaic(command(killed, '--json'))
  t.equal(code, 0)
  const events = lines(stdout)
  t.ok(events.some(({ kind, step }) => kind === 'resumed' && Number(step) >= 13))
  t.match(events.at(-1), { kind: 'result', task: 'text-classification', validation: { accuracy: 1 } })
  t.same(leftBy(killed), leftBy(output))
})

t.test('Ctrl-C saves and says how to go on', async (t) => {
  const stopped = join(folder, 'stopped')
  const { code, stderr } = await voltaic(command(stopped, '--log-every', '5'), {
    onError: (text, child) => {
      if (/^step +5 /m.test(text) && !text.includes('stopping')) child.kill('SIGINT')
    },
  })
  t.equal(code, 130, stderr)
  t.match(stderr, /stopping after this step, and saving/)
  t.match(stderr, /interrupted after step \d+, which is saved in .*stopped; run the same again to go on/)
})

t.test('evaluate: the task from the folder, metrics and table on standard output, or JSON', async (t) => {
  const { code, stdout } = await voltaic(['evaluate', '--model', output, '--data', validation, ...common])
  t.equal(code, 0)
  t.match(stdout, /^text-classification, 60 examples\naccuracy 1\.0000 /)
  t.match(stdout, /precision +recall/)
  const file = join(folder, 'out.jsonl')
  const json = await voltaic([
    'evaluate',
    '--model',
    output,
    '--data',
    validation,
    '--json',
    '--output',
    file,
  ])
  t.match(JSON.parse(json.stdout), { examples: 60, metrics: { accuracy: 1 } })
  t.equal(readFileSync(file, 'utf8').trimEnd().split('\n').length, 60)
})

t.test('skipped rows with file and line; --strict stops there', async (t) => {
  const data = join(folder, 'bad.tsv')
  writeFileSync(data, `text\tlabel\na good film\tgood\n${'nothing\n'.repeat(5)}`)
  const skipped = await voltaic(['evaluate', '--model', output, '--data', data])
  t.equal(skipped.code, 0)
  t.match(skipped.stderr, /5 examples were left out \(--strict stops there\):\n {2}.*bad\.tsv:3: /)
  t.match(skipped.stderr, /bad\.tsv:5: .*\n {2}and 2 more/)
  const strict = await voltaic(['evaluate', '--model', output, '--data', data, '--strict'])
  t.equal(strict.code, 1)
  t.match(strict.stderr, /^voltaic: .*bad\.tsv:3: .*\[ERR_FORMAT\]/)
})

t.test('wrong usage ends with 2, before anything is read', async (t) => {
  for (const [args, message] of [
    [['finetune'], /--task NAME is required/],
    [['finetune', '--task', 'sst-2', '--train', 'a', '--output', 'b'], /--model DIR is required/],
    [['finetune', '--epochs', 'many'], /'many' is not a number/],
    [['evaluate', '--model', output], /--data/],
  ] as const) {
    const { code, stderr } = await voltaic(args)
    t.equal(code, 2, stderr)
    t.match(stderr, message)
  }
  const config = join(folder, 'options.json')
  writeFileSync(config, JSON.stringify({ task: 'text-classification', train, model, speed: 3 }))
  const { code, stderr } = await voltaic(['finetune', '--config', config, '--output', join(folder, 'x')])
  t.equal(code, 1)
  t.match(stderr, /unknown options: speed/)
})
