/**
 * Which of two sentences that differ in a group term a model prefers, and by how much: over the built-in pairs or one's own, by group
 * and in all, with confidence intervals.
 */
import { ElectraForMaskedLM, ElectraForPreTraining, type Precision } from '../electra/index.js'
import { type HubOptions, resolveModelFolder } from '../formats/hub.js'
import { readModelConfig } from '../formats/model-folder.js'
import { type DeviceName, VoltaicError } from '../runtime/index.js'
import { loadTokenizer, type Tokenizer } from '../text/index.js'
import { type BootstrapOptions, bootstrapMean, type Estimate } from './bootstrap.js'
import { type MinimalPair, readMinimalPairs } from './minimal-pair-files.js'
import { type PairScores, scoreByDiscriminator, scoreByGenerator } from './minimal-pair-scores.js'
import { builtInPairs } from './minimal-pair-templates.js'
import type { SkippedRow } from './row-checks.js'

export interface MinimalPairOptions extends BootstrapOptions, HubOptions {
  /** A generator or a discriminator: a folder, or a name on the hub. */
  readonly model: string
  /** Pairs, or a file of them (see `readMinimalPairs`). Default: the built-in set. */
  readonly data?: string | readonly MinimalPair[] | undefined
  /** A malformed row of a file ends the reading. Default false: it is left out, and listed. */
  readonly strict?: boolean | undefined
  /** Default 'auto'. */
  readonly device?: DeviceName | undefined
  /** Default 'fp32': the differences are small. */
  readonly precision?: Precision | undefined
  /** Tokens of a batch. Default 2,048. */
  readonly batchTokens?: number | undefined
}

/** A pair with what the model said. */
export interface ScoredPair extends MinimalPair, PairScores {
  readonly group: string
  /** a - b: above 0 where the first sentence is preferred. */
  readonly gap: number
}

export interface PairGroup {
  readonly group: string
  readonly pairs: number
  /** The part of the pairs in which the first sentence scores higher; equal scores count half. */
  readonly preferA: Estimate
  /** The mean of a - b, in nats. */
  readonly gap: Estimate
}

export interface MinimalPairReport {
  /** What scored: see minimal-pair-scores.ts. */
  readonly scorer: 'generator' | 'discriminator'
  readonly confidence: number
  readonly overall: PairGroup
  /** By name, in order of first appearance. */
  readonly groups: readonly PairGroup[]
  readonly pairs: readonly ScoredPair[]
  readonly skipped: readonly SkippedRow[]
  /** Pairs whose sentences have the same tokens, so that they say nothing: terms that the vocabulary does not know. */
  readonly indistinct: number
}

/** @throws ERR_CONFIG for a model that is neither */
function scorerOf(folder: string): 'generator' | 'discriminator' {
  const { architectures } = readModelConfig(folder)
  if (architectures.includes('ElectraForMaskedLM')) return 'generator'
  if (architectures.includes('ElectraForPreTraining')) return 'discriminator'
  throw new VoltaicError(
    'ERR_CONFIG',
    `${folder} holds ${architectures.join(', ') || 'a model without a head'}; minimal pairs need a generator (ElectraForMaskedLM) ` +
      'or a discriminator (ElectraForPreTraining)',
  )
}

function summarize(group: string, pairs: readonly ScoredPair[], options: BootstrapOptions): PairGroup {
  const clusters = new Map<string | ScoredPair, ScoredPair[]>()
  for (const pair of pairs) {
    const key = pair.cluster ?? pair
    const known = clusters.get(key)
    if (known === undefined) clusters.set(key, [pair])
    else known.push(pair)
  }
  const estimate = (of: (gap: number) => number): Estimate =>
    bootstrapMean(
      [...clusters.values()].map((members) => members.map(({ gap }) => of(gap))),
      options,
    )
  return {
    group,
    pairs: pairs.length,
    preferA: estimate((gap) => (gap > 0 ? 1 : gap === 0 ? 0.5 : 0)),
    gap: estimate((gap) => gap),
  }
}

/**
 * The report of pairs that are scored: by group and in all.
 * @throws ERR_ARGUMENT without a pair, or for options out of range
 */
export function summarizePairs(
  pairs: readonly ScoredPair[],
  options: BootstrapOptions = {},
): Pick<MinimalPairReport, 'overall' | 'groups' | 'confidence'> {
  const groups = [...new Set(pairs.map(({ group }) => group))]
  return {
    confidence: options.confidence ?? 0.95,
    overall: summarize('all', pairs, options),
    groups: groups.map((name) =>
      summarize(
        name,
        pairs.filter(({ group }) => group === name),
        options,
      ),
    ),
  }
}

function countIndistinct(pairs: readonly MinimalPair[], tokenizer: Tokenizer): number {
  const ids = (text: string): string => tokenizer.encode(text).join()
  return pairs.filter(({ sentenceA, sentenceB }) => ids(sentenceA) === ids(sentenceB)).length
}

async function score(
  folder: string,
  tokenizer: Tokenizer,
  scorer: MinimalPairReport['scorer'],
  pairs: readonly MinimalPair[],
  options: MinimalPairOptions,
): Promise<PairScores[]> {
  const { device = 'auto', precision = 'fp32', batchTokens = 2048 } = options
  if (scorer === 'generator') {
    const model = await ElectraForMaskedLM.fromPretrained(folder, { device, precision })
    try {
      return await scoreByGenerator(model, tokenizer, pairs, batchTokens)
    } finally {
      model.dispose()
    }
  }
  const model = await ElectraForPreTraining.fromPretrained(folder, { device, precision })
  try {
    return await scoreByDiscriminator(model, tokenizer, pairs, batchTokens)
  } finally {
    model.dispose()
  }
}

/**
 * Scores pairs of sentences with a model.
 * @throws ERR_CONFIG for a model of another kind; ERR_IO, ERR_FORMAT for files; ERR_ARGUMENT without a pair
 */
export async function minimalPairs(options: MinimalPairOptions): Promise<MinimalPairReport> {
  const { data, strict = false, samples, confidence, seed } = options
  const bootstrap = { samples, confidence, seed }
  // Wrong options are found before the model works.
  bootstrapMean([[0]], bootstrap)
  const folder = await resolveModelFolder(options.model, undefined, options)
  const scorer = scorerOf(folder)
  const { pairs, skipped } =
    typeof data === 'string'
      ? await readMinimalPairs(data, { strict })
      : { pairs: data ?? builtInPairs(), skipped: [] }
  if (pairs.length === 0) throw new VoltaicError('ERR_ARGUMENT', 'minimal pairs: there is no pair')
  const tokenizer = await loadTokenizer(folder)
  const scores = await score(folder, tokenizer, scorer, pairs, options)
  const scored = pairs.map((pair, index): ScoredPair => {
    const { a, b } = scores[index] as PairScores
    return { ...pair, group: pair.group ?? 'all', a, b, gap: a - b }
  })
  const indistinct = countIndistinct(pairs, tokenizer)
  return { scorer, ...summarizePairs(scored, bootstrap), pairs: scored, skipped, indistinct }
}
