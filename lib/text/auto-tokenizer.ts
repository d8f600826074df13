/** Tokenizers from folders and files. */
import { readFile, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { type HubOptions, resolveModelFolder } from '../formats/hub.js'
import { VoltaicError } from '../runtime/errors.js'
import { ioError, systemErrorName } from '../runtime/mapped-file.js'
import { type OlderFiles, parseOlderFiles } from './older-files.js'
import {
  parseTokenizerConfig,
  parseTokenizerJson,
  parseVocabulary,
  type TokenizerConfig,
  type TokenizerJson,
} from './read-files.js'
import type { TokenizerOptions, TokenizerSpecification } from './specification.js'
import { createTokenizer, type Tokenizer } from './tokenizer.js'
import { tokenizerConfigFileName, tokenizerFileName, vocabularyFileName } from './tokenizer-files.js'

/** Everything that files say can be set; what is left out comes from the files. */
export type LoadTokenizerOptions = Omit<TokenizerOptions, 'vocabulary'> & {
  /**
   * Which file decides how text is normalized. `tokenizer_config` (the default, as Hugging Face's classes do): the configuration,
   * tokenizer.json giving the vocabulary alone. `tokenizer_json`: tokenizer.json alone, as the raw tokenizers library does.
   */
  readonly reading?: 'tokenizer_config' | 'tokenizer_json' | undefined
  /** Keep case and accents: short for `lowercase: false`. */
  readonly cased?: boolean | undefined
}

/** No vocabulary comes near; a larger file is not one. */
const largestFile = 32 * 1024 * 1024

/** What earlier versions keep beside the vocabulary. */
const olderFileNames = ['special_tokens_map.json', 'added_tokens.json'] as const

async function readText(path: string): Promise<string | undefined> {
  let bytes: Uint8Array
  try {
    if ((await stat(path)).size > largestFile) {
      throw new VoltaicError(
        'ERR_FORMAT',
        `${path}: larger than ${largestFile} bytes; expected a tokenizer's file`,
      )
    }
    bytes = await readFile(path)
  } catch (error) {
    if (systemErrorName(error) === 'ENOENT') return undefined
    throw ioError('read', path, error)
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new VoltaicError('ERR_FORMAT', `${path}: not UTF-8 text. The file is damaged or of another kind`, {
      cause,
    })
  }
}

/** The first object's settings, with those of later ones on top where they say something. */
function overlay(...layers: readonly Partial<TokenizerOptions>[]): Partial<TokenizerOptions> {
  const entries = layers.flatMap((layer) => Object.entries(layer).filter(([, value]) => value !== undefined))
  return Object.fromEntries(entries)
}

interface Sources {
  readonly place: string
  readonly vocabulary?: readonly string[] | undefined
  readonly json?: TokenizerJson | undefined
  readonly config?: TokenizerConfig | undefined
  readonly older?: OlderFiles | undefined
}

/** Says where files of a folder contradict each other, and which one counts. */
function warnOfContradictions({ place, vocabulary, json, config }: Sources, configCounts: boolean): void {
  const said: string[] = []
  if (json !== undefined && vocabulary !== undefined) {
    const { vocabulary: tokens } = json
    const at = vocabulary.findIndex((token, id) => tokens[id] !== token && tokens[id] !== '')
    const short = at < 0 && vocabulary.length < tokens.length ? vocabulary.length : at
    if (short >= 0) {
      const [ours, theirs] = [tokens[short], vocabulary[short]].map((token) =>
        token === undefined ? 'none' : JSON.stringify(token),
      )
      said.push(
        `${tokenizerFileName} has ${ours} for id ${short}, ${vocabularyFileName} ${theirs}; ${tokenizerFileName} counts`,
      )
    }
  }
  const [ofJson, ofConfig] = [json?.normalization, config?.normalization]
  if (configCounts && ofJson !== undefined && ofConfig !== undefined) {
    const names = ['lowercase', 'stripAccents', 'handleChineseChars'] as const
    const different = names.find((name) => ofJson[name] !== ofConfig[name])
    if (different !== undefined) {
      said.push(
        `${different} is ${ofJson[different]} in ${tokenizerFileName} and ${ofConfig[different]} by ${tokenizerConfigFileName}, ` +
          `where a key that is missing means true; ${tokenizerConfigFileName} counts (the option reading: 'tokenizer_json' takes the other)`,
      )
    }
  }
  if (said.length > 0) {
    process.emitWarning(`${place}: ${said.join('; ')}`, { type: 'VoltaicWarning', code: 'VOLTAIC_TOKENIZER' })
  }
}

/** All tokens beside the vocabulary. Those that only have a name take the id that another file gives them. */
function allAddedTokens(
  { json, config, older }: Sources,
  given: LoadTokenizerOptions['addedTokens'] = [],
): NonNullable<TokenizerOptions['addedTokens']> {
  const listed = [...(older?.addedTokens ?? []), ...(json?.addedTokens ?? []), ...(config?.addedTokens ?? [])]
  const contents = new Set(listed.map(({ content }) => content))
  const additional = new Set([...(older?.additional ?? []), ...(config?.additional ?? [])])
  return [
    ...listed.map((token) => (additional.has(token.content) ? { ...token, special: true } : token)),
    ...[...additional]
      .filter((content) => !contents.has(content))
      .map((content) => ({ content, special: true })),
    ...given,
  ]
}

function tokenizerFrom(sources: Sources, options: LoadTokenizerOptions): Tokenizer {
  const { place, vocabulary, json, config, older } = sources
  const { reading, cased, ...given } = options
  const follow =
    reading ?? (config === undefined || config.followsTokenizerJson ? 'tokenizer_json' : 'tokenizer_config')
  if (follow !== 'tokenizer_json' && follow !== 'tokenizer_config') {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `tokenizer: reading is '${follow}', expected tokenizer_config or tokenizer_json`,
    )
  }
  if (reading === undefined) warnOfContradictions(sources, follow === 'tokenizer_config')
  const asked = overlay(cased === undefined ? {} : { lowercase: !cased }, given)
  const settings =
    follow === 'tokenizer_json'
      ? overlay(config?.common ?? {}, older?.names ?? {}, json?.raw() ?? {}, asked)
      : overlay(config?.normalization ?? {}, config?.common ?? {}, older?.names ?? {}, asked)
  // Asked for another case, accents follow it unless they are asked for too.
  if (asked.lowercase !== undefined && asked.stripAccents === undefined) {
    Object.assign(settings, { stripAccents: asked.lowercase })
  }
  const addedTokens = allAddedTokens(sources, given.addedTokens)
  const tokens = json?.vocabulary ?? vocabulary ?? []
  try {
    return createTokenizer({ ...settings, vocabulary: tokens, addedTokens })
  } catch (error) {
    if (!(error instanceof VoltaicError)) throw error
    throw new VoltaicError(error.code, `${place}: ${error.message}`, { cause: error })
  }
}

/**
 * The tokenizer of a model folder (tokenizer.json or vocab.txt, with tokenizer_config.json where there is one, and in older folders
 * special_tokens_map.json and added_tokens.json), or of a model by its name on the hub (see `resolveModelFolder`).
 * @throws ERR_IO when the folder or its files cannot be read; ERR_FORMAT when none of the files is there, one is damaged, or a special
 * token is missing (the message names it); ERR_UNSUPPORTED when it is not a WordPiece tokenizer.
 */
export async function loadTokenizer(
  nameOrFolder: string,
  options: LoadTokenizerOptions & HubOptions = {},
): Promise<Tokenizer> {
  const { revision, cacheDir, localFilesOnly, onDownload, ...settings } = options
  const hub = { revision, cacheDir, localFilesOnly, onDownload }
  return loadTokenizerFolder(await resolveModelFolder(nameOrFolder, ['tokenizer'], hub), settings)
}

async function loadTokenizerFolder(folder: string, options: LoadTokenizerOptions): Promise<Tokenizer> {
  const found = await stat(folder).catch((error: unknown) => {
    throw ioError('open tokenizer folder', folder, error)
  })
  if (!found.isDirectory()) return loadVocabulary(folder, options)
  const path = (name: string): string => join(folder, name)
  const names = [tokenizerFileName, tokenizerConfigFileName, vocabularyFileName, ...olderFileNames]
  const [jsonText, configText, vocabularyText, mapText, addedText] = await Promise.all(
    names.map((name) => readText(path(name))),
  )
  if (jsonText === undefined && vocabularyText === undefined) {
    throw new VoltaicError(
      'ERR_FORMAT',
      `${folder}: no tokenizer here, expected ${tokenizerFileName} or ${vocabularyFileName}; copy one of them beside the model`,
    )
  }
  const config =
    configText === undefined ? undefined : parseTokenizerConfig(configText, path(tokenizerConfigFileName))
  const [map, added] = olderFileNames
  return tokenizerFrom(
    {
      place: folder,
      json: jsonText === undefined ? undefined : parseTokenizerJson(jsonText, path(tokenizerFileName)),
      config,
      older: config?.listsAddedTokens
        ? undefined
        : parseOlderFiles({ text: mapText, file: path(map) }, { text: addedText, file: path(added) }),
      vocabulary: vocabularyText === undefined ? undefined : parseVocabulary(vocabularyText),
    },
    options,
  )
}

/**
 * A tokenizer from a single file: a vocab.txt (lower-casing unless `cased`), or a tokenizer.json, which says itself what it does.
 * @throws ERR_IO, ERR_FORMAT, ERR_UNSUPPORTED as `loadTokenizer` does.
 */
export async function loadVocabulary(file: string, options: LoadTokenizerOptions = {}): Promise<Tokenizer> {
  const text = await readText(file)
  if (text === undefined) {
    throw new VoltaicError('ERR_IO', `read ${file}: no such file; expected a vocab.txt or a tokenizer.json`)
  }
  const isJson = basename(file).endsWith('.json')
  return tokenizerFrom(
    isJson
      ? { place: file, json: parseTokenizerJson(text, file) }
      : { place: file, vocabulary: parseVocabulary(text) },
    options,
  )
}

/** The tokenizer of a model folder, as Hugging Face's AutoTokenizer. */
export const AutoTokenizer: {
  /** See `loadTokenizer`. */
  readonly fromPretrained: typeof loadTokenizer
} = { fromPretrained: loadTokenizer }

/** ELECTRA's tokenizer (BERT's WordPiece), from a folder, a vocabulary, a vocabulary file or a specification. */
export const ElectraTokenizer: {
  /** See `loadTokenizer`. */
  readonly fromPretrained: typeof loadTokenizer
  /** See `loadVocabulary`. */
  readonly fromFile: typeof loadVocabulary
  /** From tokens by id, or one a line. */
  readonly fromVocabulary: (
    vocabulary: string | readonly string[],
    options?: Omit<TokenizerOptions, 'vocabulary'>,
  ) => Tokenizer
  readonly fromSpecification: (specification: TokenizerSpecification) => Tokenizer
} = {
  fromPretrained: loadTokenizer,
  fromFile: loadVocabulary,
  fromVocabulary: (vocabulary, options = {}) => createTokenizer({ ...options, vocabulary }),
  fromSpecification: (specification) => createTokenizer(specification),
}
