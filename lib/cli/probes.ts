/** After a run on the sample text: sentences it has never seen, one word of each replaced, and what the detector makes of them. */
import { ElectraForPreTraining } from '../electra/index.js'
import { scope } from '../tensor/index.js'
import { AutoTokenizer } from '../text/index.js'
import { writeProbes } from '../training/sample-text.js'

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x))

export async function showProbes(folder: string, count = 3): Promise<void> {
  const tokenizer = await AutoTokenizer.fromPretrained(folder)
  const model = await ElectraForPreTraining.fromPretrained(folder, { device: 'cpu' })
  process.stdout.write(
    '\nHeld-out sentences with one word replaced; each token with the probability that it is the replaced one:\n',
  )
  for (const probe of writeProbes(count)) {
    const encoded = tokenizer(probe.text)
    const ids = Array.from(encoded.inputIds[0] as Int32Array)
    const logits = (await scope(() => model.forward(encoded).logits.data())) as Float32Array
    const tokens = tokenizer.convertIdsToTokens(ids)
    const words = tokens
      .map((token, i) => ({ token, probability: sigmoid(logits[i] as number) }))
      .slice(1, -1)
    const most = Math.max(...words.map(({ probability }) => probability))
    const line = words.map(({ token, probability }) => {
      const percent = `${Math.round(100 * probability)}%`
      return probability === most ? `**${token} ${percent}**` : `${token} ${percent}`
    })
    process.stdout.write(
      `\n  "${probe.text}"  (${probe.replacement} instead of ${probe.word})\n  ${wrap(line.join('  '), 110)}\n`,
    )
  }
  model.dispose()
}

function wrap(text: string, width: number): string {
  const lines: string[] = []
  let line = ''
  for (const part of text.split('  ')) {
    if (line.length + part.length > width) {
      lines.push(line)
      line = ''
    }
    line += line === '' ? part : `  ${part}`
  }
  return [...lines, line].join('\n  ')
}
