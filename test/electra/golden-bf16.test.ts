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
import { scope, type Tensor, tensor } from '../../dist/tensor/index.js'
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

/** What a head gives: its output from the fused model, and the pairs and the loss of the plain one. */
interface Computed {
  readonly output: { readonly loss: Tensor; readonly hiddenStates?: readonly Tensor[] }
  readonly pairs: Pairs
  readonly loss: Tensor
}

interface Ids {
  readonly inputIds: Int32Array[]
  readonly tokenTypeIds: Int32Array[]
  readonly outputHiddenStates: true
}

/** Compares one folder's model: `compute` runs the fused and the plain model's head over the folder's inputs. */
function goldenInBf16<Model extends ElectraPreTrainedModel>(
  name: string,
  load: (folder: string) => Promise<Model>,
  compute: (at: {
    model: Model
    plain: PlainElectra
    ids: Ids
    inputs: Inputs
    hidden: ReturnType<PlainElectra['encode']>
  }) => Computed,
): void {
  t.test(`${name} in bf16`, needsSharedData, async (t) => {
    const folder = golden(name)
    const inputs = readInputs(folder)
    const model = await load(folder)
    const plain = await plainOf(model)
    scope(() => {
      const [inputIds, tokenTypeIds] = [inputs.ragged('input_ids'), inputs.ragged('token_type_ids')]
      const hidden = plain.encode({ ids: inputIds, types: tokenTypeIds })
      const ids = { inputIds, tokenTypeIds, outputHiddenStates: true } as const
      const { output, pairs, loss } = compute({ model, plain, ids, inputs, hidden })
      const states: Pairs = [
        ['hidden.first', output.hiddenStates?.[0] as Tensor, hidden.first],
        ['hidden.last', output.hiddenStates?.at(-1) as Tensor, hidden.last],
      ]
      compare(t, folder, inputs, [...pairs, ...states], model, plain, { found: output.loss, plain: loss })
    })
    model.dispose()
  })
}

const flat = (rows: readonly Int32Array[]): Int32Array =>
  Int32Array.from(rows.flatMap((row) => Array.from(row)))

for (const name of ['pretraining', 'no_embedding_projection']) {
  goldenInBf16(
    name,
    (folder) => ElectraForPreTraining.fromPretrained(folder, half),
    ({ model, plain, ids, inputs, hidden }) => {
      const labels = inputs.ragged('labels')
      const output = model.forward({ ...ids, labels })
      const simple = plain.pretraining(hidden.last, flat(labels))
      return { output, loss: simple.loss, pairs: [['logits', output.logits, simple.logits]] }
    },
  )
}

goldenInBf16(
  'masked_lm',
  (folder) => ElectraForMaskedLM.fromPretrained(folder, half),
  ({ model, plain, ids, inputs, hidden }) => {
    const labels = inputs.ragged('labels')
    const output = model.forward({ ...ids, labels })
    const all = flat(labels)
    const positions = Int32Array.from(all.keys()).filter((at) => all[at] !== -100)
    const simple = plain.maskedLm(
      hidden.last,
      positions,
      positions.map((at) => all[at] as number),
    )
    // The reference has the logits of all tokens, both computations those of the labelled ones.
    const whole = (logits: Tensor): Tensor => {
      const { vocabSize } = model.config
      const values = withoutPadding(outputsOf(golden('masked_lm')).float32('logits'), inputs)
      const rows = logits.dataSync() as Float32Array
      positions.forEach((at, row) => {
        values.set(rows.subarray(row * vocabSize, (row + 1) * vocabSize), at * vocabSize)
      })
      return tensor(values)
    }
    return {
      output,
      loss: simple.loss,
      pairs: [['logits', whole(output.logits), whole(simple.logits)]],
    }
  },
)

for (const name of ['sequence_classification', 'sequence_regression']) {
  goldenInBf16(
    name,
    (folder) => ElectraForSequenceClassification.fromPretrained(folder, half),
    ({ model, plain, ids, inputs, hidden }) => {
      const labels =
        name === 'sequence_regression' ? inputs.file.float32('labels') : inputs.file.int32('labels')
      const output = model.forward({ ...ids, labels })
      const simple = plain.sequenceClassification(hidden.sequences, labels)
      return { output, loss: simple.loss, pairs: [['logits', output.logits, simple.logits]] }
    },
  )
}

goldenInBf16(
  'token_classification',
  (folder) => ElectraForTokenClassification.fromPretrained(folder, half),
  ({ model, plain, ids, inputs, hidden }) => {
    const labels = inputs.ragged('labels')
    const output = model.forward({ ...ids, labels })
    const simple = plain.tokenClassification(hidden.last, flat(labels))
    return { output, loss: simple.loss, pairs: [['logits', output.logits, simple.logits]] }
  },
)

goldenInBf16(
  'question_answering',
  (folder) => ElectraForQuestionAnswering.fromPretrained(folder, half),
  ({ model, plain, ids, inputs, hidden }) => {
    const starts = inputs.file.int32('start_positions')
    const ends = inputs.file.int32('end_positions')
    const output = model.forward({ ...ids, startPositions: starts, endPositions: ends })
    const offsets = Int32Array.from([0, ...inputs.lengths])
    for (let i = 1; i < offsets.length; i++) offsets[i] = (offsets[i] as number) + (offsets[i - 1] as number)
    const simple = plain.questionAnswering(hidden.last, offsets, starts, ends)
    return {
      output,
      loss: simple.loss,
      pairs: [
        ['start_logits', output.startLogits, simple.startLogits],
        ['end_logits', output.endLogits, simple.endLogits],
      ],
    }
  },
)
