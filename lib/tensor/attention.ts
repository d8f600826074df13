/** Self-attention over ragged sequences, without a score matrix in memory. */
import { run, VoltaicError } from '../runtime/index.js'
import { checkDropout, type Dropout } from './dropout-site.js'
import { checkDType, checkFloat, nodes, resultWith } from './operands.js'
import { consumeView } from './raw.js'
import { shapeText } from './shapes.js'
import { type Tensor, tensorValue } from './tensor.js'
import { newValue, produceAll, releaseValue, retain, viewValue } from './value.js'

export interface AttentionOptions {
  /** Number of heads; needed when `qkv` has two axes. */
  readonly heads?: number | undefined
  /** Factor of the scores. Default 1 / sqrt(head size). */
  readonly scale?: number | undefined
  /** Dropout of the probabilities; none when left out. */
  readonly dropout?: Dropout | null | undefined
  /** Tokens of the longest sequence, when known: saves empty work. Default: all tokens. */
  readonly longest?: number | undefined
}

/**
 * softmax(scale Q Kᵀ) V for each sequence and head.
 * @param qkv [tokens, 3 heads size] or [tokens, 3, heads, size]: queries, keys and values of each token.
 * @param offsets int32 [sequences + 1]: sequence s has the tokens offsets[s] to offsets[s + 1].
 * @returns [tokens, heads size], or [tokens, heads, size] for four axes.
 */
export function attention(qkv: Tensor, offsets: Tensor, options: AttentionOptions = {}): Tensor {
  const op = 'attention'
  checkFloat(op, 'qkv', qkv)
  checkDType(op, 'offsets', offsets, 'int32')
  const flat = qkv.shape.length === 2
  const tokens = qkv.shape[0] as number
  const heads = flat ? options.heads : qkv.shape[2]
  const width = flat ? (qkv.shape[1] as number) / 3 : 0
  const size = flat ? width / (heads ?? 0) : (qkv.shape[3] as number)
  const wellFormed = flat || (qkv.shape.length === 4 && qkv.shape[1] === 3)
  if (!wellFormed || heads === undefined || !Number.isInteger(size) || size < 1) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `${op}: qkv has shape ${shapeText(qkv.shape)} and there are ${heads} heads; expected [tokens, 3 × heads × size] ` +
        'with heads given, or [tokens, 3, heads, size]',
    )
  }
  const { state, probability, site } = checkDropout(op, options.dropout)
  const attributes = [options.scale ?? 1 / Math.sqrt(size), probability, site, options.longest ?? tokens]
  const from = tensorValue(qkv)
  const bounds = tensorValue(offsets)
  const packed = flat ? viewValue(from, [tokens, 3, heads, size]) : retain(from)
  const context = newValue(from.device, from.dtype, [tokens, heads, size])
  const logSumExp = newValue(from.device, 'float32', [heads, tokens])
  produceAll(
    [packed, context, logSumExp],
    'attention_forward',
    [packed.handle, bounds.handle, state?.handle ?? null, context.handle, logSumExp.handle],
    attributes,
  )
  const saved = [packed, context, logSumExp, retain(bounds)]
  if (state !== null) saved.push(retain(state))
  const output = flat ? viewValue(context, [tokens, heads * size]) : retain(context)
  return resultWith(op, output, nodes(qkv), saved, (node, gradient) => {
    const toContext = consumeView(retain(gradient), context.shape)
    const toPacked = newValue(from.device, from.dtype, packed.shape)
    run(
      'attention_backward',
      [
        toContext.handle,
        packed.handle,
        bounds.handle,
        context.handle,
        logSumExp.handle,
        state?.handle ?? null,
        toPacked.handle,
      ],
      attributes,
    )
    releaseValue(toContext)
    node.give(0, consumeView(toPacked, from.shape))
  })
}
