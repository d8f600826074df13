/**
 * How likely a model finds each sentence of a pair.
 *
 *   generator      pseudo-log-likelihood of what the two have in common, given all else, as CrowS-Pairs scores (Nangia et al., 2020,
 *                  section 3): the sum over shared tokens u of log P(u | the sentence with u masked). The terms that differ are never
 *                  predicted, so that their own frequency does not count.
 *   discriminator  mean over all tokens of log P(original) = -log(1 + exp(logit)), special tokens left out. The terms that differ count
 *                  here: they are what a discriminator would find replaced.
 *
 * Shared tokens are a longest common subsequence of the two rows of ids.
 */
import type { ElectraForMaskedLM, ElectraForPreTraining } from '../electra/index.js'
import { scope } from '../tensor/index.js'
import type { Tokenizer } from '../text/index.js'
import { batchesByTokens } from './batches.js'
import type { MinimalPair } from './minimal-pair-files.js'

export interface PairScores {
  readonly a: number
  readonly b: number
}

/** For each row the places of a longest common subsequence, ascending. */
export function sharedPlaces(a: ArrayLike<number>, b: ArrayLike<number>): [number[], number[]] {
  const [n, m] = [a.length, b.length]
  // lengths[i][j]: of what a has from i on and b from j on.
  const lengths = Array.from({ length: n + 1 }, () => new Int32Array(m + 1))
  const row = (i: number): Int32Array => lengths[i] as Int32Array
  for (let i = n - 1; i >= 0; i--) {
    for (let j = m - 1; j >= 0; j--) {
      row(i)[j] =
        a[i] === b[j]
          ? 1 + (row(i + 1)[j + 1] as number)
          : Math.max(row(i + 1)[j] as number, row(i)[j + 1] as number)
    }
  }
  const places: [number[], number[]] = [[], []]
  for (let i = 0, j = 0; i < n && j < m; ) {
    if (a[i] === b[j]) {
      places[0].push(i++)
      places[1].push(j++)
    } else if ((row(i + 1)[j] as number) >= (row(i)[j + 1] as number)) i++
    else j++
  }
  return places
}

/** One forward pass: a sentence with one token masked. */
interface Masked {
  readonly inputIds: Int32Array
  readonly position: number
  readonly target: number
  /** Where its log-probability is added. */
  readonly sentence: number
}

function logProbability(logits: Float32Array, start: number, size: number, target: number): number {
  let largest = Number.NEGATIVE_INFINITY
  for (let at = start; at < start + size; at++) largest = Math.max(largest, logits[at] as number)
  let sum = 0
  for (let at = start; at < start + size; at++) sum += Math.exp((logits[at] as number) - largest)
  return (logits[start + target] as number) - largest - Math.log(sum)
}

type Encoded = readonly { readonly inputIds: readonly Int32Array[] }[]

function encode(pairs: readonly MinimalPair[], tokenizer: Tokenizer, maxLength: number): Encoded {
  return pairs.map(({ sentenceA, sentenceB }) => {
    const { inputIds } = tokenizer([sentenceA, sentenceB], { truncation: true, maxLength })
    return { inputIds: inputIds.map((ids) => Int32Array.from(ids)) }
  })
}

/** @param budget tokens of a batch */
export async function scoreByGenerator(
  model: ElectraForMaskedLM,
  tokenizer: Tokenizer,
  pairs: readonly MinimalPair[],
  budget: number,
): Promise<PairScores[]> {
  const special = new Set(tokenizer.specialTokenIds.filter((id) => id !== tokenizer.unkTokenId))
  const sums = new Float64Array(2 * pairs.length)
  const passes: Masked[] = []
  for (const [pair, { inputIds }] of encode(pairs, tokenizer, model.config.maxPositionEmbeddings).entries()) {
    const [a, b] = inputIds as [Int32Array, Int32Array]
    for (const [side, places] of sharedPlaces(a, b).entries()) {
      const ids = side === 0 ? a : b
      for (const position of places) {
        const target = ids[position] as number
        if (special.has(target)) continue
        const masked = Int32Array.from(ids)
        masked[position] = tokenizer.maskTokenId
        passes.push({ inputIds: masked, position, target, sentence: 2 * pair + side })
      }
    }
  }
  const lengths = passes.map(({ inputIds }) => inputIds.length)
  for (const batch of batchesByTokens(lengths, budget)) {
    const chosen = batch.map((index) => passes[index] as Masked)
    const logits = (await scope(() =>
      model
        .forward({
          inputIds: chosen.map(({ inputIds }) => inputIds),
          maskedPositions: chosen.map(({ position }) => [position]),
        })
        .logits.data(),
    )) as Float32Array
    const size = model.config.vocabSize
    chosen.forEach(({ target, sentence }, row) => {
      sums[sentence] = (sums[sentence] as number) + logProbability(logits, row * size, size, target)
    })
  }
  return pairs.map((_, pair) => ({ a: sums[2 * pair] as number, b: sums[2 * pair + 1] as number }))
}

/** log of the logistic function of -x, exact for large |x|. */
const logOriginal = (x: number): number => -(Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))))

/** @param budget tokens of a batch */
export async function scoreByDiscriminator(
  model: ElectraForPreTraining,
  tokenizer: Tokenizer,
  pairs: readonly MinimalPair[],
  budget: number,
): Promise<PairScores[]> {
  const special = new Set(tokenizer.specialTokenIds.filter((id) => id !== tokenizer.unkTokenId))
  const rows = encode(pairs, tokenizer, model.config.maxPositionEmbeddings).flatMap(
    ({ inputIds }) => inputIds,
  )
  const means = new Float64Array(rows.length)
  const lengths = rows.map((row) => row.length)
  for (const batch of batchesByTokens(lengths, budget)) {
    const inputIds = batch.map((index) => rows[index] as Int32Array)
    const logits = (await scope(() => model.forward({ inputIds }).logits.data())) as Float32Array
    let at = 0
    for (const index of batch) {
      const row = rows[index] as Int32Array
      let [sum, count] = [0, 0]
      for (const [place, id] of row.entries()) {
        if (special.has(id)) continue
        sum += logOriginal(logits[at + place] as number)
        count += 1
      }
      means[index] = sum / Math.max(1, count)
      at += row.length
    }
  }
  return pairs.map((_, pair) => ({ a: means[2 * pair] as number, b: means[2 * pair + 1] as number }))
}
