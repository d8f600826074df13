import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  BatchBuffers,
  configOfSize,
  ElectraForMaskedLM,
  ElectraForMultipleChoice,
  ElectraForPreTraining,
  ElectraForQuestionAnswering,
  ElectraForSequenceClassification,
  ElectraForTokenClassification,
  ElectraModel,
  type ElectraPreTrainedModel,
  generatorConfig,
  type ModelOptions,
  type SizeName,
} from '../../dist/electra/index.js'
import { FirstValues } from '../../dist/electra/initialization.js'
import { ModelRandomness } from '../../dist/electra/randomness.js'
import type { ElectraConfig } from '../../dist/formats/electra-config.js'
import { readModelFolder, writeModelFolder } from '../../dist/formats/model-folder.js'
import type { Module } from '../../dist/nn/index.js'
import { memoryStats } from '../../dist/runtime/index.js'
import { noGrad, setSeed, type Tensor } from '../../dist/tensor/index.js'
import { needsSharedData, sharedData } from '../helpers/shared.js'
import { device, rowsOf, smallConfig, typesOf } from './helpers.js'

const bits = (tensor: Tensor): string =>
  Buffer.from(Float32Array.from(tensor.dataSync()).buffer).toString('base64')

function refuses(t: Test, what: string, code: string, pattern: RegExp, body: () => unknown): void {
  t.throws(body, { code, message: pattern }, what)
}

// ---- sizes

const count = (model: Module): number => model.parameters().reduce((sum, { size }) => sum + size, 0)

/** Nothing is drawn: only shapes count here. */
const withoutValues = (config: ElectraConfig): NonNullable<ModelOptions['context']> => ({
  randomness: new ModelRandomness(device),
  initializers: new FirstValues(config, 'original', true),
})

/** A model's parameters, by building it with one layer and with two: every further layer is as large as the second. */
function parametersOf(
  Class: new (config: ElectraConfig, options: ModelOptions) => Module,
  config: ElectraConfig,
): number {
  const [one, two] = [1, 2].map((numHiddenLayers) => {
    const model = new Class({ ...config, numHiddenLayers }, { device, context: withoutValues(config) })
    const parameters = count(model)
    model.dispose()
    return parameters
  }) as [number, number]
  return one + (config.numHiddenLayers - 1) * (two - one)
}

const table: readonly [
  SizeName,
  fraction: number,
  discriminator: number,
  generator: number,
  shared: number,
  body: number,
][] = [
  ['small', 1 / 4, 13_549_057, 4_620_026, 3_972_864, 13_483_008],
  ['small', 1, 13_549_057, 13_546_682, 3_972_864, 13_483_008],
  ['base', 1 / 3, 109_483_009, 33_740_602, 23_837_184, 108_891_648],
  ['large', 1 / 4, 335_142_913, 51_295_290, 31_782_912, 334_092_288],
]

for (const [size, fraction, discriminator, generator, shared, body] of table) {
  t.test(
    `${size} with a generator of ${fraction.toFixed(2)} has the reference's numbers of parameters`,
    async (t) => {
      const config = configOfSize(size)
      const pretraining = parametersOf(ElectraForPreTraining, config)
      t.equal(pretraining, discriminator, 'discriminator')
      const maskedLm = parametersOf(ElectraForMaskedLM, generatorConfig(config, fraction))
      t.equal(maskedLm, generator, 'generator')
      const encoder = new ElectraModel(
        { ...config, numHiddenLayers: 1 },
        { device, context: withoutValues(config) },
      )
      t.equal(count(encoder.embeddings), shared, 'embedding block')
      encoder.dispose()
      t.equal(parametersOf(ElectraModel, config), body, 'body')
    },
  )
}

// ---- first values

t.test('first values follow from the seed and the name alone', async (t) => {
  const config = smallConfig()
  const first = new ElectraForPreTraining(config, { device, seed: 7 })
  setSeed(99)
  const again = new ElectraForPreTraining(config, { device, seed: 7 })
  const other = new ElectraForPreTraining(config, { device, seed: 8 })
  const values = (model: ElectraForPreTraining) =>
    [...model.namedParameters()].map(([name, { value }]) => [name, bits(value)])
  t.same(values(first), values(again), 'the same seed, the same bits')
  const word = (model: ElectraForPreTraining) => bits(model.electra.embeddings.wordEmbeddings.weight.value)
  t.not(word(first), word(other), 'another seed, other bits')
  const deeper = new ElectraForPreTraining({ ...config, numHiddenLayers: 3 }, { device, seed: 7 })
  const prediction = (model: ElectraForPreTraining) => bits(model.discriminatorPredictions.dense.weight.value)
  t.equal(prediction(first), prediction(deeper), 'one more layer leaves the head as it was')
  setSeed(5)
  const drawn = new ElectraForPreTraining(config, { device })
  setSeed(5)
  t.equal(word(drawn), word(new ElectraForPreTraining(config, { device })), 'without a seed, setSeed decides')
})

t.test('first values are drawn as the original and as Hugging Face draw them', async (t) => {
  const config = smallConfig({ vocabSize: 2000, padTokenId: 1 })
  const statistics = (tensor: Tensor) => {
    const data = Array.from(tensor.dataSync())
    const mean = data.reduce((sum, x) => sum + x, 0) / data.length
    const std = Math.sqrt(data.reduce((sum, x) => sum + (x - mean) ** 2, 0) / data.length)
    return { mean, std, largest: data.reduce((most, x) => Math.max(most, Math.abs(x)), 0) }
  }
  const original = new ElectraForPreTraining(config, { device, seed: 1 })
  const word = statistics(original.electra.embeddings.wordEmbeddings.weight.value)
  // A normal cut at two standard deviations has 0.8796 of its standard deviation; 48,000 draws know it to a percent.
  t.ok(
    Math.abs(word.std / (0.8796 * 0.02) - 1) < 0.02 && Math.abs(word.mean) < 5e-4,
    `word table ${word.std}`,
  )
  t.ok(word.largest <= 0.04, 'cut at two standard deviations')
  const output = statistics(original.discriminatorPredictions.densePrediction.weight.value)
  const limit = Math.sqrt(6 / (64 + 1))
  t.ok(output.largest <= limit && output.largest > 0.8 * limit, 'Glorot in the output layer')
  const huggingface = new ElectraForPreTraining(config, { device, seed: 1, initialization: 'huggingface' })
  const { value } = huggingface.electra.embeddings.wordEmbeddings.weight
  const normal = statistics(value)
  t.ok(Math.abs(normal.std / 0.02 - 1) < 0.02 && normal.largest > 0.06, `a whole normal: ${normal.std}`)
  t.ok(
    Array.from(value.dataSync().slice(24, 48)).every((x) => x === 0),
    'the padding row is zero',
  )
  t.ok(
    Array.from(value.dataSync().slice(0, 24)).some((x) => x !== 0),
    'and no other',
  )
  const sinusoidal = new ElectraForPreTraining(config, { device, seed: 1, initialization: 'sinusoidal' })
  const { wordEmbeddings, positionEmbeddings } = sinusoidal.electra.embeddings
  t.same(
    wordEmbeddings.weight.value.dataSync(),
    original.electra.embeddings.wordEmbeddings.weight.value.dataSync(),
    'sinusoidal: all but the positions as the original has them',
  )
  const [rows = 0, width = 0] = positionEmbeddings.weight.value.shape
  const waves = Array.from({ length: rows * width }, (_, at) => {
    const column = at % width
    const angle = Math.floor(at / width) / 1000 ** (Math.floor(column / 2) / (width / 2))
    return Math.fround(0.02 * (column % 2 === 0 ? Math.sin(angle) : Math.cos(angle)))
  })
  const table = positionEmbeddings.weight.value.dataSync()
  // Half of 0.02's last place: the same doubles but for the order of their divisions.
  const most = waves.reduce((most, wave, at) => Math.max(most, Math.abs(wave - (table[at] as number))), 0)
  t.ok(most < 1e-9, `positions are waves: off by ${most}`)
  refuses(t, 'an unknown style', 'ERR_ARGUMENT', /initialization is "xavier"/, () => {
    new ElectraForPreTraining(config, { device, initialization: 'xavier' as never })
  })
})

// ---- rows

t.test('a row gives the same bits alone and in any batch', async (t) => {
  const config = smallConfig()
  const rows = rowsOf([7, 48, 1, 23, 33, 2, 17])
  const types = typesOf(rows)
  const discriminator = new ElectraForPreTraining(config, { device, seed: 3 }).eval()
  const generator = new ElectraForMaskedLM(config, { device, seed: 3 }).eval()
  const classifier = new ElectraForSequenceClassification(
    { ...config, numLabels: 3 },
    { device, seed: 3 },
  ).eval()
  const spans = new ElectraForQuestionAnswering(config, { device, seed: 3 }).eval()
  const whole = { inputIds: rows, tokenTypeIds: types }
  const all = {
    discriminator: discriminator.forward(whole).logits,
    generator: generator.forward(whole).logits,
    classifier: classifier.forward(whole).logits,
    spans: spans.forward(whole).endLogits,
  }
  let start = 0
  rows.forEach((row, index) => {
    const alone = { inputIds: [row], tokenTypeIds: [types[index] as number[]] }
    const of = (tensor: Tensor): string => bits(tensor.narrow(0, start, row.length))
    t.equal(
      bits(discriminator.forward(alone).logits),
      of(all.discriminator),
      `discriminator, ${row.length} tokens`,
    )
    t.equal(bits(generator.forward(alone).logits), of(all.generator), `generator, ${row.length} tokens`)
    t.equal(bits(spans.forward(alone).endLogits), of(all.spans), `spans, ${row.length} tokens`)
    t.equal(bits(classifier.forward(alone).logits), bits(all.classifier.narrow(0, index, 1)), 'classifier')
    start += row.length
  })
})

t.test('rows may be arrays, Int32Arrays, or a flat batch with offsets', async (t) => {
  const config = smallConfig()
  const model = new ElectraForPreTraining(config, { device, seed: 3 }).eval()
  const rows = rowsOf([5, 9])
  const types = typesOf(rows)
  const logits = bits(model.forward({ inputIds: rows, tokenTypeIds: types }).logits)
  const typed = {
    inputIds: rows.map((row) => Int32Array.from(row)),
    tokenTypeIds: types.map((row) => Int32Array.from(row)),
  }
  t.equal(bits(model.forward(typed).logits), logits)
  const flat = {
    ids: Int32Array.from(rows.flat()),
    types: Int32Array.from(types.flat()),
    positions: Int32Array.from([0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
    offsets: Int32Array.from([0, 5, 14]),
    longest: 9,
  }
  t.equal(bits(model.forward(flat).logits), logits)
  const buffers = new BatchBuffers(config, device)
  const first = buffers.put({ inputIds: rows.toReversed() })
  t.not(bits(model.forward(first).logits), logits)
  const second = buffers.put(flat)
  t.equal(bits(model.forward(second).logits), logits, 'in reused device tensors')
  t.equal(second.ids, first.ids, 'which are the same as before')
  t.same(Array.from(model.forward(typed).offsets.dataSync()), [0, 5, 14])
  const untyped = model.forward({ inputIds: rows }).logits
  const zeros = rows.map((row) => row.map(() => 0))
  t.equal(
    bits(untyped),
    bits(model.forward({ inputIds: rows, tokenTypeIds: zeros }).logits),
    'types are 0 by default',
  )
  for (const [what, change, pattern] of [
    ['an id out of range', { ids: flat.ids.map(() => 200) }, /ids\[0\] is 200; expected 0 to 199/],
    ['a type out of range', { types: flat.types.map(() => 2) }, /types\[0\] is 2; expected 0 to 1/],
    ['a position out of range', { positions: flat.ids.map(() => 48) }, /positions\[0\] is 48/],
    ['offsets that go back', { offsets: Int32Array.from([0, 9, 5]) }, /offsets\[2\] is 5/],
    ['offsets beside the end', { offsets: Int32Array.from([0, 5, 9]) }, /the last of 3 offsets is 9/],
    ['a longest that is too short', { longest: 5 }, /offsets\[2\] is 14/],
    ['too few types', { types: flat.types.slice(1) }, /14 ids, 13 types/],
  ] as const) {
    t.throws(() => model.forward({ ...flat, ...change }), { message: pattern }, what)
  }
})

t.test('rows that no model can take are refused by name', async (t) => {
  const model = new ElectraForPreTraining(smallConfig(), { device }).eval()
  const forward = (inputIds: unknown, tokenTypeIds?: unknown) => () =>
    model.forward({ inputIds, tokenTypeIds } as { inputIds: number[][] })
  refuses(t, 'no rows', 'ERR_ARGUMENT', /inputIds has no rows/, forward([]))
  refuses(t, 'an empty row', 'ERR_ARGUMENT', /row 1 is empty/, forward([[2, 3], []]))
  refuses(t, 'a flat list', 'ERR_ARGUMENT', /expected rows/, forward([2, 5, 3]))
  refuses(
    t,
    'an id out of range',
    'ERR_ARGUMENT',
    /inputIds: 200 at row 0, token 1; expected a token id from 0 to 199/,
    forward([[2, 200]]),
  )
  refuses(t, 'a negative id', 'ERR_ARGUMENT', /inputIds: -1 at row 0, token 0/, forward([[-1]]))
  refuses(t, 'no whole number', 'ERR_ARGUMENT', /inputIds: 2.5/, forward([[2.5]]))
  refuses(
    t,
    'a row too long',
    'ERR_ARGUMENT',
    /row 0 has 49 tokens, more than the model's 48 positions/,
    forward(rowsOf([49])),
  )
  refuses(
    t,
    'rows without partner',
    'ERR_SHAPE',
    /tokenTypeIds has 1 rows and inputIds has 2/,
    forward([[2], [2]], [[0]]),
  )
  refuses(
    t,
    'rows of other lengths',
    'ERR_SHAPE',
    /tokenTypeIds: row 1 has 1 numbers and inputIds has 2/,
    forward([[2], [2, 3]], [[0], [0]]),
  )
  refuses(
    t,
    'a type out of range',
    'ERR_ARGUMENT',
    /tokenTypeIds: 2 at row 0, token 0; expected a type from 0 to 1/,
    forward([[2]], [[2]]),
  )
  refuses(t, 'nothing at all', 'ERR_ARGUMENT', /expected \{ inputIds: rows/, () =>
    model.forward({} as { inputIds: number[][] }),
  )
})

// ---- labels

t.test('labels out of range and of wrong shape are refused by name', async (t) => {
  const inputIds = rowsOf([3, 4])
  const config = smallConfig({ numLabels: 3 })
  const detector = new ElectraForPreTraining(config, { device })
  const labels = (rows: number[][]) => () => detector.forward({ inputIds, labels: rows })
  refuses(
    t,
    'a detector label',
    'ERR_ARGUMENT',
    /labels: 2 at row 0, token 1; expected 0 to 1, or -100/,
    labels([
      [0, 2, 0],
      [0, 0, 0, 0],
    ]),
  )
  refuses(
    t,
    'too few labels',
    'ERR_SHAPE',
    /labels: row 1 has 3 numbers/,
    labels([
      [0, 0, 0],
      [0, 0, 0],
    ]),
  )
  const tagger = new ElectraForTokenClassification(config, { device })
  refuses(t, 'a tag', 'ERR_ARGUMENT', /labels: 3 at row 1, token 3; expected 0 to 2/, () =>
    tagger.forward({
      inputIds,
      labels: [
        [0, 0, 0],
        [0, 0, 0, 3],
      ],
    }),
  )
  const generator = new ElectraForMaskedLM(config, { device })
  refuses(t, 'a token', 'ERR_ARGUMENT', /labels: 200 at row 0/, () =>
    generator.forward({
      inputIds,
      labels: [
        [200, 0, 0],
        [0, 0, 0, 0],
      ],
    }),
  )
  refuses(t, 'a position', 'ERR_ARGUMENT', /maskedPositions: 4 for sequence 1; expected 0 to 3/, () =>
    generator.forward({ inputIds, maskedPositions: [[0], [4]] }),
  )
  refuses(t, 'positions without partner', 'ERR_SHAPE', /maskedPositions has 1 rows/, () =>
    generator.forward({ inputIds, maskedPositions: [[0]] }),
  )
  const classifier = new ElectraForSequenceClassification(config, { device })
  refuses(t, 'a class', 'ERR_ARGUMENT', /labels: 3 for sequence 0; expected 0 to 2/, () =>
    classifier.forward({ inputIds, labels: [3, 0] }),
  )
  refuses(t, 'too few classes', 'ERR_SHAPE', /1 numbers for 2 sequences/, () =>
    classifier.forward({ inputIds, labels: [0] }),
  )
  refuses(t, 'several labels of wrong width', 'ERR_SHAPE', /2 numbers for sequence 0; expected 3/, () =>
    classifier.forward({
      inputIds,
      labels: [
        [0, 1],
        [1, 0],
      ],
    }),
  )
  refuses(t, 'no probability', 'ERR_ARGUMENT', /labels: 2 for sequence 1/, () =>
    classifier.forward({
      inputIds,
      labels: [
        [0, 1, 0],
        [1, 2, 0],
      ],
    }),
  )
  const spans = new ElectraForQuestionAnswering(config, { device })
  refuses(
    t,
    'a start behind the row',
    'ERR_ARGUMENT',
    /startPositions: 3 for sequence 0; expected 0 to 2/,
    () => spans.forward({ inputIds, startPositions: [3, 0], endPositions: [0, 0] }),
  )
  const choices = new ElectraForMultipleChoice(config, { device })
  refuses(t, 'choices of unequal number', 'ERR_SHAPE', /as many for every question/, () =>
    choices.forward({ inputIds: [inputIds, [[2, 3]]] }),
  )
  refuses(t, 'a choice that is not there', 'ERR_ARGUMENT', /labels: 2 for sequence 0; expected 0 to 1/, () =>
    choices.forward({ inputIds: [inputIds], labels: [2] }),
  )
})

t.test('ignored labels count in no loss, and no labels at all give 0', async (t) => {
  const inputIds = rowsOf([3, 4])
  const model = new ElectraForTokenClassification(smallConfig({ numLabels: 3 }), { device, seed: 1 }).eval()
  const some = model.forward({
    inputIds,
    labels: [
      [-100, 1, -100],
      [2, -100, -100, -100],
    ],
  })
  const rows = some.logits.toArray() as number[][]
  const loss = (row: number[], label: number): number =>
    Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0)) - (row[label] as number)
  const expected = (loss(rows[1] as number[], 1) + loss(rows[3] as number[], 2)) / 2
  // A mean of two logarithms in float32.
  t.ok(Math.abs(some.loss.item() - expected) < 1e-6, `${some.loss.item()}, expected ${expected}`)
  t.equal(model.forward({ inputIds, labels: inputIds.map((row) => row.map(() => -100)) }).loss.item(), 0)
  const generator = new ElectraForMaskedLM(smallConfig(), { device, seed: 1 }).eval()
  const none = generator.forward({ inputIds, labels: inputIds.map((row) => row.map(() => -100)) })
  t.equal(none.loss.item(), 0)
  t.same(none.logits.shape, [0, 200])
  none.loss.backward()
  const asked = generator.forward({ inputIds, maskedPositions: [[2, 0], [3]] })
  t.same(Array.from(asked.positions.dataSync()), [2, 0, 6])
  const all = generator.forward({ inputIds })
  t.equal(
    bits(asked.logits.narrow(0, 2, 1)),
    bits(all.logits.narrow(0, 6, 1)),
    'logits at asked-for positions',
  )
})

t.test('the classification loss follows the problem, named or inferred', async (t) => {
  const inputIds = rowsOf([3, 4])
  const of = (options: Partial<ElectraConfig>) =>
    new ElectraForSequenceClassification(smallConfig(options), { device, seed: 1 }).eval()
  const several = of({ numLabels: 2 }).forward({
    inputIds,
    labels: [
      [1, 0],
      [1, 1],
    ],
  })
  const sigmoid = (several.logits.toArray() as number[][]).flatMap((row, s) =>
    row.map(
      (x, i) =>
        Math.log(1 + Math.exp(x)) -
        x *
          [
            [1, 0],
            [1, 1],
          ][s]![i]!,
    ),
  )
  const mean = (values: number[]): number => values.reduce((sum, x) => sum + x, 0) / values.length
  t.ok(Math.abs(several.loss.item() - mean(sigmoid)) < 1e-6, 'rows of labels: sigmoid cross-entropy')
  const regression = of({ numLabels: 1 }).forward({ inputIds, labels: [0.5, -2] })
  const squares = (regression.logits.toArray() as number[][]).map((row, s) => (row[0]! - [0.5, -2][s]!) ** 2)
  t.ok(Math.abs(regression.loss.item() - mean(squares)) < 1e-5, 'one label: squared error')
  const named = of({ numLabels: 2, problemType: 'regression' }).forward({
    inputIds,
    labels: [
      [1, 2],
      [3, 4],
    ],
  })
  const both = (named.logits.toArray() as number[][]).flatMap((row, s) =>
    row.map(
      (x, i) =>
        (x -
          [
            [1, 2],
            [3, 4],
          ][s]![i]!) **
        2,
    ),
  )
  t.ok(Math.abs(named.loss.item() - mean(both)) < 1e-5, 'two numbers a sequence')
})

// ---- training and evaluation

t.test(
  'evaluation keeps no tape without labels, training does; dropout is active in training only',
  async (t) => {
    const config = smallConfig({ hiddenDropoutProb: 0.1, attentionProbsDropoutProb: 0.1 })
    const inputIds = rowsOf([9, 14])
    const model = new ElectraForPreTraining(config, { device, seed: 3 })
    model.eval()
    const still = model.forward({ inputIds }).logits
    t.notOk(still.requiresGrad)
    t.equal(bits(still), bits(model.forward({ inputIds }).logits), 'evaluation is a function of the input')
    model.train()
    const [first, second] = [model.forward({ inputIds }).logits, model.forward({ inputIds }).logits]
    t.ok(first.requiresGrad)
    t.not(bits(first), bits(still), 'training drops')
    t.not(bits(first), bits(second), 'other elements at each pass')
    const twin = new ElectraForPreTraining(config, { device, seed: 3 })
    t.equal(bits(twin.forward({ inputIds }).logits), bits(first), 'which follow from the seed')
    first.sum().backward()
    t.ok(model.electra.encoder.layer[0]?.attention.weight.hasGrad)
    t.notOk(noGrad(() => model.forward({ inputIds }).logits).requiresGrad)
  },
)

t.test('bf16 computes in half the bits and gives logits in float32', async (t) => {
  const inputIds = rowsOf([9, 30])
  const labels = inputIds.map((row) => row.map((_, i) => i % 2))
  const build = (precision: 'fp32' | 'bf16') =>
    new ElectraForPreTraining(smallConfig(), { device, seed: 3, precision }).eval()
  const [full, half] = [build('fp32'), build('bf16')]
  const [expected, found] = [full, half].map((model) =>
    model.forward({ inputIds, labels, outputHiddenStates: true }),
  ) as [
    ReturnType<typeof full.forward> & { loss: Tensor },
    ReturnType<typeof full.forward> & { loss: Tensor },
  ]
  t.equal(found.logits.dtype, 'float32')
  t.equal(found.hiddenStates?.[0]?.dtype, 'bfloat16')
  // bfloat16 keeps 8 bits; two layers lose a few units of the last place.
  t.ok(
    Math.abs(found.loss.item() - expected.loss.item()) < 0.02,
    `${found.loss.item()} and ${expected.loss.item()}`,
  )
  found.loss.backward()
  expected.loss.backward()
  const gradient = (model: ElectraForPreTraining) =>
    model.electra.encoder.layer[0]?.intermediate.weight.grad.dataSync() as Float32Array
  const [a, b] = [gradient(half), gradient(full)]
  const size = Math.sqrt(b.reduce((sum, x) => sum + x * x, 0))
  const error = Math.sqrt(a.reduce((sum, x, i) => sum + (x - b[i]!) ** 2, 0))
  t.ok(error < 0.1 * size, `gradient differs by ${error} of ${size}`)
  refuses(t, 'an unknown precision', 'ERR_ARGUMENT', /precision is "fp16"/, () => build('fp16' as never))
})

// ---- files

t.test('a saved model loads to the same bits, and saves to the same file', async (t) => {
  const folder = t.testdir()
  const config = smallConfig({ numLabels: 3 })
  const classes = [
    ElectraModel,
    ElectraForPreTraining,
    ElectraForMaskedLM,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
    ElectraForQuestionAnswering,
    ElectraForMultipleChoice,
  ] as const
  for (const Class of classes) {
    const model = new Class(config, { device, seed: 3 })
    const [first, second] = ['a', 'b'].map((name) => join(folder, `${Class.name}-${name}`)) as [
      string,
      string,
    ]
    await model.savePretrained(first, { files: { 'vocab.txt': '[PAD]\n' } })
    t.equal(await readFile(join(first, 'vocab.txt'), 'utf8'), '[PAD]\n')
    const json = JSON.parse(await readFile(join(first, 'config.json'), 'utf8'))
    t.same(json.architectures, [Class.name])
    const loaded = await (Class as typeof ElectraModel).fromPretrained(first, { device })
    t.notOk(loaded.training, 'in evaluation mode')
    t.same(loaded.loadReport, { missing: [], unexpected: [] })
    await loaded.savePretrained(second)
    const files = await Promise.all([first, second].map((name) => readFile(join(name, 'model.safetensors'))))
    t.ok(files[0]?.equals(files[1] as Buffer), `${Class.name}: the same bytes`)
  }
})

t.test("a golden model's tensors come back byte for byte", needsSharedData, async (t) => {
  const source = join(sharedData as string, 'golden', 'masked_lm')
  const folder = join(t.testdir(), 'copy')
  const model = await ElectraForMaskedLM.fromPretrained(source, { device })
  await model.savePretrained(folder)
  using before = readModelFolder(source)
  using after = readModelFolder(folder)
  t.same([...after.tensors.names].sort(), [...before.tensors.names].sort())
  t.notOk(after.tensors.has('generator_lm_head.weight'), 'the tied projection is not written')
  for (const name of before.tensors.names) {
    t.ok(Buffer.compare(before.tensors.bytes(name), after.tensors.bytes(name)) === 0, name)
  }
})

t.test('a head that the file lacks gets first values, and the report and one warning say so', async (t) => {
  const folder = join(t.testdir(), 'model')
  await new ElectraForPreTraining(smallConfig(), { device, seed: 3 }).savePretrained(folder)
  const warnings: Error[] = []
  const listen = (warning: Error): void => {
    warnings.push(warning)
  }
  process.on('warning', listen)
  const config = { id2label: { 0: 'no', 1: 'yes', 2: 'perhaps' } }
  const model = await ElectraForSequenceClassification.fromPretrained(folder, { device, config, seed: 4 })
  await new Promise((resolve) => setImmediate(resolve))
  process.off('warning', listen)
  t.same(model.loadReport.missing, [
    'classifier.dense.weight',
    'classifier.dense.bias',
    'classifier.out_proj.weight',
    'classifier.out_proj.bias',
  ])
  t.match(model.loadReport.unexpected, /discriminator_predictions/)
  t.equal(model.loadReport.unexpected.length, 4)
  t.equal(warnings.length, 1)
  t.match(
    warnings[0]?.message,
    /not trained yet: classifier\.dense\.weight.*not in the model: discriminator_predictions/,
  )
  t.equal(model.config.numLabels, 3)
  t.equal(model.config.label2id.perhaps, 2)
  t.same(model.forward({ inputIds: rowsOf([4]) }).logits.shape, [1, 3])
  const first = await ElectraForSequenceClassification.fromPretrained(folder, {
    device,
    seed: 4,
    config: { numLabels: 2 },
  })
  const again = await ElectraForSequenceClassification.fromPretrained(folder, {
    device,
    seed: 4,
    config: { numLabels: 2 },
  })
  t.equal(bits(first.classifier.outProj.weight.value), bits(again.classifier.outProj.weight.value), 'by seed')
})

t.test('weights that do not fit the configuration are refused', async (t) => {
  const folder = t.testdir()
  const config = smallConfig()
  const model = new ElectraForPreTraining(config, { device })
  const tensors = model.tensorsToWrite()
  await writeModelFolder(join(folder, 'deeper'), { config: { ...config, numHiddenLayers: 3 }, tensors })
  await t.rejects(
    ElectraForPreTraining.fromPretrained(join(folder, 'deeper'), { device }),
    {
      code: 'ERR_FORMAT',
      message: /the weights lack electra\.encoder\.layer\.2\..*and 10 more, which the configuration asks for/,
    },
    'more layers than the file has',
  )
  await writeModelFolder(join(folder, 'wider'), { config: { ...config, intermediateSize: 128 }, tensors })
  await t.rejects(
    ElectraForPreTraining.fromPretrained(join(folder, 'wider'), { device }),
    { code: 'ERR_FORMAT', message: /intermediate\.dense\.weight has shape \[96, 64\].*intermediate_size/ },
    'another width',
  )
  await t.rejects(
    ElectraForPreTraining.fromPretrained(join(folder, 'nowhere'), { device }),
    { code: 'ERR_IO' },
    'no folder',
  )
})

t.test('an untied generator has an output projection of its own', async (t) => {
  const model = new ElectraForMaskedLM(smallConfig({ tieWordEmbeddings: false }), { device, seed: 1 })
  const names = [...model.namedParameters()].map(([name]) => name)
  t.ok(names.includes('generator_lm_head.weight'))
  const tied = new ElectraForMaskedLM(smallConfig(), { device, seed: 1 })
  t.notOk([...tied.namedParameters()].map(([name]) => name).includes('generator_lm_head.weight'))
})

t.test('a pass leaves no tensor behind but its outputs', async (t) => {
  const config = smallConfig({ numLabels: 3, hiddenDropoutProb: 0.1, classifierDropout: 0.1 })
  const inputIds = rowsOf([4, 3])
  const cases: readonly [ElectraPreTrainedModel, labels: object, input?: object][] = [
    [new ElectraModel(config, { device }), {}],
    [
      new ElectraForPreTraining(config, { device }),
      { labels: inputIds.map((row) => row.map((_, i) => i % 2)) },
    ],
    [new ElectraForMaskedLM(config, { device }), { labels: inputIds }],
    [new ElectraForSequenceClassification(config, { device }), { labels: [1, 2] }],
    [
      new ElectraForTokenClassification(config, { device }),
      { labels: inputIds.map((row) => row.map((_, i) => i % 3)) },
    ],
    [new ElectraForQuestionAnswering(config, { device }), { startPositions: [1, 1], endPositions: [2, 1] }],
    [new ElectraForMultipleChoice(config, { device }), { labels: [1] }, { inputIds: [inputIds] }],
  ]
  for (const [model, labels, input = { inputIds }] of cases) {
    const pass = (given: object): void => {
      const { forward } = model as unknown as { forward(input: object): Record<string, Tensor> }
      const output = forward.call(model, given)
      output.loss?.backward()
      for (const tensor of Object.values(output)) tensor.dispose()
      model.zeroGrad()
    }
    for (const training of [true, false]) {
      model.train(training)
      const all = { ...input, ...labels }
      // At the second use of a content the CPU packs the weights, for as long as it stays.
      for (let i = 0; i < 2; i++) {
        pass(all)
        pass(input)
      }
      const before = memoryStats(device).tensors
      for (let i = 0; i < 3; i++) pass(all)
      pass(input)
      t.equal(
        memoryStats(device).tensors,
        before,
        `${model.architecture}, ${training ? 'training' : 'evaluation'}`,
      )
    }
  }
})
