/** The original's question answering head against its formulas in double precision, from the same hidden states. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import {
  ElectraForJointQuestionAnswering,
  ElectraForPreTraining,
  type ModelOptions,
} from '../../dist/electra/index.js'
import { readSafetensors } from '../../dist/formats/safetensors.js'
import { memoryStats } from '../../dist/runtime/index.js'
import type { Tensor } from '../../dist/tensor/index.js'
import { device, rowsOf, smallConfig, typesOf } from './helpers.js'

const config = smallConfig()
const width = config.hiddenSize
const features = 512
const inputIds = rowsOf([11, 14, 5, 9])
const tokenTypeIds = typesOf(inputIds)
const labels = { startPositions: [6, 0, 3, 5], endPositions: [8, 0, 3, 8], impossible: [0, 1, 0, 0] }

const build = (options: ModelOptions = {}) =>
  new ElectraForJointQuestionAnswering(config, { device, seed: 3, ...options }).eval()

const numbers = (x: Tensor): number[] => Array.from(x.dataSync())

/** erf by its series and its continued fraction; good to 1e-14. */
function erf(x: number): number {
  const size = Math.abs(x)
  if (size < 2.5) {
    let term = x
    let sum = x
    for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
      term *= -(x * x) / n
      sum += term / (2 * n + 1)
    }
    return (2 / Math.sqrt(Math.PI)) * sum
  }
  let fraction = 0
  for (let k = 80; k > 0; k--) fraction = k / 2 / (size + fraction)
  return Math.sign(x) * (1 - Math.exp(-x * x) / (Math.sqrt(Math.PI) * (size + fraction)))
}
const gelu = (x: number): number => (x / 2) * (1 + erf(x / Math.SQRT2))

type Weights = ReadonlyMap<string, Float64Array>

function headOf(model: ElectraForJointQuestionAnswering): Map<string, Float64Array> {
  const entries = [...model.namedParameters()].filter(([name]) => !name.startsWith('electra.'))
  return new Map(entries.map(([name, parameter]) => [name, Float64Array.from(parameter.value.dataSync())]))
}

const logSoftmax = (logits: readonly number[]): number[] => {
  const largest = Math.max(...logits)
  const total = Math.log(logits.reduce((sum, x) => sum + Math.exp(x - largest), 0)) + largest
  return logits.map((x) => x - total)
}

function pairLogit(weights: Weights, name: string, x: readonly number[], y: readonly number[]): number {
  const [w1, b1, w2, b2] = [
    'dense.weight',
    'dense.bias',
    'dense_prediction.weight',
    'dense_prediction.bias',
  ].map((part) => weights.get(`${name}.${part}`)!) as [Float64Array, Float64Array, Float64Array, Float64Array]
  const both = [...x, ...y]
  let logit = b2[0]!
  for (let feature = 0; feature < features; feature++) {
    let sum = b1[feature]!
    for (let i = 0; i < 2 * width; i++) sum += w1[feature * 2 * width + i]! * both[i]!
    logit += w2[feature]! * gelu(sum)
  }
  return logit
}

/** The outputs of one sequence. @param hidden its last hidden states */
function plainHead(weights: Weights, hidden: readonly (readonly number[])[], types: readonly number[]) {
  const penalties = types.map((type, at) => (type === 1 || at === 0 ? 0 : -1000))
  const [w, b] = [weights.get('start_predictions.weight')!, weights.get('start_predictions.bias')![0]!]
  const starts = hidden.map((h, at) => h.reduce((sum, x, i) => sum + x * w[i]!, b) + penalties[at]!)
  const endsBehind = (start: number): number[] =>
    hidden.map((h, at) => pairLogit(weights, 'end_predictions', hidden[start]!, h) + penalties[at]!)
  const shares = logSoftmax(starts).map(Math.exp)
  const mean = hidden[0]!.map((_, i) => hidden.reduce((sum, h, at) => sum + shares[at]! * h[i]!, 0))
  const unanswerable = pairLogit(weights, 'answerability_predictions', hidden[0]!, mean)
  return { penalties, starts, endsBehind, unanswerable }
}

/** The last hidden states of each sequence. */
function hiddenOf(model: ElectraForJointQuestionAnswering): number[][][] {
  const { lastHiddenState } = model.electra.forward({ inputIds, tokenTypeIds })
  const flat = numbers(lastHiddenState)
  let token = 0
  return inputIds.map((row) => row.map(() => flat.slice(token * width, ++token * width)))
}

function plainLoss(weights: Weights, hidden: readonly number[][][]): number {
  const parts = hidden.map((rows, sequence) => {
    const { starts, endsBehind, unanswerable } = plainHead(weights, rows, tokenTypeIds[sequence]!)
    const [start, end] = [labels.startPositions[sequence]!, labels.endPositions[sequence]!]
    const spans = -(logSoftmax(starts)[start]! + logSoftmax(endsBehind(start))[end]!) / 2
    const target = labels.impossible[sequence]!
    const answer =
      Math.log1p(Math.exp(-Math.abs(unanswerable))) + Math.max(unanswerable, 0) - unanswerable * target
    return spans + answer / 2
  })
  return parts.reduce((sum, loss) => sum + loss, 0) / parts.length
}

t.test('logits and loss are those of the formulas', async (t) => {
  const model = build()
  const weights = headOf(model)
  const hidden = hiddenOf(model)
  const output = model.forward({ inputIds, tokenTypeIds, ...labels })
  const plain = hidden.map((rows, sequence) => plainHead(weights, rows, tokenTypeIds[sequence]!))
  const wanted = {
    startLogits: plain.flatMap(({ starts }) => starts),
    endLogits: plain.flatMap(({ endsBehind }, sequence) => endsBehind(labels.startPositions[sequence]!)),
    unanswerableLogits: plain.map(({ unanswerable }) => unanswerable),
    loss: [plainLoss(weights, hidden)],
  }
  for (const [name, values] of Object.entries(wanted)) {
    const found = numbers(output[name as keyof typeof wanted])
    t.equal(found.length, values.length, name)
    // Sums of 512 products in float32 err by some 1e-6; beside a penalty of 1000 a float32 has steps of 6e-5.
    const error = Math.max(
      ...values.map((value, i) => Math.abs(found[i]! - value) - (value < -500 ? 6e-5 : 0)),
    )
    t.ok(error < 1e-5, `${name}: ${error}`)
  }
})

t.test('gradients of the head are the slopes of the formulas', async (t) => {
  const model = build()
  const weights = headOf(model)
  const hidden = hiddenOf(model)
  model.forward({ inputIds, tokenTypeIds, ...labels }).loss.backward()
  const parameters = new Map(model.namedParameters())
  for (const [name, values] of weights) {
    const gradient = numbers(parameters.get(name)!.grad)
    const places = [1, 4].map((i) => Math.floor((values.length * i) / 7))
    for (const place of new Set(places)) {
      const step = 1e-5
      const at = (shift: number): number => {
        const moved = Float64Array.from(values)
        moved[place]! += shift
        return plainLoss(new Map(weights).set(name, moved), hidden)
      }
      const slope = (at(step) - at(-step)) / (2 * step)
      // The float32 pass errs by 1e-6 of the largest gradients (1); the difference quotient by 1e-10.
      t.ok(Math.abs(gradient[place]! - slope) < 3e-6, `${name}[${place}]: ${gradient[place]} and ${slope}`)
    }
  }
})

t.test('gradients reach the body: the loss falls along them as far as they say', async (t) => {
  const model = build()
  const loss = () => model.forward({ inputIds, tokenTypeIds, ...labels }).loss
  loss().backward()
  const body = [...model.namedParameters()].filter(([name]) => name.startsWith('electra.'))
  const gradients = body.map(([, parameter]) => numbers(parameter.grad))
  const square = gradients.flat().reduce((sum, g) => sum + g * g, 0)
  t.ok(square > 1e-6, 'there is a slope')
  const step = 1e-3 / Math.sqrt(square)
  const move = (by: number): void => {
    for (const [i, [, parameter]] of body.entries()) {
      const values = numbers(parameter.value)
      parameter.assign(Float32Array.from(values, (value, at) => value + by * gradients[i]![at]!))
    }
  }
  move(-step)
  const below = numbers(loss())[0]!
  move(2 * step)
  const above = numbers(loss())[0]!
  const slope = (above - below) / (2 * step)
  // Losses in float32 have steps of 2e-7 beside a change of 2e-3 times the norm of the gradient, and weights are rounded, too.
  t.ok(Math.abs(slope / square - 1) < 5e-3, `${slope} along gradients of square ${square}`)
})

t.test('beams are the best starts with the best ends behind them', async (t) => {
  const model = build()
  const weights = headOf(model)
  const hidden = hiddenOf(model)
  const beamSize = 4
  const found = await model.beams({ inputIds, tokenTypeIds }, { beamSize })
  t.equal(found.length, inputIds.length)
  for (const [sequence, rows] of hidden.entries()) {
    const { penalties, starts, endsBehind, unanswerable } = plainHead(weights, rows, tokenTypeIds[sequence]!)
    const allowed = penalties.flatMap((penalty, token) => (penalty === 0 ? [token] : []))
    const byStart = logSoftmax(starts)
    const bestOf = (logits: readonly number[], from: number): number[] =>
      allowed
        .filter((token) => token >= from)
        .sort((a, b) => logits[b]! - logits[a]!)
        .slice(0, beamSize)
    const wanted = bestOf(starts, 0).flatMap((start) => {
      const byEnd = logSoftmax(endsBehind(start))
      return bestOf(byEnd, start).map((end) => [start, end, byStart[start]! + byEnd[end]!] as const)
    })
    const { beams } = found[sequence]!
    t.equal(beams.length, 3 * wanted.length)
    for (const [i, [start, end, logProbability]] of wanted.entries()) {
      t.same([beams[3 * i], beams[3 * i + 1]], [start, end], `beam ${i} of sequence ${sequence}`)
      t.ok(Math.abs(beams[3 * i + 2]! - logProbability) < 2e-5, 'its probability')
    }
    t.ok(Math.abs(found[sequence]!.unanswerable - unanswerable) < 1e-5)
  }
  const [, alone] = found
  const row = { inputIds: [inputIds[1]!], tokenTypeIds: [tokenTypeIds[1]!] }
  t.same(await model.beams(row, { beamSize }), [alone], 'the same bits alone and in a batch')
  await t.rejects(model.beams(row, { beamSize: 0 }), { code: 'ERR_ARGUMENT', message: /beamSize is 0/ })
})

t.test('passes leave nothing behind but what they return', async (t) => {
  const model = build()
  const pass = async (): Promise<void> => {
    const { loss, ...rest } = model.forward({ inputIds, tokenTypeIds, ...labels })
    loss.backward()
    for (const tensor of [loss, rest.startLogits, rest.endLogits, rest.unanswerableLogits, rest.offsets]) {
      tensor.dispose()
    }
    await model.beams({ inputIds, tokenTypeIds })
  }
  // Gradients come with the first pass; weights that did not change are packed at their second use.
  for (let i = 0; i < 3; i++) await pass()
  const { tensors, allocatedBytes } = memoryStats(device)
  await pass()
  t.match(memoryStats(device), { tensors, allocatedBytes })
})

t.test('saved under names of its own, and loaded again', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'voltaic-joint-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const model = build()
  await model.savePretrained(folder)
  const saved = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'))
  t.same(saved.architectures, ['ElectraForJointQuestionAnswering'])
  const file = readSafetensors(join(folder, 'model.safetensors'))
  t.same(
    file.names.filter((name: string) => !name.startsWith('electra.')).sort(),
    ['answerability_predictions', 'end_predictions']
      .flatMap((name) =>
        ['dense.bias', 'dense.weight', 'dense_prediction.bias', 'dense_prediction.weight'].map(
          (part) => `${name}.${part}`,
        ),
      )
      .concat('start_predictions.bias', 'start_predictions.weight'),
  )
  file.close()
  const again = await ElectraForJointQuestionAnswering.fromPretrained(folder, { device })
  t.same(await again.beams({ inputIds, tokenTypeIds }), await model.beams({ inputIds, tokenTypeIds }))
  await t.rejects(model.saveOnnx(join(folder, 'model.onnx')), { code: 'ERR_UNSUPPORTED' })
})

t.test('from a pre-trained body, and in bfloat16', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'voltaic-joint-'))
  t.teardown(() => rm(folder, { recursive: true }))
  await new ElectraForPreTraining(config, { device, seed: 5 }).savePretrained(folder)
  const options = { device, seed: 6 } as const
  const model = await ElectraForJointQuestionAnswering.fromPretrained(folder, options)
  const half = await ElectraForJointQuestionAnswering.fromPretrained(folder, {
    ...options,
    precision: 'bf16',
  })
  t.equal(model.loadReport.missing.length, 10, 'the head has first values')
  const [whole, rounded] = [model, half].map((each) => each.forward({ inputIds, tokenTypeIds, ...labels }))
  const difference = Math.abs(numbers(whole!.loss)[0]! - numbers(rounded!.loss)[0]!)
  // bfloat16 has 8 bits: hidden states of size 1 err by 4e-3, logits of two layers by some times that.
  t.ok(difference < 0.05 && difference > 0, `losses differ by ${difference}`)
  rounded!.loss.backward()
  t.ok([...half.namedParameters()].every(([, parameter]) => parameter.hasGrad))
})

t.test('labels that no sequence has are refused', async (t) => {
  const model = build()
  const refused = (change: object, message: RegExp) =>
    t.throws(() => model.forward({ inputIds, tokenTypeIds, ...labels, ...change }), { message })
  refused({ startPositions: [6, 0, 5, 5] }, /startPositions: 5 for sequence 2/)
  refused({ endPositions: [6, 0] }, /endPositions: 2 numbers for 4 sequences/)
  refused({ impossible: [0, 1, 2, 0] }, /impossible: 2 for sequence 2/)
  refused({ impossible: [0, 1, -100, 0] }, /impossible: -100 for sequence 2; expected 0 or 1/)
})
