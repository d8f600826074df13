// npm run bench:pipelines [-- --size NAME,... --precision fp32,bf16 --threads N] [--json FILE]:
// 64 calls of a text-classification pipeline on short texts, made at once (gathered into few passes) and awaited one by one, in
// turns. Texts a second, and how long a call takes (p50, p99). Models have random weights; the texts have 3 to 26 words.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { configOfSize, ElectraForSequenceClassification } from '../dist/electra/index.js'
import { pipeline } from '../dist/pipelines/index.js'
import { deviceInfo, setThreads, threads } from '../dist/runtime/index.js'
import { createTokenizer, tokenizerFiles } from '../dist/text/index.js'
import { device, writeJson } from './harness.mjs'

const { values } = parseArgs({
  options: {
    size: { type: 'string', default: 'tiny,small' },
    precision: { type: 'string', default: 'fp32' },
    threads: { type: 'string' },
    rounds: { type: 'string', default: '15' },
    json: { type: 'string' },
  },
})
if (values.threads !== undefined) setThreads(Number(values.threads))

const calls = 64
const words = Array.from({ length: 2000 }, (_, i) => `word${i}`)
const vocabulary = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', ...words]
const texts = Array.from({ length: calls }, (_, text) =>
  Array.from({ length: 3 + ((text * 37) % 24) }, (_, i) => words[(text * 131 + i * 17) % words.length]).join(
    ' ',
  ),
)

const quantile = (numbers, q) => {
  const sorted = numbers.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]
}

/** Milliseconds of a call, into a list. */
async function timed(classify, text, into) {
  const begin = performance.now()
  const [best] = await classify(text)
  into.push(performance.now() - begin)
  return best
}

/** Seconds that all calls take, made at once or one after the other. */
async function secondsOf(classify, atOnce, into) {
  const begin = performance.now()
  const results = []
  if (atOnce) results.push(...(await Promise.all(texts.map((text) => timed(classify, text, into)))))
  else for (const text of texts) results.push(await timed(classify, text, into))
  return { seconds: (performance.now() - begin) / 1000, results }
}

function checkSame(together, alone, precision) {
  together.forEach(({ label, score }, i) => {
    if (label !== alone[i].label || (precision === 'fp32' && Math.abs(score - alone[i].score) > 1e-5))
      throw new Error(`text ${i}: ${label} ${score} together, ${alone[i].label} ${alone[i].score} alone`)
  })
}

const results = []
console.log(`${deviceInfo(device).name}, ${deviceInfo(device).instructionSet}, ${threads()} threads`)
for (const size of values.size.split(',')) {
  const folder = mkdtempSync(join(tmpdir(), 'voltaic-bench-'))
  const config = { ...configOfSize(size), vocabSize: vocabulary.length, numLabels: 4 }
  const labels = ['a', 'b', 'c', 'd']
  const model = new ElectraForSequenceClassification(
    {
      ...config,
      id2label: { ...labels },
      label2id: Object.fromEntries(labels.map((label, id) => [label, id])),
    },
    { seed: 1 },
  )
  await model.savePretrained(folder, { files: tokenizerFiles(createTokenizer({ vocabulary }).specification) })
  model.dispose()
  for (const precision of values.precision.split(',')) {
    const classify = await pipeline('text-classification', folder, { device, precision })
    const tokens = texts.reduce((sum, text) => sum + classify.tokenizer(text).inputIds[0].length, 0)
    const ways = { together: { seconds: [], calls: [] }, 'one by one': { seconds: [], calls: [] } }
    for (let round = -2; round < Number(values.rounds); round++) {
      const answers = []
      for (const [name, way] of Object.entries(ways)) {
        const into = []
        const { seconds, results } = await secondsOf(classify, name === 'together', into)
        answers.push(results)
        // The first rounds make copies of weights.
        if (round < 0) continue
        way.seconds.push(seconds)
        way.calls.push(...into)
      }
      checkSame(answers[0], answers[1], precision)
    }
    const rates = Object.values(ways).map(({ seconds }) => calls / quantile(seconds, 0.5))
    Object.entries(ways).forEach(([name, { calls: milliseconds }], i) => {
      const [p50, p99] = [quantile(milliseconds, 0.5), quantile(milliseconds, 0.99)]
      results.push({ size, precision, way: name, calls, tokens, textsPerSecond: rates[i], p50, p99 })
      console.log(
        `${size} ${precision}, ${calls} texts of ${(tokens / calls).toFixed(1)} tokens, ${name}: ${rates[i].toFixed(0)} texts/s, ` +
          `a call ${p50.toFixed(2)} ms (p50), ${p99.toFixed(2)} ms (p99)`,
      )
    })
    console.log(`${size} ${precision}: together ${(rates[0] / rates[1]).toFixed(2)} times as fast`)
    await classify.dispose()
  }
  rmSync(folder, { recursive: true })
}
writeJson(results)
process.exit(0)
