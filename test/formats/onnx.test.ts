/** ONNX files of every head, run by onnxruntime beside the reference's golden numbers and beside Voltaic itself. */
import { statSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  configOfSize,
  ElectraForMaskedLM,
  ElectraForMultipleChoice,
  ElectraForPreTraining,
  ElectraForQuestionAnswering,
  ElectraForSequenceClassification,
  ElectraForTokenClassification,
  ElectraModel,
  type ElectraPreTrainedModel,
  type FromPretrainedOptions,
} from '../../dist/electra/index.js'
import { defineElectraConfig, type ElectraConfig } from '../../dist/formats/electra-config.js'
import { golden, type Inputs, outputsOf, readInputs, withoutPadding } from '../electra/golden-data.js'
import { needsSharedData } from '../helpers/shared.js'

const runtime = await import('onnxruntime-node').catch(() => undefined)
const needsRuntime = runtime === undefined ? { skip: 'no onnxruntime-node here' } : {}

type Outputs = Record<string, { readonly dims: readonly number[]; readonly data: Float32Array }>

/** Runs a file over rows padded with 0 to `shape`. */
async function runOnnx(
  file: string,
  shape: readonly number[],
  rows: { readonly ids: Int32Array; readonly mask: Int32Array; readonly types: Int32Array },
): Promise<Outputs> {
  const { InferenceSession, Tensor } = runtime as NonNullable<typeof runtime>
  const session = await InferenceSession.create(file, { intraOpNumThreads: 2, logSeverityLevel: 3 })
  const int64 = (values: Int32Array) => new Tensor('int64', BigInt64Array.from(values, BigInt), shape)
  try {
    const feeds = {
      input_ids: int64(rows.ids),
      attention_mask: int64(rows.mask),
      token_type_ids: int64(rows.types),
    }
    return (await session.run(feeds)) as unknown as Outputs
  } finally {
    await session.release()
  }
}

function runGolden(file: string, { file: inputs, rows, width }: Inputs): Promise<Outputs> {
  const [ids, mask, types] = ['input_ids', 'attention_mask', 'token_type_ids'].map((name) =>
    inputs.int32(name),
  ) as [Int32Array, Int32Array, Int32Array]
  return runOnnx(file, [rows, width], { ids, mask, types })
}

function close(
  t: Test,
  name: string,
  found: Float32Array | undefined,
  expected: Float32Array,
  bound: number,
): void {
  const differences = Array.from(expected, (value, i) => Math.abs(value - (found?.[i] ?? Number.NaN)))
  const largest = Math.max(...differences)
  t.equal(found?.length, expected.length)
  t.ok(largest <= bound, `${name}: differs by ${largest}, allowed ${bound}`)
}

/** float32 sums in another order, through a few layers; the project's rule for exports. */
const exact = 1e-4

const models: readonly [
  folder: string,
  model: { fromPretrained(folder: string, options: FromPretrainedOptions): Promise<ElectraPreTrainedModel> },
  perToken: boolean,
  outputs?: readonly string[],
][] = [
  ['pretraining', ElectraForPreTraining, true],
  ['no_embedding_projection', ElectraForPreTraining, true],
  ['masked_lm', ElectraForMaskedLM, true],
  ['sequence_classification', ElectraForSequenceClassification, false],
  ['sequence_regression', ElectraForSequenceClassification, false],
  ['token_classification', ElectraForTokenClassification, true],
  ['question_answering', ElectraForQuestionAnswering, true, ['start_logits', 'end_logits']],
]

for (const [name, model, perToken, outputs = ['logits']] of models) {
  t.test(
    `${name}: the ONNX file agrees with the reference`,
    { ...needsSharedData, ...needsRuntime },
    async (t) => {
      const folder = golden(name)
      const file = join(t.testdir(), 'model.onnx')
      const loaded = await model.fromPretrained(folder, { device: 'cpu' })
      await loaded.saveOnnx(file)
      const inputs = readInputs(folder)
      const found = await runGolden(file, inputs)
      t.same(Object.keys(found), outputs)
      for (const output of outputs) {
        const whole = outputsOf(folder).float32(output)
        const real = (values: Float32Array): Float32Array =>
          perToken ? withoutPadding(values, inputs) : values
        close(t, output, real(found[output]?.data as Float32Array), real(whole), exact)
      }
      loaded.dispose()
    },
  )
}

t.test('the body alone gives the last hidden state', { ...needsSharedData, ...needsRuntime }, async (t) => {
  const folder = golden('pretraining')
  const file = join(t.testdir(), 'body.onnx')
  const model = await ElectraForPreTraining.fromPretrained(folder, { device: 'cpu' })
  await model.electra.saveOnnx(file)
  const inputs = readInputs(folder)
  const found = await runGolden(file, inputs)
  const expected = outputsOf(folder).float32('hidden.last')
  const hidden = withoutPadding(found.last_hidden_state?.data as Float32Array, inputs)
  close(t, 'last_hidden_state', hidden, withoutPadding(expected, inputs), exact)
  model.dispose()
})

const tiny: Partial<ElectraConfig> = {
  vocabSize: 50,
  embeddingSize: 16,
  hiddenSize: 32,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  intermediateSize: 64,
  maxPositionEmbeddings: 16,
  initializerRange: 0.3,
}

/** Ids of two rows, the second one shorter by two, padded. */
const padded = {
  rows: [
    [2, 9, 11, 31, 3],
    [2, 8, 3],
  ],
  ids: Int32Array.of(2, 9, 11, 31, 3, 2, 8, 3, 0, 0),
  mask: Int32Array.of(1, 1, 1, 1, 1, 1, 1, 1, 0, 0),
  types: new Int32Array(10),
}

for (const hiddenAct of ['gelu_new', 'relu', 'tanh', 'sigmoid'] as const) {
  t.test(`activation ${hiddenAct}: the file computes what the model does`, needsRuntime, async (t) => {
    const file = join(t.testdir(), 'model.onnx')
    const model = new ElectraForPreTraining(defineElectraConfig({ ...tiny, hiddenAct }), { seed: 1 }).eval()
    await model.saveOnnx(file)
    const found = await runOnnx(file, [2, 5], padded)
    const expected = (await model.forward({ inputIds: padded.rows }).logits.data()) as Float32Array
    close(t, 'logits', found.logits?.data.slice(0, 8), expected, exact)
    model.dispose()
  })
}

for (const [name, change] of [
  ['a projection and GELU', {}],
  ['neither', { summaryUseProj: false, summaryActivation: null }],
] as const) {
  t.test(
    `multiple choice, summary with ${name}: three axes in, a score a choice out`,
    needsRuntime,
    async (t) => {
      const file = join(t.testdir(), 'model.onnx')
      const model = new ElectraForMultipleChoice(defineElectraConfig({ ...tiny, ...change }), {
        seed: 1,
      }).eval()
      await model.saveOnnx(file)
      const found = await runOnnx(file, [1, 2, 5], padded)
      t.same(found.logits?.dims, [1, 2])
      const expected = (await model.forward({ inputIds: [padded.rows] }).logits.data()) as Float32Array
      close(t, 'logits', found.logits?.data, expected, exact)
      model.dispose()
    },
  )
}

t.test('an untied vocabulary projection is the one in the file', needsRuntime, async (t) => {
  const file = join(t.testdir(), 'model.onnx')
  const config = defineElectraConfig({ ...tiny, tieWordEmbeddings: false })
  const model = new ElectraForMaskedLM(config, { seed: 1 }).eval()
  await model.saveOnnx(file)
  const found = await runOnnx(file, [2, 5], padded)
  const expected = (await model.forward({ inputIds: padded.rows }).logits.data()) as Float32Array
  close(t, 'logits', found.logits?.data.slice(0, 8 * 50), expected, exact)
  model.dispose()
})

t.test('int8: a quarter of the weights, logits near those of float32', needsRuntime, async (t) => {
  const folder = t.testdir()
  const [whole, quantized] = [join(folder, 'model.onnx'), join(folder, 'int8.onnx')]
  const config = configOfSize('tiny', { vocabSize: 50 })
  const model = new ElectraForPreTraining(config, { seed: 1 }).eval()
  await model.saveOnnx(whole)
  await model.saveOnnx(quantized, { quantize: 'int8' })
  t.ok(statSync(quantized).size < 0.35 * statSync(whole).size)
  const expected = (await model.forward({ inputIds: padded.rows }).logits.data()) as Float32Array
  const found = await runOnnx(quantized, [2, 5], padded)
  // 8 bits hold a number to 1/250 of the largest; sums over 128 and more of them average that away.
  const largest = Math.max(...expected.map(Math.abs))
  close(t, 'logits', found.logits?.data.slice(0, 8), expected, 0.05 * largest)
  model.dispose()
})

t.test('what cannot be exported is refused by name', async (t) => {
  const file = join(t.testdir(), 'model.onnx')
  const model = new ElectraModel(defineElectraConfig(tiny), { seed: 1 })
  await t.rejects(model.saveOnnx(file, { quantize: 'int4' as 'int8' }), {
    code: 'ERR_ARGUMENT',
    message: /"int4"/,
  })
  await t.rejects(model.saveOnnx(join(file, 'no', 'folder.onnx')), { code: 'ERR_IO' })
  model.dispose()
})
