/** Every model against Hugging Face's implementation: logits, hidden states, loss and every gradient (shared/data/golden). */
import t, { type Test } from 'tap'
import {
  ElectraForMaskedLM,
  ElectraForPreTraining,
  ElectraForQuestionAnswering,
  ElectraForSequenceClassification,
  ElectraForTokenClassification,
} from '../../dist/electra/index.js'
import type { NamedParameter } from '../../dist/nn/index.js'
import { type DeviceName, resolveDevice } from '../../dist/runtime/index.js'
import type { Tensor } from '../../dist/tensor/index.js'
import { needsSharedData } from '../helpers/shared.js'
import { distance, golden, type Inputs, norm, outputsOf, readInputs, withoutPadding } from './golden-data.js'

const device = resolveDevice((process.env.VOLTAIC_TEST_DEVICE ?? 'cpu') as DeviceName)
/** float32 sums in another order; the golden data's own rule. */
const relative = 1e-4

interface Compared {
  readonly loss: Tensor
  readonly hiddenStates?: readonly Tensor[]
}

function compareCommon(
  t: Test,
  folder: string,
  inputs: Inputs,
  output: Compared,
  named: Iterable<[string, NamedParameter]>,
): void {
  const expected = outputsOf(folder)
  const close = (name: string, tensor: Tensor, values: Float32Array): void => {
    const error = distance(tensor.dataSync(), values)
    t.ok(error <= relative * norm(values), `${name}: differs by ${error} of ${norm(values)}`)
  }
  close('loss', output.loss, expected.float32('loss'))
  const [first, last] = [output.hiddenStates?.[0], output.hiddenStates?.at(-1)]
  close('hidden.first', first as Tensor, withoutPadding(expected.float32('hidden.first'), inputs))
  close('hidden.last', last as Tensor, withoutPadding(expected.float32('hidden.last'), inputs))
  output.loss.backward()
  const names = expected.names.filter((name) => name.startsWith('grad.'))
  const all = norm(names.map((name) => norm(expected.float32(name))))
  const parameters = new Map(named)
  t.same(
    names.map((name) => name.slice('grad.'.length)).sort(),
    [...parameters.keys()].sort(),
    'the parameters are those of the reference, by name',
  )
  for (const name of names) {
    const values = expected.float32(name)
    const found = parameters.get(name.slice('grad.'.length))?.grad.dataSync() ?? []
    const error = distance(found, values)
    const bound = relative * norm(values) + 1e-6 * all
    t.ok(error <= bound, `${name}: differs by ${error}, allowed ${bound}`)
  }
}

function closeLogits(t: Test, name: string, found: Tensor, expected: Float32Array): void {
  const error = distance(found.dataSync(), expected)
  t.ok(error <= relative * norm(expected), `${name}: differs by ${error} of ${norm(expected)}`)
}

for (const name of ['pretraining', 'no_embedding_projection']) {
  t.test(`${name}: ElectraForPreTraining agrees with the reference`, needsSharedData, async (t) => {
    const folder = golden(name)
    const inputs = readInputs(folder)
    const model = await ElectraForPreTraining.fromPretrained(folder, { device })
    t.same(model.loadReport, { missing: [], unexpected: [] })
    const output = model.forward({
      inputIds: inputs.ragged('input_ids'),
      tokenTypeIds: inputs.ragged('token_type_ids'),
      labels: inputs.ragged('labels'),
      outputHiddenStates: true,
    })
    const logits = withoutPadding(outputsOf(folder).float32('logits'), inputs)
    closeLogits(t, 'logits', output.logits, logits)
    const plain = model.forward({
      inputIds: inputs.ragged('input_ids'),
      tokenTypeIds: inputs.ragged('token_type_ids'),
    })
    closeLogits(t, 'logits without labels', plain.logits, logits)
    t.notOk(plain.logits.requiresGrad, 'evaluation without labels keeps no tape')
    compareCommon(t, folder, inputs, output, model.namedParameters())
    model.dispose()
  })
}

t.test('masked_lm: ElectraForMaskedLM agrees with the reference', needsSharedData, async (t) => {
  const folder = golden('masked_lm')
  const inputs = readInputs(folder)
  const model = await ElectraForMaskedLM.fromPretrained(folder, { device })
  const ids = {
    inputIds: inputs.ragged('input_ids'),
    tokenTypeIds: inputs.ragged('token_type_ids'),
  }
  const labels = inputs.ragged('labels')
  const expected = withoutPadding(outputsOf(folder).float32('logits'), inputs)
  closeLogits(t, 'logits of all tokens', model.forward(ids).logits, expected)
  const output = model.forward({ ...ids, labels, outputHiddenStates: true })
  const flat = labels.flatMap((row) => Array.from(row))
  const labelled = flat.map((label, at) => (label === -100 ? -1 : at)).filter((at) => at >= 0)
  t.same(Array.from(output.positions.dataSync()), labelled, 'logits stand at labelled positions only')
  const { vocabSize } = model.config
  const chosen = labelled.flatMap((at) => Array.from(expected.subarray(at * vocabSize, (at + 1) * vocabSize)))
  closeLogits(t, 'logits of labelled tokens', output.logits, Float32Array.from(chosen))
  compareCommon(t, folder, inputs, output, model.namedParameters())
  model.dispose()
})

for (const name of ['sequence_classification', 'sequence_regression']) {
  t.test(
    `${name}: ElectraForSequenceClassification agrees with the reference`,
    needsSharedData,
    async (t) => {
      const folder = golden(name)
      const inputs = readInputs(folder)
      const model = await ElectraForSequenceClassification.fromPretrained(folder, { device })
      const regression = name === 'sequence_regression'
      const labels = regression ? inputs.file.float32('labels') : inputs.file.int32('labels')
      const output = model.forward({
        inputIds: inputs.ragged('input_ids'),
        tokenTypeIds: inputs.ragged('token_type_ids'),
        labels,
        outputHiddenStates: true,
      })
      closeLogits(t, 'logits', output.logits, outputsOf(folder).float32('logits'))
      compareCommon(t, folder, inputs, output, model.namedParameters())
      model.dispose()
    },
  )
}

t.test(
  'token_classification: ElectraForTokenClassification agrees with the reference',
  needsSharedData,
  async (t) => {
    const folder = golden('token_classification')
    const inputs = readInputs(folder)
    const model = await ElectraForTokenClassification.fromPretrained(folder, { device })
    const output = model.forward({
      inputIds: inputs.ragged('input_ids'),
      tokenTypeIds: inputs.ragged('token_type_ids'),
      labels: inputs.ragged('labels'),
      outputHiddenStates: true,
    })
    closeLogits(t, 'logits', output.logits, withoutPadding(outputsOf(folder).float32('logits'), inputs))
    compareCommon(t, folder, inputs, output, model.namedParameters())
    model.dispose()
  },
)

t.test(
  'question_answering: ElectraForQuestionAnswering agrees with the reference',
  needsSharedData,
  async (t) => {
    const folder = golden('question_answering')
    const inputs = readInputs(folder)
    const model = await ElectraForQuestionAnswering.fromPretrained(folder, { device })
    const output = model.forward({
      inputIds: inputs.ragged('input_ids'),
      tokenTypeIds: inputs.ragged('token_type_ids'),
      startPositions: inputs.file.int32('start_positions'),
      endPositions: inputs.file.int32('end_positions'),
      outputHiddenStates: true,
    })
    const expected = outputsOf(folder)
    closeLogits(
      t,
      'start logits',
      output.startLogits,
      withoutPadding(expected.float32('start_logits'), inputs),
    )
    closeLogits(t, 'end logits', output.endLogits, withoutPadding(expected.float32('end_logits'), inputs))
    compareCommon(t, folder, inputs, output, model.namedParameters())
    model.dispose()
  },
)
