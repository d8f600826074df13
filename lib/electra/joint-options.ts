/** The options of joint pre-training: defaults, every check, and the room that masked positions get. */
import type { ElectraConfig } from '../formats/electra-config.js'
import { VoltaicError } from '../runtime/index.js'
import type { RandomState } from '../tensor/index.js'

export interface JointOptions {
  readonly clsTokenId: number
  readonly sepTokenId: number
  readonly maskTokenId: number
  /** Default 50. */
  readonly discriminatorWeight?: number | undefined
  /** Default 1. */
  readonly generatorWeight?: number | undefined
  /** Part of each sequence's tokens that is chosen. Default 0.15. */
  readonly maskProbability?: number | undefined
  /** How often a chosen token becomes [MASK]; else it stays. Default 0.85. */
  readonly replaceProbability?: number | undefined
  /** Tokens of a sequence at most. Default: the discriminator's positions. */
  readonly sequenceLength?: number | undefined
  /** Chosen tokens of a sequence at most. Default: the original's, the whole part of (maskProbability + 0.005) · sequenceLength. */
  readonly maskedLimit?: number | undefined
  /** Of the generator's samples. Default 1. */
  readonly temperature?: number | undefined
  /** Makes every sample a wrong one. Default false. */
  readonly disallowCorrect?: boolean | undefined
  /**
   * One embedding block (three tables and their LayerNorm) for both models; the generator takes the discriminator's. Default true;
   * false for two-stage training.
   */
  readonly tie?: boolean | undefined
  /** Masks, samples and dropout follow it; the training loop moves it on. Default: a state of the model's own, a step a pass. */
  readonly random?: RandomState | undefined
  /** Of the model's own state. Default 0. */
  readonly seed?: number | bigint | undefined
}

/** The options with every default filled in. */
export type JointSettings = {
  readonly [Key in Exclude<keyof JointOptions, 'tie' | 'random' | 'seed'>]-?: NonNullable<JointOptions[Key]>
}

/** Fills in defaults and checks. Throws ERR_ARGUMENT naming the option, its value and what is expected. */
export function resolveJointOptions(options: JointOptions, config: ElectraConfig): JointSettings {
  const { maskProbability = 0.15, sequenceLength = config.maxPositionEmbeddings } = options
  const settings: JointSettings = {
    clsTokenId: options.clsTokenId,
    sepTokenId: options.sepTokenId,
    maskTokenId: options.maskTokenId,
    discriminatorWeight: options.discriminatorWeight ?? 50,
    generatorWeight: options.generatorWeight ?? 1,
    maskProbability,
    replaceProbability: options.replaceProbability ?? 0.85,
    sequenceLength,
    maskedLimit: options.maskedLimit ?? Math.max(1, Math.floor((maskProbability + 0.005) * sequenceLength)),
    temperature: options.temperature ?? 1,
    disallowCorrect: options.disallowCorrect ?? false,
  }
  const whole = (value: number, least: number, below: number): boolean =>
    Number.isInteger(value) && value >= least && value < below
  const tokenExpected = `a token id from 0 to ${config.vocabSize - 1}`
  const checks: readonly [name: keyof JointSettings, fits: (value: number) => boolean, expected: string][] = [
    ['clsTokenId', (value) => whole(value, 0, config.vocabSize), tokenExpected],
    ['sepTokenId', (value) => whole(value, 0, config.vocabSize), tokenExpected],
    ['maskTokenId', (value) => whole(value, 0, config.vocabSize), tokenExpected],
    ['discriminatorWeight', (value) => value >= 0 && Number.isFinite(value), 'a number from 0'],
    ['generatorWeight', (value) => value >= 0 && Number.isFinite(value), 'a number from 0'],
    ['maskProbability', (value) => value > 0 && value < 1, 'a number between 0 and 1'],
    ['replaceProbability', (value) => value >= 0 && value <= 1, 'a number from 0 to 1'],
    [
      'sequenceLength',
      (value) => whole(value, 1, config.maxPositionEmbeddings + 1),
      `a whole number from 1 to ${config.maxPositionEmbeddings}, the model's positions`,
    ],
    ['maskedLimit', (value) => whole(value, 1, 2 ** 31), 'a whole number from 1'],
    ['temperature', (value) => value > 0 && Number.isFinite(value), 'a number above 0'],
  ]
  for (const [name, fits, expected] of checks) {
    if (fits(settings[name] as number)) continue
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `joint pre-training: ${name} is ${settings[name]}; expected ${expected}`,
    )
  }
  return settings
}

/** Slots for chosen positions: those of full sequences, and two more a sequence's worth of tokens for rounding and short ones. */
export function maskedCapacity(tokens: number, maskProbability: number, sequenceLength: number): number {
  const slots = Math.ceil(maskProbability * tokens) + 2 * Math.ceil(tokens / sequenceLength)
  return Math.ceil(slots / 16) * 16
}
