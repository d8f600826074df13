/**
 * What every model has in common: its configuration, device and precision; loading from model folders and saving to them; and the
 * rule when a forward pass is put on the tape.
 */
import { type ElectraConfig, overrideElectraConfig } from '../formats/electra-config.js'
import { type HubOptions, resolveModelFolder } from '../formats/hub.js'
import { readModelFolder, writeModelFolder } from '../formats/model-folder.js'
import { writeOnnx } from '../formats/onnx.js'
import { electraGraph } from '../formats/onnx-electra.js'
import type { TensorToWrite } from '../formats/safetensors.js'
import { canonicalTensorName, matchTensors, requireMatchingShapes } from '../formats/tensor-names.js'
import type { TensorSource } from '../formats/tensor-source.js'
import { Module, type NamedParameter } from '../nn/index.js'
import { type Device, type DeviceName, deviceInfo, resolveDevice, VoltaicError } from '../runtime/index.js'
import { noGrad, scope } from '../tensor/index.js'
import { defaultDraw } from '../tensor/random.js'
import { type DeviceBatch, releaseIndices } from './batch.js'
import type { ActivationDtype } from './embeddings.js'
import { FirstValues, type Initialization, initializeByName } from './initialization.js'
import { ModelRandomness } from './randomness.js'

/** 'auto' is bf16 where the device multiplies it faster than fp32. */
export type Precision = 'fp32' | 'bf16' | 'auto'

export interface BuildContext {
  readonly randomness: ModelRandomness
  readonly initializers: FirstValues
}

export interface ModelOptions {
  /** Default 'cpu'. */
  readonly device?: DeviceName | Device | undefined
  /** Of activations and products; weights, logits and losses are float32 always. Default 'fp32'. */
  readonly precision?: Precision | undefined
  /** How first values are drawn. Default 'original'. */
  readonly initialization?: Initialization | undefined
  /** First values and dropout follow from it. Default: the generator that `setSeed` starts, and 0 for dropout. */
  readonly seed?: number | bigint | undefined
  /** What parts of a model share with the whole, which then decides about their first values. */
  readonly context?: BuildContext | undefined
}

export interface FromPretrainedOptions extends ModelOptions, HubOptions {
  /** Default 'auto'. */
  readonly device?: DeviceName | Device | undefined
  /** Overrides of the folder's configuration, such as `{ numLabels: 3 }` or `{ id2label, label2id, problemType }` for a new head. */
  readonly config?: Partial<ElectraConfig> | undefined
  /**
   * The head is about to be trained: no warning says that it is not yet, and one of other sizes in the folder counts as missing.
   * Default false.
   */
  readonly newHead?: boolean | undefined
}

export interface OnnxOptions {
  /**
   * 'int8': products with weights run in 8 bits (weights scaled by column, activations at run time), for a file of a quarter of the
   * size and logits that are less exact. Default null: float32.
   */
  readonly quantize?: 'int8' | null | undefined
}

/** How a model folder's weights met the model. */
export interface LoadReport {
  /** Tensors that the folder lacks: a head with first values, still to be trained. */
  readonly missing: readonly string[]
  /** Tensors of the folder that the model has no place for. */
  readonly unexpected: readonly string[]
}

/** A class of models, as `fromPretrained` builds it. */
export interface ModelClass<M> {
  new (config: ElectraConfig, options?: ModelOptions): M
}

/** @throws ERR_ARGUMENT for an unknown name */
export function resolvePrecision(precision: Precision, device: Device): 'fp32' | 'bf16' {
  if (precision === 'auto') return deviceInfo(device).bfloat16IsFast ? 'bf16' : 'fp32'
  if (precision === 'fp32' || precision === 'bf16') return precision
  throw new VoltaicError(
    'ERR_ARGUMENT',
    `precision is ${JSON.stringify(precision)}; expected 'fp32', 'bf16' or 'auto'`,
  )
}

const bodyName = /^(electra\.)?(embeddings|embeddings_project|encoder)\./

function list(names: readonly string[]): string {
  const shown = names.slice(0, 6).join(', ')
  return names.length > 6 ? `${shown} and ${names.length - 6} more` : shown
}

export abstract class ElectraPreTrainedModel extends Module {
  readonly config: ElectraConfig
  readonly device: Device
  readonly precision: 'fp32' | 'bf16'
  /** Dropout's state and numbering. */
  readonly randomness: ModelRandomness
  readonly #initializers: FirstValues
  #report: LoadReport = { missing: [], unexpected: [] }

  /** The class name that files carry. */
  abstract readonly architecture: string

  protected constructor(config: ElectraConfig, options: ModelOptions) {
    super()
    const { device } = options
    this.config = config
    this.device = typeof device === 'object' ? device : resolveDevice(device ?? 'cpu')
    this.precision = resolvePrecision(options.precision ?? 'fp32', this.device)
    const { context, seed } = options
    this.randomness = context?.randomness ?? new ModelRandomness(this.device, seed ?? 0)
    this.#initializers =
      context?.initializers ?? new FirstValues(config, options.initialization, seed !== undefined)
  }

  /** What loading found missing and unexpected; both empty for a model that was not loaded. */
  get loadReport(): LoadReport {
    return this.#report
  }

  get activationDtype(): ActivationDtype {
    return this.precision === 'bf16' ? 'bfloat16' : 'float32'
  }

  /** What a constructor builds the parts with. */
  protected building(): BuildContext & { readonly device: Device; readonly part: ModelOptions } {
    const { device, randomness, precision } = this
    const context = { randomness, initializers: this.#initializers }
    return { device, ...context, part: { device, precision, context } }
  }

  /** Ends a constructor: draws the first values from the seed, when one was given. */
  protected seeded({ context, seed }: ModelOptions): void {
    if (context === undefined && seed !== undefined) this.#initialize(seed)
  }

  /** Draws first values: from a seed, by name; without one from the generator that `setSeed` starts. */
  #initialize(seed: number | bigint | undefined, only?: readonly string[]): void {
    this.#initializers.deferred = false
    if (seed !== undefined) {
      initializeByName(this, { seed, prefix: `${this.architecture}/`, only })
      return
    }
    for (const { name, parameter } of this.entries()) {
      if (only?.includes(name) === false) continue
      const draw = defaultDraw(this.device)
      parameter.initializer(parameter, draw)
      draw.state.dispose()
    }
  }

  /**
   * Runs a forward pass. It is recorded for backward in training mode, and in evaluation mode when there is a loss to call backward on;
   * else nothing is kept. The batch's indices are freed afterwards, unless the batch came from the caller (as `input`).
   */
  protected pass<T>(batch: DeviceBatch, input: unknown, hasLoss: boolean, body: () => T): T {
    if (this.training) this.randomness.advance()
    try {
      // In a scope what is freed on the way costs no finalizer, a fifth of JavaScript's time.
      return this.training || hasLoss ? body() : noGrad(() => scope(body))
    } finally {
      releaseIndices(batch, input)
    }
  }

  /**
   * Loads a model folder (config.json and weights), or a model by its name on the hub, such as `google/electra-small-discriminator`
   * (see `resolveModelFolder`); the model is in evaluation mode. Tensors of a head that the folder lacks get first values, tensors
   * without a place are left alone; a process warning and `loadReport` name both.
   * @throws ERR_IO, ERR_CONFIG; ERR_FORMAT when the weights are damaged or do not fit the configuration
   */
  static async fromPretrained<M extends ElectraPreTrainedModel>(
    this: ModelClass<M>,
    nameOrFolder: string,
    options: FromPretrainedOptions = {},
  ): Promise<M> {
    const { config: changes, initialization, newHead = false, precision, seed } = options
    const folder = await resolveModelFolder(nameOrFolder, ['model'], options)
    using source = readModelFolder(folder)
    const config = overrideElectraConfig(source.config, changes)
    const device =
      typeof options.device === 'object' ? options.device : resolveDevice(options.device ?? 'auto')
    const context = {
      randomness: new ModelRandomness(device, seed ?? 0),
      initializers: new FirstValues(config, initialization, true),
    }
    const model = new this(config, { device, precision, context })
    try {
      const { missing } = model.loadWeights(source.tensors, { where: folder, newHead })
      if (missing.length > 0) model.#initialize(seed, missing)
      if (!newHead) model.#warn(folder)
    } catch (error) {
      model.dispose()
      throw error
    }
    return model.eval()
  }

  /**
   * Takes over weights by their names. A head that the source lacks keeps its values, tensors without a place are left alone; both are
   * named in what comes back, and in `loadReport`.
   * @param options `where` names the source in messages; with `newHead` a head of other shapes counts as missing
   * @throws ERR_FORMAT when a shape differs, or part of the body is missing
   */
  loadWeights(
    tensors: TensorSource,
    {
      where = tensors.path,
      newHead = false,
    }: { readonly where?: string; readonly newHead?: boolean | undefined } = {},
  ): LoadReport {
    const parameters = new Map(this.namedParameters())
    const shapes = new Map([...parameters].map(([name, parameter]) => [name, parameter.shape]))
    const match = matchTensors(shapes, tensors)
    const replaced = match.mismatched.filter(({ name }) => newHead && !bodyName.test(name))
    const mismatched = match.mismatched.filter((one) => !replaced.includes(one))
    requireMatchingShapes({ mismatched }, where)
    const missing = [...match.missing, ...replaced.map(({ name }) => name)]
    const body = missing.filter((name) => bodyName.test(name))
    if (body.length > 0) {
      throw new VoltaicError(
        'ERR_FORMAT',
        `${where}: the weights lack ${list(body)}, which the configuration asks for; ` +
          'use the config.json that was saved with these weights',
      )
    }
    for (const [name, sourceName] of match.matched) {
      parameters.get(name)?.assign(tensors.float32(sourceName))
    }
    this.#report = { missing, unexpected: match.unexpected }
    return this.#report
  }

  #warn(folder: string): void {
    const { missing, unexpected } = this.#report
    if (missing.length === 0 && unexpected.length === 0) return
    const parts: string[] = []
    if (missing.length > 0) parts.push(`not in the file, so not trained yet: ${list(missing)}`)
    if (unexpected.length > 0) parts.push(`in the file, but not in the model: ${list(unexpected)}`)
    process.emitWarning(`${folder} as ${this.architecture}: ${parts.join('; ')}`, {
      type: 'VoltaicWarning',
      code: 'VOLTAIC_WEIGHTS',
    })
  }

  /** The weights under their names in files, read when their turn comes. */
  tensorsToWrite(): TensorToWrite[] {
    return [...this.namedParameters()].map(([name, parameter]) => ({
      name,
      dtype: 'F32',
      shape: parameter.shape,
      data: () => parameter.data(),
    }))
  }

  /**
   * Writes config.json and model.safetensors as Hugging Face's libraries read them, and `files` (such as the tokenizer's) beside them.
   * @throws ERR_IO when writing fails; what was in the folder stays whole
   */
  async savePretrained(
    folder: string,
    options: { readonly files?: Readonly<Record<string, string | Uint8Array>> | undefined } = {},
  ): Promise<void> {
    await writeModelFolder(folder, {
      config: { ...this.config, architectures: [this.architecture] },
      tensors: this.tensorsToWrite(),
      files: options.files ?? {},
    })
  }

  /**
   * Writes the model as one ONNX file (operator set 17) that onnxruntime loads. It takes what Hugging Face's exports take: padded
   * input_ids, attention_mask and token_type_ids, int64 [batch, sequence] of any size ([batch, choices, sequence] for multiple choice),
   * and gives float32 `logits` (`start_logits` and `end_logits`; `last_hidden_state` for the bare body).
   * @throws ERR_IO when writing fails (an old file stays whole); ERR_UNSUPPORTED for a model of 2 GiB or more
   */
  async saveOnnx(file: string, { quantize = null }: OnnxOptions = {}): Promise<void> {
    if (quantize !== null && quantize !== 'int8') {
      throw new VoltaicError(
        'ERR_ARGUMENT',
        `saveOnnx: quantize is ${JSON.stringify(quantize)}; expected 'int8' or null`,
      )
    }
    const parameters = new Map(
      [...this.namedParameters()].map(([name, parameter]) => [canonicalTensorName(name), parameter]),
    )
    const named = (name: string): NamedParameter => {
      const parameter = parameters.get(name)
      if (parameter !== undefined) return parameter
      throw new VoltaicError('ERR_UNSUPPORTED', `saveOnnx: ${this.architecture} has no ${name}`)
    }
    const weights = {
      shape: (name: string) => named(name).shape,
      read: (name: string) => named(name).data() as Promise<Float32Array>,
    }
    await writeOnnx(file, electraGraph(this.architecture, this.config, weights, { quantize }))
  }
}
