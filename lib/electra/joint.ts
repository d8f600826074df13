/**
 * Generator and discriminator trained together (Clark et al., 2020, section 2; the original code's rules). The generator fills masked
 * positions by samples, the discriminator tells samples from original tokens:
 *
 *   masked, positions ← corruption_mask(ids)          logits ← generator(masked)[positions]
 *   samples ← arg max(logits / temperature + Gumbel)  replaced, labels ← corruption_replace(ids, positions, samples)
 *   loss = generatorWeight · crossEntropy(logits, ids[positions]) + discriminatorWeight · sigmoidCrossEntropy(discriminator(replaced), labels)
 *
 * A sample equal to the original counts as original. Samples carry no gradient, so one backward serves both. Everything stays on the
 * device; the number of masked positions has a fixed capacity there.
 */
import { Module, ParameterArena } from '../nn/index.js'
import { type Device, VoltaicError } from '../runtime/index.js'
import {
  add,
  corruptMask,
  corruptReplace,
  mul,
  noGrad,
  notEqual,
  RandomState,
  type Tensor,
  zeros,
} from '../tensor/index.js'
import {
  type BatchInput,
  type DeviceBatch,
  flattenRows,
  type Rows,
  releaseIndices,
  toDeviceBatch,
  upload,
} from './batch.js'
import type { ElectraForMaskedLM } from './for-masked-lm.js'
import type { ElectraForPreTraining } from './for-pre-training.js'
import { ignoredLabel, tokenLabels } from './heads.js'
import {
  type JointOptions,
  type JointSettings,
  maskedCapacity,
  resolveJointOptions,
} from './joint-options.js'

/** Which losses a forward pass computes and trains: both, the generator's alone, or the discriminator's against a frozen generator. */
export type JointObjective = 'joint' | 'generator' | 'discriminator'

/** Corruption that is given instead of drawn, so that a pass is a function of its data. */
export interface GivenCorruption {
  /** What the generator sees. */
  readonly maskedIds?: Rows | undefined
  /** For each token the original id where the generator is to predict it, else -100. Needed with `maskedIds`. */
  readonly labels?: Rows | undefined
  /** What the discriminator sees; labels follow by comparison with `inputIds`. Left out: the generator samples. */
  readonly replacedIds?: Rows | undefined
}

export interface JointForwardOptions {
  /** Default 'joint'. */
  readonly objective?: JointObjective | undefined
  /** int32 [4100]: the discriminator's counts are added to it (see `discriminatorLoss`). */
  readonly metrics?: Tensor | undefined
}

export interface JointOutput {
  /** What is trained, a scalar: the weighted sum, or one loss alone. */
  readonly loss: Tensor
  /** Mean cross-entropy over the chosen positions, unweighted, a scalar without a tape. */
  readonly generatorLoss: Tensor
  /** Mean sigmoid cross-entropy over all tokens, unweighted, a scalar without a tape; 0 for the objective 'generator'. */
  readonly discriminatorLoss: Tensor
  /** int32 [2]: chosen positions, and those of them where the generator's first choice is the original. */
  readonly maskedCounts: Tensor
  /** What the discriminator saw and said; null for the objective 'generator'. */
  readonly discriminator: {
    /** int32 [tokens] */
    readonly replacedIds: Tensor
    /** int32 [tokens]: 1 where replaced. */
    readonly labels: Tensor
    /** float32 [tokens]; above 0 means replaced. */
    readonly logits: Tensor
  } | null
  readonly offsets: Tensor
}

/** Numbers of the places that draw; those of dropout count on from each model's first. */
const site = { mask: 0, sample: 2, generator: 0x10000, discriminator: 0x20000 } as const

/** What the generator predicts: the tokens of the flat run, the original ids there (-100 in unused slots), and how many are used. */
interface Masked {
  readonly ids: Tensor
  readonly positions: Tensor
  readonly targets: Tensor
  readonly count: Tensor
}

interface Prediction {
  readonly loss: Tensor
  readonly counts: Tensor
  readonly samples: Tensor | null
}

export class ElectraForJointPreTraining extends Module {
  readonly discriminator: ElectraForPreTraining
  readonly generator: ElectraForMaskedLM
  readonly settings: JointSettings
  readonly tied: boolean
  readonly device: Device
  readonly #random: RandomState
  readonly #ownSeed: number | bigint | null
  #step = 0
  #arena: ParameterArena | null = null

  /**
   * The models keep their weights; with `tie` the generator's embedding block is replaced by the discriminator's.
   * @throws ERR_CONFIG when tied models differ in their embeddings' sizes, ERR_DEVICE when they are on different devices,
   * ERR_ARGUMENT for an option out of range
   */
  constructor(generator: ElectraForMaskedLM, discriminator: ElectraForPreTraining, options: JointOptions) {
    super()
    this.settings = resolveJointOptions(options, discriminator.config)
    this.device = discriminator.device
    if (generator.device.id !== this.device.id) {
      throw new VoltaicError(
        'ERR_DEVICE',
        `joint pre-training: the generator is on ${generator.device.name}, the discriminator on ${this.device.name}`,
      )
    }
    if (
      generator.config.vocabSize !== discriminator.config.vocabSize ||
      generator.precision !== discriminator.precision
    ) {
      throw new VoltaicError(
        'ERR_CONFIG',
        'joint pre-training: the models must agree in vocabulary and precision; the generator has ' +
          `${generator.config.vocabSize} tokens in ${generator.precision}, the discriminator ` +
          `${discriminator.config.vocabSize} in ${discriminator.precision}`,
      )
    }
    this.discriminator = discriminator
    this.generator = generator
    this.tied = options.tie ?? true
    if (this.tied) generator.electra.shareEmbeddings(discriminator.electra)
    this.#ownSeed = options.random === undefined ? (options.seed ?? 0) : null
    this.#random = options.random ?? new RandomState(this.device, { seed: options.seed ?? 0 })
    generator.randomness.follow(this.#random, site.generator)
    discriminator.randomness.follow(this.#random, site.discriminator)
  }

  /**
   * Both models' parameters in one buffer, shared ones once: the discriminator's first, then the generator's, each in order of
   * definition. Made when first asked for; with a bf16 copy where the models compute in bf16.
   */
  get arena(): ParameterArena {
    this.#arena ??= new ParameterArena(this, { workingCopy: this.discriminator.precision === 'bf16' })
    return this.#arena
  }

  /**
   * One pass over a batch. It is recorded for backward in training mode; in evaluation mode only where all corruption is given, and
   * nothing is dropped.
   * @throws ERR_ARGUMENT and ERR_SHAPE for inputs that do not fit the models or each other
   */
  forward(input: BatchInput & GivenCorruption, options: JointForwardOptions = {}): JointOutput {
    const record = this.training || input.replacedIds !== undefined
    const pass = (): JointOutput => this.#begin(input, options, keepTape)
    return record ? pass() : noGrad(pass)
  }

  /**
   * `forward` and `loss.backward()` in less memory: the generator's backward runs before the discriminator's forward, so the
   * activations of one model at a time are alive. The gradients are the same up to the order in which those of shared tables add up;
   * the loss has no tape.
   * @throws as `forward`
   */
  forwardBackward(input: BatchInput & GivenCorruption, options: JointForwardOptions = {}): JointOutput {
    return this.#begin(input, options, backwardAtOnce)
  }

  #begin(input: BatchInput & GivenCorruption, options: JointForwardOptions, settle: Settle): JointOutput {
    const batch = toDeviceBatch(input, this.discriminator.config, this.device)
    if (this.training && this.#ownSeed !== null) this.#random.set({ seed: this.#ownSeed, step: ++this.#step })
    try {
      return this.#pass(batch, input, options, settle)
    } finally {
      releaseIndices(batch, input)
    }
  }

  #pass(
    batch: DeviceBatch,
    given: GivenCorruption,
    options: JointForwardOptions,
    settle: Settle,
  ): JointOutput {
    const { objective = 'joint' } = options
    if (objective !== 'joint' && objective !== 'generator' && objective !== 'discriminator') {
      throw new VoltaicError(
        'ERR_ARGUMENT',
        `objective is ${JSON.stringify(objective)}; expected 'joint', 'generator' or 'discriminator'`,
      )
    }
    const masked = given.maskedIds === undefined ? this.#mask(batch) : this.#given(batch, given)
    const samples = objective !== 'generator' && given.replacedIds === undefined
    const prediction =
      objective === 'discriminator'
        ? this.#frozen(() => this.#predict(batch, masked, samples))
        : this.#predict(batch, masked, samples)
    const generatorLoss = prediction.loss.detach()
    const common = { generatorLoss, maskedCounts: prediction.counts, offsets: batch.offsets }
    if (objective === 'generator') {
      release(masked)
      const discriminatorLoss = zeros([], { device: this.device })
      return { ...common, loss: settle(prediction.loss), discriminatorLoss, discriminator: null }
    }
    const { generatorWeight, discriminatorWeight } = this.settings
    const parts: Tensor[] = []
    if (objective === 'joint') parts.push(settle(mul(prediction.loss, generatorWeight)))
    prediction.loss.dispose()
    const corrupted = this.#corrupt(batch, given, masked, prediction)
    release(masked)
    const detection = this.#detect(batch, corrupted, options.metrics)
    const discriminatorLoss = detection.loss.detach()
    const discriminator = {
      replacedIds: corrupted.replaced,
      labels: corrupted.labels,
      logits: detection.logits,
    }
    if (objective === 'discriminator') {
      return { ...common, loss: settle(detection.loss), discriminatorLoss, discriminator }
    }
    parts.push(settle(mul(detection.loss, discriminatorWeight)))
    detection.loss.dispose()
    const loss = add(...(parts as [Tensor, Tensor]))
    for (const part of parts) part.dispose()
    return { ...common, loss, discriminatorLoss, discriminator }
  }

  /** Chooses positions and masks them, on the device. */
  #mask(batch: DeviceBatch): Masked {
    const { settings } = this
    const capacity = maskedCapacity(batch.tokens, settings.maskProbability, settings.sequenceLength)
    const { masked, positions, targets, count } = corruptMask(batch.ids, batch.offsets, {
      state: this.#random.tensor,
      site: site.mask,
      capacity,
      probability: settings.maskProbability,
      replaceProbability: settings.replaceProbability,
      limit: settings.maskedLimit,
      cls: settings.clsTokenId,
      sep: settings.sepTokenId,
      mask: settings.maskTokenId,
    })
    return { ids: masked, positions, targets, count }
  }

  /** Masked ids and targets as they were given. */
  #given(batch: DeviceBatch, { maskedIds, labels }: GivenCorruption): Masked {
    if (maskedIds === undefined || labels === undefined) {
      throw new VoltaicError(
        'ERR_ARGUMENT',
        'forward: maskedIds need labels: the original ids, -100 elsewhere',
      )
    }
    const { vocabSize } = this.generator.config
    const targets = tokenLabels(labels, batch, vocabSize)
    const positions = Int32Array.from({ length: batch.tokens }, (_, at) => at).filter(
      (at) => targets[at] !== ignoredLabel,
    )
    return {
      ids: upload(this.#idRows('maskedIds', maskedIds, batch), this.device),
      positions: upload(positions, this.device),
      targets: upload(
        positions.map((at) => targets[at] as number),
        this.device,
      ),
      count: upload(Int32Array.of(positions.length), this.device),
    }
  }

  #idRows(name: string, rows: Rows, batch: DeviceBatch): Int32Array {
    const { vocabSize } = this.generator.config
    const fits = (value: number): boolean => Number.isInteger(value) && value >= 0 && value < vocabSize
    return flattenRows(name, rows, batch.bounds, fits, `a token id from 0 to ${vocabSize - 1}`)
  }

  /** What the generator says at the chosen positions: loss, counts and samples, from one pass over its logits. */
  #predict(batch: DeviceBatch, masked: Masked, samples: boolean): Prediction {
    const { generator, settings } = this
    const { lastHiddenState } = generator.electra.encode({ ...batch, ids: masked.ids })
    const sampling = samples
      ? {
          state: this.#random.tensor,
          site: site.sample,
          temperature: settings.temperature,
          disallowTarget: settings.disallowCorrect,
        }
      : null
    const output = generator.lossAt(lastHiddenState, masked.positions, masked.targets, { sampling })
    lastHiddenState.dispose()
    output.predictions.dispose()
    return output
  }

  /** The generator as it is: no tape, no dropout. */
  #frozen<T>(body: () => T): T {
    const { training } = this.generator
    this.generator.eval()
    try {
      return noGrad(body)
    } finally {
      this.generator.train(training)
    }
  }

  /** What the discriminator sees, and its labels. */
  #corrupt(
    batch: DeviceBatch,
    given: GivenCorruption,
    masked: Masked,
    { samples }: Prediction,
  ): { readonly replaced: Tensor; readonly labels: Tensor } {
    if (samples !== null) {
      const corrupted = corruptReplace(batch.ids, masked.positions, samples, masked.count)
      samples.dispose()
      return corrupted
    }
    const replaced = upload(this.#idRows('replacedIds', given.replacedIds as Rows, batch), this.device)
    const differs = notEqual(replaced, batch.ids)
    const labels = differs.to('int32')
    differs.dispose()
    return { replaced, labels }
  }

  #detect(
    batch: DeviceBatch,
    corrupted: { readonly replaced: Tensor; readonly labels: Tensor },
    metrics: Tensor | undefined,
  ): { readonly loss: Tensor; readonly logits: Tensor } {
    const { discriminator } = this
    const { lastHiddenState } = discriminator.electra.encode({ ...batch, ids: corrupted.replaced })
    const output = discriminator.discriminatorPredictions.loss(lastHiddenState, corrupted.labels, { metrics })
    lastHiddenState.dispose()
    output.valid.dispose()
    return output
  }

  /**
   * Two-stage training, between the stages: the discriminator's body takes over the generator's weights; its head stays.
   * @throws ERR_CONFIG when the two differ in size
   */
  startDiscriminatorFromGenerator(): void {
    const from = new Map(
      [...this.generator.electra.entries()].map(({ name, parameter }) => [name, parameter]),
    )
    const to = new Map(
      [...this.discriminator.electra.entries()].map(({ name, parameter }) => [name, parameter]),
    )
    const differing = [...new Set([...to.keys(), ...from.keys()])].find(
      (name) => from.get(name)?.shape.join() !== to.get(name)?.shape.join(),
    )
    if (
      differing !== undefined ||
      this.generator.config.numAttentionHeads !== this.discriminator.config.numAttentionHeads
    ) {
      throw new VoltaicError(
        'ERR_CONFIG',
        'two-stage training: the discriminator starts from the generator, so both must have the same size; they differ in ' +
          `${differing ?? 'the number of attention heads'} (generatorSize 1 makes them equal)`,
      )
    }
    const copied = new Set<unknown>()
    for (const [name, parameter] of to) {
      const source = from.get(name)
      if (source === undefined || source === parameter || copied.has(parameter)) continue
      parameter.copyFrom(source)
      copied.add(parameter)
    }
  }

  /** Frees all parameters, the arena, and a random state of the model's own. */
  override dispose(): void {
    if (this.#arena !== null) this.#arena.dispose()
    super.dispose()
    if (this.#ownSeed !== null) this.#random.dispose()
  }
}

/** What becomes of a part of the loss as soon as it is there. */
type Settle = (loss: Tensor) => Tensor

const keepTape: Settle = (loss) => loss

/** Gives the loss without its tape. */
const backwardAtOnce: Settle = (loss) => {
  loss.backward()
  const settled = loss.detach()
  loss.dispose()
  return settled
}

function release(masked: Masked): void {
  for (const tensor of Object.values(masked)) tensor.dispose()
}
