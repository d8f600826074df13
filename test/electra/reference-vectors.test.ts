/** The tiny model of the specification's section 9.1: weights by formula, numbers computed in double precision by Hugging Face's code. */
import t, { type Test } from 'tap'
import {
  ElectraForMaskedLM,
  ElectraForMultipleChoice,
  ElectraForPreTraining,
  ElectraForQuestionAnswering,
  ElectraForSequenceClassification,
  ElectraForTokenClassification,
  type ElectraPreTrainedModel,
} from '../../dist/electra/index.js'
import { defineElectraConfig, type ElectraConfig } from '../../dist/formats/electra-config.js'
import { type DeviceName, resolveDevice } from '../../dist/runtime/index.js'
import { arange, type Tensor, tensor, zeros } from '../../dist/tensor/index.js'

const device = resolveDevice((process.env.VOLTAIC_TEST_DEVICE ?? 'cpu') as DeviceName)
/** float32 against float64 through two layers of numbers of order 1. */
const tolerance = 1e-5

const config = (options: Partial<ElectraConfig> = {}): ElectraConfig =>
  defineElectraConfig({
    vocabSize: 13,
    embeddingSize: 4,
    hiddenSize: 8,
    numHiddenLayers: 2,
    numAttentionHeads: 2,
    intermediateSize: 16,
    maxPositionEmbeddings: 7,
    typeVocabSize: 2,
    ...options,
  })

const byteOrder = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b))

/** Element i of the j-th tensor in byte order of names is 0.3 sin(0.7 i + 1.3 j + 0.5), and 1 more in LayerNorm weights. */
function assignByFormula(model: ElectraPreTrainedModel): number {
  const named = [...model.namedParameters()].sort(([a], [b]) => byteOrder(a, b))
  named.forEach(([name, parameter], j) => {
    const shift = name.endsWith('LayerNorm.weight') ? 1 : 0
    parameter.assign(
      Float32Array.from(
        { length: parameter.size },
        (_, i) => shift + 0.3 * Math.sin(0.7 * i + 1.3 * j + 0.5),
      ),
    )
  })
  return named.length
}

const inputIds = [
  [2, 5, 6, 7, 3],
  [2, 9, 3, 10, 11, 3],
]
const tokenTypeIds = [
  [0, 0, 0, 0, 0],
  [0, 0, 0, 1, 1, 1],
]

function close(t: Test, what: string, found: ArrayLike<number>, expected: readonly number[]): void {
  const worst = Math.max(...expected.map((value, i) => Math.abs(value - (found[i] as number))))
  t.ok(
    found.length === expected.length && worst <= tolerance,
    `${what}: differs by ${worst} at most (${found.length} numbers)`,
  )
}

const row = (tensor: Tensor, index: number): number[] => (tensor.toArray() as number[][])[index] as number[]

t.test('the discriminator: embeddings, hidden states, logits and loss', async (t) => {
  const model = new ElectraForPreTraining(config(), { device }).eval()
  t.equal(assignByFormula(model), 43, 'as many tensors as the reference')
  const names = [...model.namedParameters()].map(([name]) => name).sort(byteOrder)
  t.equal(names[0], 'discriminator_predictions.dense.bias')
  t.equal(names[4], 'electra.embeddings.LayerNorm.bias')
  t.equal(names[9], 'electra.embeddings_project.bias')
  t.equal(names[42], 'electra.encoder.layer.1.output.dense.weight')
  const output = model.forward({
    inputIds,
    tokenTypeIds,
    labels: [
      [0, 1, 0, 0, 0],
      [0, 0, 0, 1, 1, 0],
    ],
    outputHiddenStates: true,
  })
  const hidden = output.hiddenStates?.at(-1) as Tensor
  close(
    t,
    'last hidden [0,0]',
    row(hidden, 0),
    [
      -0.55935675, -0.789000335, 0.421499841, 1.53021943, -0.632061599, -0.467783861, -1.113687714,
      1.122514453,
    ],
  )
  close(
    t,
    'last hidden [1,5]',
    row(hidden, 10),
    [
      -0.240942425, -0.917154254, 0.597212765, 0.356696236, 1.134659873, -1.665891554, 0.132999527,
      -0.049472404,
    ],
  )
  close(
    t,
    'logits',
    output.logits.dataSync(),
    [
      -0.148102261, -0.060211956, -0.145113145, -0.057643274, -0.142655298, -0.078024687, -0.01497421,
      -0.069593454, -0.042332357, -0.033933567, -0.045436062,
    ],
  )
  close(t, 'loss', [output.loss.item()], [0.668444186])
  const embedded = model.electra.embeddings.forward(
    {
      ids: tensor([2, 5], { dtype: 'int32', device }),
      types: zeros([2], { dtype: 'int32', device }),
      positions: arange(0, 2, 1, { dtype: 'int32', device }),
    },
    { dtype: 'float32', dropout: null },
  )
  close(t, 'embedding block [0,1]', row(embedded, 1), [-1.525463661, -0.839704515, 0.660268438, 1.898774134])
})

t.test('the generator: tied logits at labelled positions and loss', async (t) => {
  const model = new ElectraForMaskedLM(config(), { device }).eval()
  assignByFormula(model)
  const output = model.forward({
    inputIds,
    tokenTypeIds,
    labels: [
      [-100, 8, -100, -100, -100],
      [-100, -100, -100, 12, 4, -100],
    ],
  })
  t.same(Array.from(output.positions.dataSync()), [1, 8, 9])
  close(
    t,
    'logits [0,1]',
    row(output.logits, 0),
    [
      0.081351271, 0.477488912, 0.041007302, 0.185009303, -0.280186067, -0.229347536, -0.272571644,
      -0.191336223, 0.188854712, 0.090172562, 0.475144719, 0.035362388, 0.185975853,
    ],
  )
  close(t, 'loss', [output.loss.item()], [2.6316281])
})

t.test('sequence classification: logits', async (t) => {
  const model = new ElectraForSequenceClassification(config({ numLabels: 3 }), { device }).eval()
  assignByFormula(model)
  const { logits } = model.forward({ inputIds, tokenTypeIds })
  close(
    t,
    'logits',
    logits.dataSync(),
    [-0.148102261, -0.511022376, -0.64062395, -0.078024687, -0.44743802, -0.61207381],
  )
})

t.test('token classification: logits', async (t) => {
  const model = new ElectraForTokenClassification(config({ numLabels: 3 }), { device }).eval()
  assignByFormula(model)
  const { logits } = model.forward({ inputIds, tokenTypeIds })
  close(t, 'logits [0,1]', row(logits, 1), [-0.025117179, 0.656715668, 1.037772768])
})

t.test('question answering: start and end logits', async (t) => {
  const model = new ElectraForQuestionAnswering(config(), { device }).eval()
  assignByFormula(model)
  const { startLogits, endLogits } = model.forward({ inputIds, tokenTypeIds })
  close(
    t,
    'start',
    startLogits.dataSync().slice(0, 5),
    [1.772184689, 1.728928163, 2.01441567, 1.726272202, 1.948511933],
  )
  close(
    t,
    'end',
    endLogits.dataSync().slice(0, 5),
    [1.52249832, 1.473127886, 1.664026982, 1.47226824, 1.527405051],
  )
})

t.test(
  'multiple choice: the head is dense + GELU over the first token, then one score a choice',
  async (t) => {
    const model = new ElectraForMultipleChoice(config(), { device }).eval()
    assignByFormula(model)
    const output = model.forward({
      inputIds: [inputIds, [...inputIds].reverse()],
      tokenTypeIds: [tokenTypeIds, [...tokenTypeIds].reverse()],
      labels: [0, 1],
      outputHiddenStates: true,
    })
    const parameters = new Map(model.namedParameters())
    const values = async (name: string): Promise<Float32Array> =>
      (await parameters.get(name)?.data()) as Float32Array
    const [dense, denseBias, score, scoreBias] = (await Promise.all(
      [
        'sequence_summary.summary.weight',
        'sequence_summary.summary.bias',
        'classifier.weight',
        'classifier.bias',
      ].map(values),
    )) as [Float32Array, Float32Array, Float32Array, Float32Array]
    const erf = (x: number): number => {
      let [sum, term] = [x, x]
      for (let n = 1; n < 60; n++) {
        term *= (-x * x) / n
        sum += term / (2 * n + 1)
      }
      return (2 / Math.sqrt(Math.PI)) * sum
    }
    const hidden = output.hiddenStates?.at(-1) as Tensor
    const expected = [0, 5].map((token) => {
      const first = row(hidden, token)
      const summary = Array.from(denseBias, (bias, i) => {
        const x = first.reduce((sum, value, k) => sum + value * (dense[i * 8 + k] as number), bias)
        return 0.5 * x * (1 + erf(x / Math.SQRT2))
      })
      return summary.reduce((sum, value, k) => sum + value * (score[k] as number), scoreBias[0] as number)
    }) as [number, number]
    t.same(output.logits.shape, [2, 2])
    close(t, 'logits', output.logits.dataSync(), [expected[0], expected[1], expected[1], expected[0]])
    // Both questions have the same two choices and want the first of them.
    close(t, 'loss', [output.loss.item()], [Math.log(1 + Math.exp(expected[1] - expected[0]))])
  },
)
