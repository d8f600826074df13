/**
 * Extractive question answering with the original code's head: the end depends on the start, and a third output says whether the
 * context answers at all. Hugging Face has no class for it.
 *
 * With h_t the last hidden states and f(x, y) = w₂ gelu(W₁ [x; y] + b₁) + b₂, of 512 features, each f with weights of its own:
 *   start_t = w h_t + b;  end_t = f(h_start, h_t);  unanswerable = f(h_0, Σ_t softmax(start)_t h_t).
 * Only [CLS] and the tokens of type 1 may be starts and ends; all others have 1000 less.
 */
import type { ElectraConfig } from '../formats/electra-config.js'
import { Linear } from '../nn/index.js'
import { VoltaicError } from '../runtime/index.js'
import {
  add,
  arange,
  binaryCrossEntropyWithLogits,
  cast,
  div,
  equal,
  exp,
  firstTokens,
  indexSelect,
  matmul,
  max,
  minimum,
  mul,
  narrow,
  noGrad,
  ones,
  raggedCrossEntropy,
  reshape,
  scope,
  sub,
  type Tensor,
  TensorScope,
  tensor,
  unsqueeze,
  where,
} from '../tensor/index.js'
import { bestEnds, bestStarts } from './answer-beams.js'
import { type BatchInput, type DeviceBatch, toDeviceBatch, upload } from './batch.js'
import type { AnswerPositions } from './for-question-answering.js'
import { sequenceNumbers } from './heads.js'
import { ElectraModel, type ForwardOptions } from './model.js'
import { PairPredictions } from './pair-predictions.js'
import { ElectraPreTrainedModel, type ModelOptions } from './pretrained.js'

/** What the logits of tokens that cannot be part of an answer are lowered by. */
const penaltyOfOthers = 1000
/** Of the answerability loss beside that of the spans. */
const answerabilityWeight = 0.5

export interface JointAnswerLabels extends AnswerPositions {
  /** For each sequence 1 where the context does not answer the question, else 0. Default: 0 for all. */
  readonly impossible?: readonly number[] | Int32Array | undefined
}

export interface JointQuestionAnsweringOutput {
  /** float32 [tokens] */
  readonly startLogits: Tensor
  /** float32 [sequences]; above 0: not answered. */
  readonly unanswerableLogits: Tensor
  readonly hiddenStates?: readonly Tensor[]
  readonly offsets: Tensor
}

/** The best spans of a sequence. */
export interface AnswerBeams {
  /** Three numbers a span: its first token, its last, and the logarithm of its probability; tokens count from the sequence's first. */
  readonly beams: Float32Array
  /** Above 0: not answered. */
  readonly unanswerable: number
}

/** What all outputs are made of. */
interface Parts {
  readonly hidden: Tensor
  readonly startLogits: Tensor
  /** 0, or -1000 for tokens that cannot be part of an answer, [tokens]. */
  readonly penalty: Tensor
  readonly unanswerableLogits: Tensor
}

export class ElectraForJointQuestionAnswering extends ElectraPreTrainedModel {
  readonly architecture: string = 'ElectraForJointQuestionAnswering'
  readonly electra: ElectraModel
  readonly startPredictions: Linear
  readonly endPredictions: PairPredictions
  readonly answerabilityPredictions: PairPredictions

  constructor(config: ElectraConfig, options: ModelOptions = {}) {
    super(config, options)
    const { part, ...build } = this.building()
    const { device, initializers } = build
    this.electra = new ElectraModel(config, part)
    this.startPredictions = new Linear({
      inputs: config.hiddenSize,
      outputs: 1,
      device,
      initializer: initializers.output,
    })
    this.endPredictions = new PairPredictions(config, build)
    this.answerabilityPredictions = new PairPredictions(config, build)
    this.seeded(options)
  }

  /**
   * `loss`, with both positions, a scalar: half the sum of the mean cross-entropies of starts and ends, and half the mean sigmoid
   * cross-entropy of the answerability. `endLogits` [tokens] are then those behind the given starts.
   */
  forward(
    input: BatchInput & ForwardOptions & JointAnswerLabels,
  ): JointQuestionAnsweringOutput & { readonly loss: Tensor; readonly endLogits: Tensor }
  forward(input: BatchInput & ForwardOptions): JointQuestionAnsweringOutput
  forward(
    input: BatchInput & ForwardOptions & Partial<JointAnswerLabels>,
  ): JointQuestionAnsweringOutput & { readonly loss?: Tensor; readonly endLogits?: Tensor } {
    const batch = toDeviceBatch(input, this.config, this.device)
    const { startPositions, endPositions, impossible } = input
    const given = startPositions !== undefined && endPositions !== undefined
    const labels = given ? checkedLabels({ startPositions, endPositions, impossible }, batch) : null
    return this.pass(batch, input, given, () =>
      scope(() => {
        const { lastHiddenState, ...states } = this.electra.encode(batch, input)
        const { startLogits, penalty, unanswerableLogits } = this.#parts(lastHiddenState, batch)
        const common = { ...states, startLogits, unanswerableLogits, offsets: batch.offsets }
        if (labels === null) return common
        const { starts, ends, unanswered } = labels
        const endLogits = this.#endLogits(lastHiddenState, penalty, starts, batch)
        const [startLoss, endLoss] = [
          raggedCrossEntropy(startLogits, batch.offsets, upload(starts, this.device)),
          raggedCrossEntropy(endLogits, batch.offsets, upload(ends, this.device)),
        ]
        const targets = tensor(unanswered, { device: this.device })
        const answerLoss = binaryCrossEntropyWithLogits(unanswerableLogits, targets)
        const loss = add(mul(add(startLoss, endLoss), 0.5), mul(answerLoss, answerabilityWeight))
        return { ...common, endLogits, loss }
      }),
    )
  }

  #parts(hidden: Tensor, batch: DeviceBatch): Parts {
    const isFirst = cast(equal(batch.positions, 0), 'float32')
    const allowed = minimum(add(cast(batch.types, 'float32'), isFirst), 1)
    const penalty = mul(sub(allowed, 1), penaltyOfOthers)
    const column = this.startPredictions.forward(hidden, { outputDtype: 'float32' })
    const startLogits = add(reshape(column, [batch.tokens]), penalty)
    const answerability = this.answerabilityPredictions
    const pooled = meansBySequence(hidden, startLogits, batch)
    const unanswerableLogits = answerability.logits(
      add(answerability.first(firstTokens(hidden, batch.offsets)), answerability.second(pooled)),
    )
    return { hidden, startLogits, penalty, unanswerableLogits }
  }

  /** The logits of ends behind one start a sequence. */
  #endLogits(hidden: Tensor, penalty: Tensor, starts: Int32Array, batch: DeviceBatch): Tensor {
    const pairs = this.endPredictions
    // A start that is ignored is ignored in the loss.
    const rows = starts.map((start, sequence) => (batch.bounds[sequence] as number) + Math.max(0, start))
    const perSequence = pairs.first(indexSelect(hidden, upload(rows, this.device)))
    const perToken = indexSelect(perSequence, upload(sequenceOfTokens(batch), this.device))
    return add(pairs.logits(add(perToken, pairs.second(hidden))), penalty)
  }

  /**
   * The best spans of each sequence: the `beamSize` best starts, and for each of them the `beamSize` best ends at or behind it.
   * @throws ERR_ARGUMENT for a beam of no size
   */
  async beams(
    input: BatchInput,
    { beamSize = 20 }: { readonly beamSize?: number | undefined } = {},
  ): Promise<AnswerBeams[]> {
    if (!(Number.isInteger(beamSize) && beamSize >= 1)) {
      throw new VoltaicError('ERR_ARGUMENT', `beams: beamSize is ${beamSize}; expected a whole number from 1`)
    }
    const batch = toDeviceBatch(input, this.config, this.device)
    using tensors = new TensorScope()
    const parts = tensors.run(() =>
      noGrad(() =>
        this.pass(batch, input, false, () => this.#parts(this.electra.encode(batch).lastHiddenState, batch)),
      ),
    )
    const read = (x: Tensor): Promise<Float32Array> => x.data() as Promise<Float32Array>
    const [starts, penalties, unanswerable] = await Promise.all(
      [parts.startLogits, parts.penalty, parts.unanswerableLogits].map(read),
    )
    const ranges = Array.from({ length: batch.sequences }, (_, sequence) => [
      batch.bounds[sequence] as number,
      batch.bounds[sequence + 1] as number,
    ]) as [number, number][]
    const chosen = ranges.map(([begin, end]) =>
      bestStarts(
        (starts as Float32Array).subarray(begin, end),
        (penalties as Float32Array).subarray(begin, end),
        beamSize,
      ),
    )
    const ends = tensors.run(() => noGrad(() => this.#endsBehind(parts, ranges, chosen)))
    if (batch !== input) batch.offsets.dispose()
    const logits = await Promise.all(ends.map(read))
    return ranges.map(([begin, end], sequence) => ({
      beams: bestEnds(
        chosen[sequence] ?? [],
        logits[sequence] as Float32Array,
        (penalties as Float32Array).subarray(begin, end),
        beamSize,
      ),
      unanswerable: unanswerable?.[sequence] as number,
    }))
  }

  /** For each sequence the logits of ends behind each of its starts, [starts, tokens]. A sequence at a time: a pair has 512 numbers. */
  #endsBehind(
    { hidden, penalty }: Parts,
    ranges: readonly (readonly [number, number])[],
    chosen: readonly (readonly { readonly token: number }[])[],
  ): Tensor[] {
    const pairs = this.endPredictions
    const rows = chosen.flatMap((starts, sequence) =>
      starts.map(({ token }) => (ranges[sequence]?.[0] as number) + token),
    )
    const firsts = pairs.first(indexSelect(hidden, upload(Int32Array.from(rows), this.device)))
    const seconds = pairs.second(hidden)
    let at = 0
    return ranges.map(([begin, end], sequence) => {
      const starts = (chosen[sequence] ?? []).length
      const from = at
      at += starts
      return scope(() => {
        const each = unsqueeze(narrow(firsts, 0, from, starts), 1)
        const all = unsqueeze(narrow(seconds, 0, begin, end - begin), 0)
        return add(pairs.logits(add(each, all)), narrow(penalty, 0, begin, end - begin))
      })
    })
  }
}

function sequenceOfTokens({ bounds, sequences, tokens }: DeviceBatch): Int32Array {
  const numbers = new Int32Array(tokens)
  for (let sequence = 0; sequence < sequences; sequence++) {
    numbers.fill(sequence, bounds[sequence], bounds[sequence + 1])
  }
  return numbers
}

/**
 * The mean of the hidden states of each sequence, weighted by the softmax of its logits: float32 [sequences, width]. Sums run through
 * products with a matrix that is 0 outside of a row's sequence: exact, and the same bits in every batch.
 */
function meansBySequence(hidden: Tensor, logits: Tensor, batch: DeviceBatch): Tensor {
  const { sequences, tokens } = batch
  const { device } = hidden
  const ofToken = reshape(upload(sequenceOfTokens(batch), device), [1, tokens])
  const isOwn = equal(ofToken, reshape(arange(0, sequences, 1, { device, dtype: 'int32' }), [sequences, 1]))
  const spread = where(isOwn, reshape(logits, [1, tokens]), -1e30)
  // Any shift gives the same softmax, so that of the largest needs no gradient.
  const largest = noGrad(() => max(spread, { axes: [1], keepDims: true }))
  const weights = exp(sub(spread, largest))
  const total = matmul(weights, ones([tokens, 1], { device }))
  return div(matmul(weights, cast(hidden, 'float32')), total)
}

function checkedLabels(
  { startPositions, endPositions, impossible }: JointAnswerLabels,
  { bounds, sequences }: DeviceBatch,
): { readonly starts: Int32Array; readonly ends: Int32Array; readonly unanswered: Float32Array } {
  const length = (sequence: number): number => (bounds[sequence + 1] as number) - (bounds[sequence] as number)
  const flags = sequenceNumbers('impossible', impossible ?? new Int32Array(sequences), sequences, () => 2)
  const ignored = flags.findIndex((flag) => flag < 0)
  if (ignored >= 0) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `impossible: ${flags[ignored]} for sequence ${ignored}; expected 0 or 1, which cannot be ignored`,
    )
  }
  return {
    starts: sequenceNumbers('startPositions', startPositions, sequences, length),
    ends: sequenceNumbers('endPositions', endPositions, sequences, length),
    unanswered: Float32Array.from(flags),
  }
}
