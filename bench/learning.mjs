// npm run bench:learning -- --model DIR --data DIR [--tasks NAME,...] [--seeds N] [--output DIR] [--json FILE] [--write FILE]
//
// What pre-training is worth: each task fine-tuned from a pre-trained model and from random weights of the same configuration and
// vocabulary, several seeds of each, as a table of medians with their spread. The data folder is laid out as the table of tasks
// below says.
// Finished runs are taken from the output folder, so that the bench can be stopped and started again.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { finetune, version } from '../dist/index.js'

/** For all tasks, from both kinds of weights. */
const recipe = { optimizer: 'pytorch', learningRate: 5e-4, layerwiseDecay: 1, dropout: 0.1 }

const tasks = [
  {
    name: 'SST-2',
    options: {
      task: 'sst-2',
      train: 'glue/SST-2/train.tsv.gz',
      validation: 'glue/SST-2/dev.tsv',
      epochs: 2,
    },
    metric: 'accuracy',
    what: 'sentiment of film reviews, 67,349 phrases',
  },
  {
    name: 'subjectivity',
    options: {
      task: 'text-classification',
      train: 'cls/subjectivity/train.tsv',
      validation: 'cls/subjectivity/dev.tsv',
      epochs: 3,
    },
    metric: 'accuracy',
    what: 'opinion or plot, 9,000 sentences',
  },
  {
    name: 'STS-B',
    options: { task: 'sts-b', train: 'glue/STS-B/train.tsv', validation: 'glue/STS-B/dev.tsv' },
    metric: 'spearman',
    what: 'likeness of two sentences, 5,749 pairs',
  },
  {
    name: 'WNUT-17',
    options: {
      task: 'token-classification',
      train: 'ner/wnut17/train.conll',
      validation: 'ner/wnut17/dev.conll',
      epochs: 10,
    },
    metric: 'f1',
    what: 'new entities in short messages, 3,394 sentences',
  },
  {
    name: 'SQuAD 1.1',
    options: {
      task: 'squad',
      train: 'qa/squad-v1.1-train.json.gz',
      validation: 'qa/squad-v1.1-dev.json',
      maxLength: 128,
      stride: 64,
      epochs: 1,
    },
    metric: 'f1',
    scale: 1,
    what: "answers in Wikipedia's paragraphs, 7,524 questions",
  },
]

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    data: { type: 'string' },
    tasks: { type: 'string' },
    seeds: { type: 'string', default: '3' },
    output: { type: 'string', default: 'learning' },
    json: { type: 'string' },
    write: { type: 'string' },
  },
})
if (values.model === undefined || values.data === undefined) {
  console.error('bench:learning: --model DIR and --data DIR are required')
  process.exit(2)
}
const chosen = values.tasks?.toLowerCase().split(',')
const plain = (name) => name.toLowerCase()

/** One task from one kind of weights: the values of its metric, by seed. */
async function learn({ name, options, metric, scale = 100 }, from) {
  const output = join(values.output, `${plain(name).replace(/\W/g, '-')}-${from}`)
  const files = Object.fromEntries(
    ['train', 'validation'].map((file) => [file, join(values.data, options[file])]),
  )
  const weights = from === 'pretrained' ? { model: values.model } : { fromScratch: values.model }
  const begin = performance.now()
  const run = finetune({
    ...recipe,
    ...options,
    ...files,
    ...weights,
    output,
    seeds: Number(values.seeds),
  })
  let next = await run.next()
  while (!next.done) next = await run.next()
  const { runs, validation } = next.value
  const found = runs === undefined ? [validation[metric]] : runs.values[metric]
  const seconds = (performance.now() - begin) / 1000
  console.error(
    `${name}, ${from}: ${found.map((value) => (value * scale).toFixed(1)).join(' ')} (${seconds.toFixed(0)} s)`,
  )
  return found.map((value) => value * scale)
}

const sorted = (list) => [...list].sort((a, b) => a - b)
const median = (list) => sorted(list)[Math.floor(list.length / 2)]
const shown = (list) => {
  const [least, most] = [sorted(list)[0], sorted(list).at(-1)]
  return `${median(list).toFixed(1)} (${least.toFixed(1)} to ${most.toFixed(1)})`
}

mkdirSync(values.output, { recursive: true })
const results = []
for (const task of tasks) {
  if (chosen !== undefined && !chosen.includes(plain(task.name))) continue
  const pretrained = await learn(task, 'pretrained')
  const random = await learn(task, 'random')
  results.push({ name: task.name, what: task.what, metric: task.metric, pretrained, random })
}

const table = [
  '| task | metric | pre-trained | random weights | gain |',
  '| --- | --- | --- | --- | --- |',
  ...results.map(
    ({ name, what, metric, pretrained, random }) =>
      `| ${name}: ${what} | ${metric} | ${shown(pretrained)} | ${shown(random)} | ${(median(pretrained) - median(random)).toFixed(1)} |`,
  ),
].join('\n')
console.log(table)
if (values.json !== undefined) {
  writeFileSync(
    values.json,
    `${JSON.stringify({ version, model: basename(values.model), results }, null, 1)}\n`,
  )
}
if (values.write !== undefined) {
  const page = readFileSync(values.write, 'utf8')
  const block = /(<!-- learning -->\n)[\s\S]*?(<!-- \/learning -->)/
  if (!block.test(page)) throw new Error(`${values.write} has no block <!-- learning -->`)
  writeFileSync(values.write, page.replace(block, `$1\n${table}\n\n$2`))
}
