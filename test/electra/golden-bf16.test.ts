/**
 * Every model in bf16 against Hugging Face's float32 numbers (shared/data/golden), by flash-attention's rule: what is computed may err
 * at most twice as much as a straightforward 16-bit computation (plain-electra.ts, on the CPU) errs against the same numbers.
 */
import t, { type Test } from 'tap'
import {
  ElectraForMaskedLM,
  ElectraForPreTraining,
  ElectraForQuestionAnswering,
  ElectraForSequenceClassification,
  ElectraForTokenClassification,
  type ElectraPreTrainedModel,
} from '../../dist/electra/index.js'
import { scope, type Tensor } from '../../dist/tensor/index.js'
import { needsSharedData } from '../helpers/shared.js'
import { distance, golden, type Inputs, norm, outputsOf, readInputs, withoutPadding } from './golden-data.js'
import { device } from './helpers.js'
import { PlainElectra } from './plain-electra.js'

const half = { device, precision: 'bf16' } as const
/** A tensor of few numbers errs by luck: a rounding of its size is always allowed. */
const rounding = 2 ** -9

/** Names with the tensors found and the plain ones. */
type Pairs = readonly (readonly [name: string, found: Tensor, plain: Tensor])[]

function compare(
  t: Test,
  folder: string,
  inputs: Inputs,
  pairs: Pairs,
  model: ElectraPreTrainedModel,
  plain: PlainElectra,
  loss: { readonly found: Tensor; readonly plain: Tensor },
): void {
  const expected = outputsOf(folder)
  const check = (
    name: string,
    found: Tensor,
    straightforward: Tensor,
    values: Float32Array,
    floor: number,
  ) => {
    const error = distance(found.to('float32').dataSync(), values)
    const allowed = 2 * distance(straightforward.to('float32').dataSync(), values) + floor
    t.ok(error <= allowed, `${name}: errs by ${error}, allowed ${allowed}, of ${norm(values)}`)
  }
  for (const [name, found, straightforward] of pairs) {
    const stored = expected.float32(name)
    const perToken = expected.info(name).shape[1] === inputs.width
    const values = perToken ? withoutPadding(stored, inputs) : stored
    check(name, found, straightforward, values, 0)
  }
  const value = expected.float32('loss')
  check('loss', loss.found, loss.plain, value, rounding * norm(value))
  loss.found.backward()
  loss.plain.backward()
  const names = expected.names.filter((name) => name.startsWith('grad.'))
  const all = norm(names.map((name) => norm(expected.float32(name))))
  const parameters = new Map(model.namedParameters())
  for (const name of names) {
    const bare = name.slice('grad.'.length)
    const values = expected.float32(name)
    const found = parameters.get(bare)?.grad as Tensor
    // A gradient that is zero but for rounding is measured against all of them.
    const floor = rounding * norm(values) + 1e-5 * all
    check(name, found, plain.parameter(bare).grad as Tensor, values, floor)
  }
}

async function plainOf(model: ElectraPreTrainedModel): Promise<PlainElectra> {
  const values: [string, readonly number[], Float32Array][] = []
  for (const [name, parameter] of model.namedParameters())
    values.push([name, parameter.shape, (await parameter.data()) as Float32Array])
  return new PlainElectra(model.config, values, 'bfloat16')
}

const idsOf = (inputs: Inputs) => ({
  inputIds: inputs.ragged('input_ids'),
  tokenTypeIds: inputs.ragged('token_type_ids'),
  outputHiddenStates: true,
})
const flat = (rows: readonly Int32Array[]): Int32Array =>
  Int32Array.from(rows.flatMap((row) => Array.from(row)))

function hiddenPairs(states: readonly Tensor[] | undefined, plain: { first: Tensor; last: Tensor }): Pairs {
  return [
    ['hidden.first', states?.[0] as Tensor, plain.first],
    ['hidden.last', states?.at(-1) as Tensor, plain.last],
  ]
}

for (const name of ['pretraining', 'no_embedding_projection']) {
  t.test(`${name} in bf16`, needsSharedData, async (t) => {
    const folder = golden(name)
    const inputs = readInputs(folder)
    const model = await ElectraForPreTraining.fromPretrained(folder, half)
    const plain = await plainOf(model)
    const labels = inputs.ragged('labels')
    scope(() => {
      const output = model.forward({ ...idsOf(inputs), labels })
      const hidden = plain.encode({ ids: inputs.ragged('input_ids'), types: inputs.ragged('token_type_ids') })
      const simple = plain.pretraining(hidden.last, flat(labels))
      const pairs: Pairs = [
        ['logits', output.logits, simple.logits],
        ...hiddenPairs(output.hiddenStates, hidden),
      ]
      compare(t, folder, inputs, pairs, model, plain, { found: output.loss, plain: simple.loss })
    })
    model.dispose()
  })
}

t.test('masked_lm in bf16', needsSharedData, async (t) => {
  const folder = golden('masked_lm')
  const inputs = readInputs(folder)
  const model = await ElectraForMaskedLM.fromPretrained(folder, half)
  const plain = await plainOf(model)
  const labels = inputs.ragged('labels')
  scope(() => {
    const output = model.forward({ ...idsOf(inputs), labels })
    const hidden = plain.encode({ ids: inputs.ragged('input_ids'), types: inputs.ragged('token_type_ids') })
    const all = flat(labels)
    const positions = Int32Array.from(all.keys()).filter((at) => all[at] !== -100)
    const simple = plain.maskedLm(
      hidden.last,
      positions,
      positions.map((at) => all[at] as number),
    )
    const values = withoutPadding(outputsOf(folder).float32('logits'), inputs)
    const { vocabSize } = model.config
    const wanted = new Float32Array(positions.length * vocabSize)
    positions.forEach((at, row) => {
      wanted.set(values.subarray(at * vocabSize, (at + 1) * vocabSize), row * vocabSize)
    })
    const error = distance(output.logits.dataSync(), wanted)
    const allowed = 2 * distance(simple.logits.dataSync(), wanted)
    t.ok(error <= allowed, `logits: errs by ${error}, allowed ${allowed}`)
    compare(t, folder, inputs, hiddenPairs(output.hiddenStates, hidden), model, plain, {
      found: output.loss,
      plain: simple.loss,
    })
  })
  model.dispose()
})

for (const name of ['sequence_classification', 'sequence_regression']) {
  t.test(`${name} in bf16`, needsSharedData, async (t) => {
    const folder = golden(name)
    const inputs = readInputs(folder)
    const model = await ElectraForSequenceClassification.fromPretrained(folder, half)
    const plain = await plainOf(model)
    const labels =
      name === 'sequence_regression' ? inputs.file.float32('labels') : inputs.file.int32('labels')
    scope(() => {
      const output = model.forward({ ...idsOf(inputs), labels })
      const hidden = plain.encode({ ids: inputs.ragged('input_ids'), types: inputs.ragged('token_type_ids') })
      const simple = plain.sequenceClassification(hidden.sequences, labels)
      const pairs: Pairs = [
        ['logits', output.logits, simple.logits],
        ...hiddenPairs(output.hiddenStates, hidden),
      ]
      compare(t, folder, inputs, pairs, model, plain, { found: output.loss, plain: simple.loss })
    })
    model.dispose()
  })
}

t.test('token_classification in bf16', needsSharedData, async (t) => {
  const folder = golden('token_classification')
  const inputs = readInputs(folder)
  const model = await ElectraForTokenClassification.fromPretrained(folder, half)
  const plain = await plainOf(model)
  const labels = inputs.ragged('labels')
  scope(() => {
    const output = model.forward({ ...idsOf(inputs), labels })
    const hidden = plain.encode({ ids: inputs.ragged('input_ids'), types: inputs.ragged('token_type_ids') })
    const simple = plain.tokenClassification(hidden.last, flat(labels))
    const pairs: Pairs = [
      ['logits', output.logits, simple.logits],
      ...hiddenPairs(output.hiddenStates, hidden),
    ]
    compare(t, folder, inputs, pairs, model, plain, { found: output.loss, plain: simple.loss })
  })
  model.dispose()
})

t.test('question_answering in bf16', needsSharedData, async (t) => {
  const folder = golden('question_answering')
  const inputs = readInputs(folder)
  const model = await ElectraForQuestionAnswering.fromPretrained(folder, half)
  const plain = await plainOf(model)
  const starts = inputs.file.int32('start_positions')
  const ends = inputs.file.int32('end_positions')
  scope(() => {
    const output = model.forward({ ...idsOf(inputs), startPositions: starts, endPositions: ends })
    const hidden = plain.encode({ ids: inputs.ragged('input_ids'), types: inputs.ragged('token_type_ids') })
    const offsets = Int32Array.from([0, ...inputs.lengths])
    for (let i = 1; i < offsets.length; i++) offsets[i] = (offsets[i] as number) + (offsets[i - 1] as number)
    const simple = plain.questionAnswering(hidden.last, offsets, starts, ends)
    const pairs: Pairs = [
      ['start_logits', output.startLogits, simple.startLogits],
      ['end_logits', output.endLogits, simple.endLogits],
      ...hiddenPairs(output.hiddenStates, hidden),
    ]
    compare(t, folder, inputs, pairs, model, plain, { found: output.loss, plain: simple.loss })
  })
  model.dispose()
})
