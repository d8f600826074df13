/** Heads over the first token: the last layer computes that token alone, and nothing else of the result changes. */
import t from 'tap'
import {
  defineElectraConfig,
  ElectraForMultipleChoice,
  ElectraForSequenceClassification,
  type ElectraPreTrainedModel,
} from 'voltaic'

const config = defineElectraConfig({
  vocabSize: 40,
  embeddingSize: 16,
  hiddenSize: 32,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  intermediateSize: 64,
  hiddenDropoutProb: 0,
  attentionProbsDropoutProb: 0,
  numLabels: 3,
})
const rows = [
  [2, 7, 8, 9, 3],
  [2, 3],
  [2, 11, 12, 13, 14, 15, 16, 3],
  [2, 5, 3],
]

/** Logits and gradients, without and with all hidden states asked for: only then is everything computed. */
async function bothWays(
  model: ElectraPreTrainedModel,
  forward: (outputHiddenStates: boolean) => {
    logits: { data(): Promise<unknown> }
    loss: { backward(): void }
  },
) {
  const results = []
  for (const all of [false, true]) {
    model.zeroGrad()
    const { logits, loss } = forward(all)
    const found = Array.from((await logits.data()) as Float32Array)
    loss.backward()
    const gradients = new Map<string, number[]>()
    for (const [name, parameter] of model.namedParameters())
      gradients.set(name, Array.from((await parameter.grad.data()) as Float32Array))
    results.push({ logits: found, gradients })
  }
  model.dispose()
  return results as [(typeof results)[0], (typeof results)[0]]
}

function checkSame(
  t: { ok(value: boolean, message: string): void; same(a: unknown, b: unknown, message: string): void },
  [short, full]: Awaited<ReturnType<typeof bothWays>>,
): void {
  t.same(short.logits, full.logits, 'in fp32 a row does not depend on the rows around it')
  for (const [name, expected] of full.gradients) {
    const found = short.gradients.get(name) as number[]
    const largest = Math.max(...expected.map(Math.abs), 1e-6)
    const error = Math.max(...expected.map((value, at) => Math.abs(value - (found[at] as number)))) / largest
    // Sums over tokens leave out terms that are 0, so their order differs: a few roundings of 2^-24.
    t.ok(error < 2e-6, `${name}: gradients differ by ${error}`)
  }
}

t.test('classification', async (t) => {
  const model = new ElectraForSequenceClassification(config, { seed: 3 }).eval()
  checkSame(
    t,
    await bothWays(model, (outputHiddenStates) =>
      model.forward({ inputIds: rows, labels: [0, 2, 1, 1], outputHiddenStates }),
    ),
  )
})

t.test('multiple choice', async (t) => {
  const model = new ElectraForMultipleChoice(config, { seed: 3 }).eval()
  const inputIds = [rows.slice(0, 2), rows.slice(2)]
  checkSame(
    t,
    await bothWays(model, (outputHiddenStates) =>
      model.forward({ inputIds, labels: [0, 1], outputHiddenStates }),
    ),
  )
})
