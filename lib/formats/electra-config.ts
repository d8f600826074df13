/**
 * The configuration of an ELECTRA model: config.json with Hugging Face's key names on one side, a checked camelCase object on the
 * other. Defaults are those of the released small discriminator, as everywhere in the ecosystem. Keys that mean nothing here are
 * kept in `extra`, so that a file read and written again loses nothing.
 */
import { VoltaicError } from '../runtime/errors.js'
import { compareCodePoints, pythonJson } from './python-json.js'

export type ActivationName = 'gelu' | 'gelu_new' | 'gelu_pytorch_tanh' | 'relu' | 'tanh' | 'sigmoid'
export type SummaryType = 'first' | 'last' | 'mean' | 'cls_index'
export type ProblemType = 'regression' | 'single_label_classification' | 'multi_label_classification'

export interface ElectraConfig {
  /** Class names the weights were saved from, such as `ElectraForPreTraining`. */
  readonly architectures: readonly string[]
  readonly vocabSize: number
  readonly embeddingSize: number
  readonly hiddenSize: number
  readonly numHiddenLayers: number
  readonly numAttentionHeads: number
  readonly intermediateSize: number
  readonly hiddenAct: ActivationName
  readonly hiddenDropoutProb: number
  readonly attentionProbsDropoutProb: number
  readonly maxPositionEmbeddings: number
  readonly typeVocabSize: number
  readonly initializerRange: number
  readonly layerNormEps: number
  readonly padTokenId: number
  readonly summaryType: SummaryType
  readonly summaryUseProj: boolean
  /** null: no activation after the summary's projection. */
  readonly summaryActivation: ActivationName | null
  readonly summaryLastDropout: number
  /** null: `hiddenDropoutProb` serves. */
  readonly classifierDropout: number | null
  readonly tieWordEmbeddings: boolean
  /** How many labels a classification head has: the size of `id2label`. */
  readonly numLabels: number
  readonly id2label: Readonly<Record<number, string>>
  readonly label2id: Readonly<Record<string, number>>
  /** null: inferred from the labels. */
  readonly problemType: ProblemType | null
  /** Members of config.json that Voltaic does not use, as they came. */
  readonly extra: Readonly<Record<string, unknown>>
}

interface Field {
  readonly fallback: unknown
  readonly expected: string
  /** The checked value, or undefined when it does not fit. */
  read(value: unknown): unknown
}

/** Numbers stand quoted in some files. */
function numberOf(value: unknown): number {
  if (typeof value === 'number') return value
  if (typeof value === 'string' && /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(value)) return Number(value)
  return Number.NaN
}

function number(fallback: number, expected: string, fits: (value: number) => boolean): Field {
  const read = (value: unknown): number | undefined => {
    const found = numberOf(value)
    return fits(found) ? found : undefined
  }
  return { fallback, expected, read }
}

const largestSize = 2 ** 31 - 1
const isWhole = (value: number, least: number): boolean =>
  Number.isInteger(value) && value >= least && value <= largestSize

const size = (fallback: number): Field =>
  number(fallback, 'a whole number from 1 to 2147483647', (value) => isWhole(value, 1))
const index = (fallback: number): Field =>
  number(fallback, 'a whole number from 0 to 2147483647', (value) => isWhole(value, 0))
const probability = (fallback: number): Field =>
  number(fallback, 'a probability: 0 or more, less than 1', (value) => value >= 0 && value < 1)
const positive = (fallback: number): Field =>
  number(fallback, 'a finite number above 0', (value) => value > 0 && value < Number.POSITIVE_INFINITY)

function boolean(fallback: boolean): Field {
  const read = (value: unknown): boolean | undefined => {
    if (typeof value === 'boolean') return value
    return value === 'true' ? true : value === 'false' ? false : undefined
  }
  return { fallback, expected: 'true or false', read }
}

function oneOf(fallback: string | null, ...names: string[]): Field {
  const read = (value: unknown): string | undefined => names.find((name) => name === value)
  return { fallback, expected: `one of ${names.join(', ')}`, read }
}

const orNull = (field: Field): Field => ({ ...field, fallback: null, expected: `${field.expected}, or null` })

const activations: readonly ActivationName[] = [
  'gelu',
  'gelu_new',
  'gelu_pytorch_tanh',
  'relu',
  'tanh',
  'sigmoid',
]

/** Every field that stands in config.json under its own name, in snake_case, with a value of its own. */
const fields = {
  vocabSize: size(30522),
  embeddingSize: size(128),
  hiddenSize: size(256),
  numHiddenLayers: size(12),
  numAttentionHeads: size(4),
  intermediateSize: size(1024),
  hiddenAct: oneOf('gelu', ...activations),
  hiddenDropoutProb: probability(0.1),
  attentionProbsDropoutProb: probability(0.1),
  maxPositionEmbeddings: size(512),
  typeVocabSize: size(2),
  initializerRange: positive(0.02),
  layerNormEps: positive(1e-12),
  padTokenId: index(0),
  summaryType: oneOf('first', 'first', 'last', 'mean', 'cls_index'),
  summaryUseProj: boolean(true),
  summaryActivation: oneOf('gelu', ...activations),
  summaryLastDropout: probability(0.1),
  classifierDropout: orNull(probability(0)),
  tieWordEmbeddings: boolean(true),
  problemType: orNull(oneOf(null, 'regression', 'single_label_classification', 'multi_label_classification')),
} as const satisfies Partial<Record<keyof ElectraConfig, Field>>

type FieldName = keyof typeof fields
const fieldNames = Object.keys(fields) as FieldName[]

/** The key of a field in config.json: `hiddenSize` stands there as `hidden_size`. */
export function configKey(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}

const floatKeys: ReadonlySet<string> = new Set(
  [
    'hiddenDropoutProb',
    'attentionProbsDropoutProb',
    'initializerRange',
    'layerNormEps',
    'summaryLastDropout',
    'classifierDropout',
  ].map(configKey),
)

function refuse(where: string, key: string, value: unknown, expected: string): never {
  const shown = (JSON.stringify(value) ?? String(value)).slice(0, 200)
  throw new VoltaicError('ERR_CONFIG', `${where}: ${key} is ${shown}; expected ${expected}`)
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

type Labels = Pick<ElectraConfig, 'numLabels' | 'id2label' | 'label2id'>

function defaultLabels(count: number): string[] {
  return Array.from({ length: count }, (_, id) => `LABEL_${id}`)
}

function readLabels(json: Readonly<Record<string, unknown>>, where: string): Labels {
  const { id2label: byId, label2id: byLabel, num_labels: count } = json
  let names: string[]
  if (byId === undefined || byId === null) {
    const numLabels = count === undefined || count === null ? 2 : size(2).read(count)
    if (typeof numLabels !== 'number' || numLabels > 1_000_000) {
      refuse(where, 'num_labels', count, 'a whole number from 1 to 1000000')
    }
    names = defaultLabels(numLabels)
  } else {
    const expected = 'an object from "0", "1", ... (every number once, none left out) to label names'
    if (!isRecord(byId)) refuse(where, 'id2label', byId, expected)
    names = Object.keys(byId).map((_, id) => {
      const name = Object.hasOwn(byId, String(id)) ? byId[String(id)] : undefined
      return typeof name === 'string' || typeof name === 'number'
        ? String(name)
        : refuse(where, 'id2label', byId, expected)
    })
    if (names.length === 0) refuse(where, 'id2label', byId, expected)
  }
  const numLabels = names.length
  let pairs: [string, number][] = names.map((name, id) => [name, id])
  if (byId !== undefined && byId !== null && byLabel !== undefined && byLabel !== null) {
    const expected = `an object from label names to numbers from 0 to ${numLabels - 1}, as in id2label`
    if (!isRecord(byLabel)) refuse(where, 'label2id', byLabel, expected)
    pairs = Object.entries(byLabel).map(([name, value]) => {
      const id = numberOf(value)
      return isWhole(id, 0) && id < numLabels ? [name, id] : refuse(where, 'label2id', byLabel, expected)
    })
  }
  return { numLabels, id2label: Object.fromEntries(names.entries()), label2id: Object.fromEntries(pairs) }
}

function readArchitectures(value: unknown, where: string): string[] {
  if (value === undefined || value === null) return []
  const fits = Array.isArray(value) && value.every((name) => typeof name === 'string')
  return fits ? [...value] : refuse(where, 'architectures', value, 'a list of class names')
}

/** Values that say the model is something else than the encoder Voltaic builds. */
function refuseOtherModels(json: Readonly<Record<string, unknown>>, where: string): void {
  const allowed: readonly [key: string, values: readonly unknown[], reason: string][] = [
    ['model_type', ['electra', null, undefined], '"electra": Voltaic reads ELECTRA models only'],
    [
      'position_embedding_type',
      ['absolute', null, undefined],
      '"absolute": ELECTRA has learned absolute positions',
    ],
    ['is_decoder', [false, null, undefined], 'false: ELECTRA is an encoder'],
    ['add_cross_attention', [false, null, undefined], 'false: ELECTRA is an encoder'],
  ]
  for (const [key, values, reason] of allowed) {
    if (!values.includes(json[key])) refuse(where, key, json[key], reason)
  }
}

function checkTogether(config: ElectraConfig, where: string): void {
  const { hiddenSize, numAttentionHeads, padTokenId, vocabSize } = config
  if (hiddenSize % numAttentionHeads !== 0) {
    refuse(
      where,
      'hidden_size',
      hiddenSize,
      `a multiple of num_attention_heads, which is ${numAttentionHeads}`,
    )
  }
  if (padTokenId >= vocabSize) {
    refuse(where, 'pad_token_id', padTokenId, `a number below vocab_size, which is ${vocabSize}`)
  }
}

const ownKeys: ReadonlySet<string> = new Set([
  ...fieldNames.map(configKey),
  'architectures',
  'model_type',
  'position_embedding_type',
  'id2label',
  'label2id',
  'num_labels',
])

/**
 * Reads the parsed content of a config.json. Missing keys take the ecosystem's defaults, quoted numbers and booleans count as what
 * they say, unknown keys are kept in `extra`.
 * @param where names the source in messages, usually the file's path
 * @throws ERR_CONFIG naming the key, its value and what is expected
 */
export function parseElectraConfig(json: unknown, where: string): ElectraConfig {
  if (!isRecord(json)) {
    throw new VoltaicError('ERR_CONFIG', `${where}: expected a JSON object with the model's configuration`)
  }
  refuseOtherModels(json, where)
  const values: Partial<Record<FieldName, unknown>> = {}
  for (const name of fieldNames) {
    const key = configKey(name)
    const field: Field = fields[name]
    const raw = Object.hasOwn(json, key) ? json[key] : undefined
    if (name === 'summaryActivation' && raw === null) values[name] = null
    else if (raw === undefined || raw === null) values[name] = field.fallback
    else values[name] = field.read(raw) ?? refuse(where, key, raw, field.expected)
  }
  const config = {
    ...values,
    ...readLabels(json, where),
    architectures: readArchitectures(json.architectures, where),
    extra: Object.fromEntries(Object.entries(json).filter(([key]) => !ownKeys.has(key))),
  } as ElectraConfig
  checkTogether(config, where)
  return config
}

/**
 * A configuration from camelCase options; what is left out takes its default. `numLabels` alone makes the labels LABEL_0, LABEL_1, ...
 * @throws ERR_CONFIG naming the key, its value and what is expected
 */
export function defineElectraConfig(options: Partial<ElectraConfig> = {}): ElectraConfig {
  const json: Record<string, unknown> = { ...options.extra, architectures: options.architectures }
  for (const name of fieldNames) if (options[name] !== undefined) json[configKey(name)] = options[name]
  const { id2label, label2id, numLabels } = options
  if (id2label !== undefined && numLabels !== undefined && Object.keys(id2label).length !== numLabels) {
    refuse(
      'options',
      'numLabels',
      numLabels,
      `the size of id2label, which is ${Object.keys(id2label).length}`,
    )
  }
  return parseElectraConfig({ ...json, id2label, label2id, num_labels: numLabels }, 'options')
}

function hasDefaultLabels({ numLabels, id2label, label2id }: ElectraConfig): boolean {
  const isDefault = (name: string, id: number): boolean => id2label[id] === name && label2id[name] === id
  return numLabels === 2 && defaultLabels(2).every(isDefault)
}

/** A configuration with changes; other labels replace all that was said of the old ones. */
export function overrideElectraConfig(
  config: ElectraConfig,
  changes: Partial<ElectraConfig> | undefined,
): ElectraConfig {
  if (changes === undefined) return config
  const { id2label, label2id, numLabels, ...rest } = config
  const labels =
    changes.numLabels === undefined && changes.id2label === undefined && changes.label2id === undefined
      ? { id2label, label2id }
      : {}
  const kept = changes.numLabels === undefined && changes.id2label === undefined ? { numLabels } : {}
  return defineElectraConfig({ ...rest, ...labels, ...kept, ...changes })
}

/**
 * The members of config.json, keys in code-point order. As the ecosystem does, labels and `tie_word_embeddings` are left out
 * where they are the defaults, and so is a `problem_type` that is not set.
 */
export function electraConfigToJson(config: ElectraConfig): Record<string, unknown> {
  const json: Record<string, unknown> = {
    ...config.extra,
    architectures: config.architectures.length === 0 ? undefined : [...config.architectures],
    model_type: 'electra',
    position_embedding_type: 'absolute',
  }
  for (const name of fieldNames) json[configKey(name)] = config[name]
  if (config.tieWordEmbeddings) delete json.tie_word_embeddings
  if (config.problemType === null) delete json.problem_type
  if (!hasDefaultLabels(config)) {
    json.id2label = { ...config.id2label }
    json.label2id = { ...config.label2id }
  }
  const entries = Object.entries(json).filter(([, value]) => value !== undefined)
  return Object.fromEntries(entries.sort(([first], [second]) => compareCodePoints(first, second)))
}

/** The text of config.json, byte for byte as Hugging Face's tools print the same values. */
export function formatElectraConfig(config: ElectraConfig): string {
  return `${pythonJson(electraConfigToJson(config), floatKeys)}\n`
}
