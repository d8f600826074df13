/**
 * The models that a run goes on from: found, opened, and brought to the run's vocabulary and positions. Any source of `openModelSource`
 * will do: a run's folder, model folders, files of weights, checkpoints of the original code, names on the hub.
 */
import { existsSync, realpathSync, statSync } from 'node:fs'
import { dirname, join, sep } from 'node:path'
import { crc32 } from 'node:zlib'
import { hashPlainData } from '../data/hash.js'
import { type TransferCounts, transferVocabulary } from '../electra/index.js'
import type { ElectraConfig } from '../formats/electra-config.js'
import { resolveModelFolder } from '../formats/hub.js'
import { type ModelSource, openModelSource } from '../formats/model-source.js'
import { withPositions } from '../formats/positions.js'
import type { TensorSource } from '../formats/tensor-source.js'
import { findTensorflowCheckpoint, readTensorflowCheckpoint } from '../formats/tensorflow-checkpoint.js'
import { VoltaicError } from '../runtime/errors.js'
import { loadTokenizer, type Tokenizer } from '../text/index.js'
import type { InitialConfigs } from './model-configs.js'
import { refuse } from './option-checks.js'
import type { PretrainOptions, PretrainSettings } from './options.js'

/** Folders, files or hub names. */
export interface ModelPair {
  readonly discriminator: string
  /** Left out: a new generator, which learns from the discriminator's embeddings on. */
  readonly generator?: string | undefined
}

/** The models under the run's vocabulary and positions, with what was done to them. */
export interface PreparedModels {
  readonly discriminator: TensorSource
  readonly generator: TensorSource | undefined
  /** What became of the word table; undefined where the vocabulary is the models' own. */
  readonly transfer: TransferCounts | undefined
}

/** Whether a checkpoint of the original code has a generator beside its discriminator. */
function holdsGenerator(checkpoint: string): boolean {
  using variables = readTensorflowCheckpoint(checkpoint)
  return variables.names.some((name) => name.startsWith('generator_predictions/'))
}

/** What one name stands for: a run's folder is its two models, a checkpoint of the original code too. */
function pairOf(from: string): ModelPair {
  const part = (name: string): string => join(from, name)
  if (existsSync(join(part('discriminator'), 'config.json'))) {
    const generator = existsSync(join(part('generator'), 'config.json')) ? part('generator') : undefined
    return { discriminator: part('discriminator'), generator }
  }
  // A configuration beside the weights is that of one model.
  const checkpoint = existsSync(join(from, 'config.json')) ? undefined : findTensorflowCheckpoint(from)
  const generator = checkpoint !== undefined && holdsGenerator(checkpoint) ? from : undefined
  return { discriminator: from, generator }
}

function isPair(value: unknown): value is ModelPair {
  const { discriminator, generator } = (value ?? {}) as Record<string, unknown>
  return typeof discriminator === 'string' && (generator === undefined || typeof generator === 'string')
}

/** The pair that the option `from` means, hub names resolved to folders. */
async function resolvePair(from: unknown): Promise<ModelPair> {
  if (typeof from !== 'string' && !isPair(from))
    refuse('from', from, 'the name of a model, or { discriminator, generator } of two')
  const resolve = (name: string) => resolveModelFolder(name)
  if (typeof from === 'string') return pairOf(await resolve(from))
  const { discriminator } = pairOf(await resolve(from.discriminator))
  if (from.generator === undefined) return { discriminator }
  const generator = await resolve(from.generator)
  return { discriminator, generator: pairOf(generator).generator ?? generator }
}

/** A run's folder loses its models with --fresh and at its end: what it goes on from must lie elsewhere. */
function requireOutside(path: string, output: string): void {
  if (!existsSync(path) || !existsSync(output)) return
  const inner = realpathSync(path)
  const outer = realpathSync(output)
  if (inner !== outer && !inner.startsWith(outer + sep)) return
  throw new VoltaicError(
    'ERR_CONFIG',
    `from is ${path}, which lies in the run's own folder ${output}, where new models are written; use another --output`,
  )
}

/** Which weights these are: equal for equal tensors, wherever they lie. */
function fingerprintOf({ names, info, bytes }: TensorSource): string {
  const tensors = [...names].sort().map((name) => {
    const { dtype, shape } = info(name)
    return [name, dtype, shape, crc32(bytes(name))]
  })
  return hashPlainData(tensors).slice(0, 12)
}

const embeddingNames = /^electra\.embeddings\./

export class InitialModels {
  readonly configs: InitialConfigs
  /** Differs where the weights do. */
  readonly identity: string
  readonly #discriminator: ModelSource
  readonly #generator: ModelSource | undefined
  /** The run's. */
  #tokenizer: Tokenizer | undefined
  /** The models' own, where the run's is another. */
  #own: Tokenizer | undefined

  private constructor(discriminator: ModelSource, generator: ModelSource | undefined, tokenizer: string) {
    this.#discriminator = discriminator
    this.#generator = generator
    this.configs = { discriminator: discriminator.config, generator: generator?.config, tokenizer }
    this.identity = [discriminator, generator]
      .map((model) => (model === undefined ? 'a new generator' : fingerprintOf(model.tensors)))
      .join(' and ')
  }

  /** @throws as `openModelSource`; ERR_CONFIG for a source in the run's own folder, or a generator that does not fit */
  static async open({ from, output }: Pick<PretrainOptions, 'from' | 'output'>): Promise<InitialModels> {
    const pair = await resolvePair(from)
    for (const path of [pair.discriminator, pair.generator])
      if (path !== undefined) requireOutside(path, output)
    const discriminator = await openModelSource(pair.discriminator, { part: 'discriminator' })
    let generator: ModelSource | undefined
    try {
      if (pair.generator !== undefined)
        generator = await openModelSource(pair.generator, { part: 'generator' })
      if (generator !== undefined) requireFitting(generator, discriminator)
      const isFolder = statSync(pair.discriminator, { throwIfNoEntry: false })?.isDirectory() === true
      return new InitialModels(
        discriminator,
        generator,
        isFolder ? pair.discriminator : dirname(pair.discriminator),
      )
    } catch (error) {
      generator?.[Symbol.dispose]()
      discriminator[Symbol.dispose]()
      throw error
    }
  }

  /** What a user may want to know of the pair before it trains. */
  notes(): string[] {
    const generator = this.#generator
    if (generator === undefined)
      return ["no generator is given: a new one begins with the discriminator's embeddings"]
    const notes: string[] = []
    const { tensors } = this.#discriminator
    const differing = tensors.names.filter(
      (name) =>
        embeddingNames.test(name) && Buffer.compare(tensors.bytes(name), generator.tensors.bytes(name)) !== 0,
    )
    if (differing.length > 0)
      notes.push(
        "the generator's embeddings are not the discriminator's; both models go on with the discriminator's, so the generator " +
          'begins worse than it was',
      )
    if (generator.config.hiddenSize >= this.#discriminator.config.hiddenSize)
      notes.push(
        'the generator is as wide as the discriminator, which makes the task too hard for it; ' +
          'a new, narrower one (--from with the discriminator alone) usually teaches more',
      )
    return notes
  }

  /**
   * Takes the run's tokenizer, and gives the rows of the word table under it: those that there are, where the vocabulary is the
   * models' own.
   * @throws ERR_CONFIG when the vocabulary cannot be told to be theirs or another
   */
  async adopt(tokenizer: Tokenizer): Promise<number> {
    const { discriminator, tokenizer: folder } = this.configs
    const rows = discriminator.vocabSize
    const tokens = tokenizer.vocabularySize
    this.#tokenizer = tokenizer
    if (['vocab.txt', 'tokenizer.json'].some((name) => existsSync(join(folder, name)))) {
      const own = await loadTokenizer(folder)
      this.#own = sameTokens(own, tokenizer) ? undefined : own
      return this.#own === undefined ? rows : tokens
    }
    if (tokens === rows) return rows
    throw new VoltaicError(
      'ERR_CONFIG',
      `${folder} has no tokenizer beside the weights, and the vocabulary of ${tokens} tokens is not that of its ${rows} rows; ` +
        "put the model's own vocab.txt there",
    )
  }

  /** The weights for a run that begins: positions extended, and moved to the run's vocabulary where it is another. */
  async prepare(settings: PretrainSettings): Promise<PreparedModels> {
    const { positions, trainedPositions: trained, seed } = settings
    let transfer: TransferCounts | undefined
    const prepared: TensorSource[] = []
    for (const source of [this.#discriminator, this.#generator]) {
      if (source === undefined) continue
      let model = positions === undefined ? source : withPositions(source, positions, { trained })
      if (this.#own !== undefined && this.#tokenizer !== undefined) {
        const moved = await transferVocabulary(model, this.#own, this.#tokenizer, { seed })
        const { special, shared, averaged, fresh } = moved
        transfer = { special, shared, averaged, fresh }
        model = moved.model
      }
      prepared.push(model.tensors)
    }
    const [discriminator, generator] = prepared as [TensorSource, TensorSource?]
    return { discriminator, generator, transfer }
  }

  close(): void {
    this.#discriminator[Symbol.dispose]()
    this.#generator?.[Symbol.dispose]()
  }
}

const sameTokens = (a: Tokenizer, b: Tokenizer): boolean =>
  a.vocabularySize === b.vocabularySize && a.vocabulary.every((token, id) => token === b.vocabulary[id])

/** Models that share their embeddings have them in one size. */
function requireFitting(generator: ModelSource, discriminator: ModelSource): void {
  const keys = ['vocabSize', 'embeddingSize', 'maxPositionEmbeddings', 'typeVocabSize'] as const
  const key = keys.find((name) => generator.config[name] !== discriminator.config[name])
  if (key === undefined) return
  const of = ({ config }: { readonly config: ElectraConfig }) => config[key]
  throw new VoltaicError(
    'ERR_CONFIG',
    `the generator ${generator.tensors.path} has ${key} ${of(generator)}, the discriminator ${of(discriminator)}: they share their ` +
      'embeddings, so they must agree; leave the generator out, and a new one that fits is made',
  )
}
