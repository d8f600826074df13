/**
 * Reading vocab.txt, tokenizer.json and tokenizer_config.json (older-files.ts: what earlier versions had beside them).
 *
 * Two readings of a folder exist, and they can differ. Hugging Face's BERT and ELECTRA tokenizer classes take the vocabulary (and
 * added tokens) from tokenizer.json and everything else from tokenizer_config.json, a missing key meaning the class's default; the
 * raw tokenizers library follows tokenizer.json alone. The first is the default here; the second is taken where there is no
 * tokenizer_config.json, where its class is one that follows tokenizer.json, or on request.
 */
import { parseJsonText } from '../formats/json-file.js'
import { VoltaicError } from '../runtime/errors.js'
import type { AddedToken, Template, TemplatePiece, TokenizerOptions } from './specification.js'

type Json = Readonly<Record<string, unknown>>
export type AddedTokenOptions = Partial<AddedToken> & { readonly content: string }

/** Ids above this are taken for damage; no vocabulary comes near. */
export const largestId: number = 2 ** 24

export function refuse(file: string, message: string): never {
  throw new VoltaicError('ERR_FORMAT', `${file}: ${message}`)
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function parseJson(text: string, file: string): Json {
  const value = parseJsonText(text, file)
  return isObject(value) ? value : refuse(file, 'expected a JSON object')
}

/** Tokens of a vocab.txt by id: one a line, whitespace at the right end left out, the last line feed optional. */
export function parseVocabulary(text: string): string[] {
  const lines = text.split('\n')
  if (lines.at(-1) === '') lines.pop()
  return lines.map((line) => line.replace(/(?:[^\S\ufeff]|\u0085)+$/u, ''))
}

function boolean(value: unknown, fallback: boolean, file: string, name: string): boolean {
  if (value === undefined || value === null) return fallback
  // Old configurations have them quoted, as Python writes them.
  const plain = typeof value === 'string' ? { true: true, false: false }[value.toLowerCase()] : value
  return typeof plain === 'boolean'
    ? plain
    : refuse(file, `${name} is ${JSON.stringify(value).slice(0, 80)}, expected true or false`)
}

/** A token given as a string or as an object with `content`. */
function tokenContent(value: unknown, file: string, name: string): string | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value === 'string') return value
  if (isObject(value) && typeof value.content === 'string') return value.content
  return refuse(file, `${name} is ${JSON.stringify(value).slice(0, 80)}, expected a token`)
}

/** The names of special tokens that a file has. */
export function tokenNames(object: Json, file: string): Partial<TokenizerOptions> {
  const token = (name: string): string | undefined => tokenContent(object[name], file, name)
  return {
    unkToken: token('unk_token'),
    clsToken: token('cls_token'),
    sepToken: token('sep_token'),
    padToken: token('pad_token'),
    maskToken: token('mask_token'),
  }
}

/** Special tokens beyond those. */
export function additionalTokens(object: Json, file: string): string[] {
  const name = 'additional_special_tokens'
  const list = object[name] ?? []
  if (!Array.isArray(list)) return refuse(file, `${name} is not a list of tokens`)
  return list.map((token: unknown) => tokenContent(token, file, name) ?? refuse(file, `${name} holds null`))
}

/** Without a limit Hugging Face writes 1e30. The first versions call it max_len. */
function maximalLength({ model_max_length: now, max_len: once }: Json): number | null {
  const given = now ?? once
  const most = typeof given === 'string' && given.trim() !== '' ? Number(given) : given
  return typeof most === 'number' && Number.isInteger(most) && most > 0 && most < 2 ** 31 ? most : null
}

function addedToken(value: unknown, id: unknown, file: string): AddedTokenOptions {
  if (!isObject(value) || typeof value.content !== 'string' || !Number.isInteger(id)) {
    return refuse(
      file,
      `an added token is ${JSON.stringify(value)?.slice(0, 100)}, expected an object with id and content`,
    )
  }
  if ((id as number) < 0 || (id as number) > largestId)
    refuse(file, `the added token ${value.content} has the id ${id}`)
  const special = value.special === true
  return {
    content: value.content,
    id: id as number,
    special,
    normalized: boolean(value.normalized, !special, file, 'normalized'),
    singleWord: boolean(value.single_word, false, file, 'single_word'),
    leftStrip: boolean(value.lstrip, false, file, 'lstrip'),
    rightStrip: boolean(value.rstrip, false, file, 'rstrip'),
  }
}

/** What a tokenizer.json holds. */
export interface TokenizerJson {
  readonly vocabulary: readonly string[]
  readonly addedTokens: readonly AddedTokenOptions[]
  /** How it normalizes, where that is BERT's way. */
  readonly normalization: Partial<TokenizerOptions> | undefined
  /** Everything else, by the raw reading. */
  readonly raw: () => Partial<TokenizerOptions>
}

function vocabularyOf(model: Json, file: string): string[] {
  if (!isObject(model.vocab)) refuse(file, 'model.vocab is missing, expected an object of tokens and ids')
  const vocabulary: string[] = []
  for (const [token, id] of Object.entries(model.vocab as Json)) {
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) > largestId) {
      refuse(
        file,
        `the token ${JSON.stringify(token)} has the id ${JSON.stringify(id)}, expected 0 to ${largestId}`,
      )
    }
    while (vocabulary.length <= (id as number)) vocabulary.push('')
    vocabulary[id as number] = token
  }
  return vocabulary
}

function templatePieces(value: unknown, file: string): TemplatePiece[] {
  if (!Array.isArray(value))
    return refuse(file, 'post_processor: expected lists of pieces in single and pair')
  return value.map((piece: unknown): TemplatePiece => {
    const { SpecialToken: token, Sequence: sequence } = isObject(piece) ? piece : {}
    const given = isObject(token) ? token : isObject(sequence) ? sequence : {}
    const { id, type_id: type } = given
    if (
      typeof id !== 'string' ||
      (type !== 0 && type !== 1) ||
      (given === sequence && id !== 'A' && id !== 'B')
    ) {
      return refuse(file, `post_processor: the piece ${JSON.stringify(piece)} is not understood`)
    }
    return given === sequence ? { sequence: id as 'A' | 'B', type } : { token: id, type }
  })
}

function templateOf(processor: unknown, file: string): Template {
  const bare: TemplatePiece[] = [{ sequence: 'A', type: 0 }]
  if (processor === null || processor === undefined)
    return { single: bare, pair: [...bare, { sequence: 'B', type: 1 }] }
  if (isObject(processor) && processor.type === 'TemplateProcessing') {
    return { single: templatePieces(processor.single, file), pair: templatePieces(processor.pair, file) }
  }
  if (isObject(processor) && processor.type === 'BertProcessing') {
    const [cls, sep] = [processor.cls, processor.sep].map((entry) =>
      Array.isArray(entry) ? entry[0] : undefined,
    )
    if (typeof cls === 'string' && typeof sep === 'string') {
      const single: TemplatePiece[] = [{ token: cls, type: 0 }, ...bare, { token: sep, type: 0 }]
      return { single, pair: [...single, { sequence: 'B', type: 1 }, { token: sep, type: 1 }] }
    }
  }
  const type = isObject(processor) ? processor.type : processor
  throw new VoltaicError(
    'ERR_UNSUPPORTED',
    `${file}: the post-processor ${type} is not one that BERT and ELECTRA use`,
  )
}

function requireType(part: unknown, expected: string, name: string, file: string): void {
  const type = isObject(part) ? part.type : part
  if (type === expected) return
  throw new VoltaicError('ERR_UNSUPPORTED', `${file}: the ${name} is ${type}, Voltaic knows ${expected} only`)
}

/** Reads a tokenizer.json. @throws ERR_FORMAT; ERR_UNSUPPORTED when it is not a WordPiece tokenizer. */
export function parseTokenizerJson(text: string, file: string): TokenizerJson {
  const document = parseJson(text, file)
  const { model } = document
  if (!isObject(model)) return refuse(file, 'model is missing, expected a WordPiece model')
  // Files of the first versions have no type.
  if (model.type !== undefined || !('continuing_subword_prefix' in model))
    requireType(model, 'WordPiece', 'model', file)
  const added = Array.isArray(document.added_tokens) ? document.added_tokens : []
  const { normalizer } = document
  const settings = isObject(normalizer) ? normalizer : undefined
  const flag = (name: string, fallback: boolean): boolean =>
    settings !== undefined && boolean(settings[name], fallback, file, `normalizer.${name}`)
  const lowercase = flag('lowercase', true)
  const normalization = {
    lowercase,
    stripAccents: flag('strip_accents', lowercase),
    handleChineseChars: flag('handle_chinese_chars', true),
    cleanText: flag('clean_text', true),
  }
  return {
    vocabulary: vocabularyOf(model, file),
    addedTokens: added.map((token: unknown) =>
      addedToken(token, isObject(token) ? token.id : undefined, file),
    ),
    normalization: settings?.type === 'BertNormalizer' ? normalization : undefined,
    raw() {
      if (normalizer !== null && normalizer !== undefined)
        requireType(normalizer, 'BertNormalizer', 'normalizer', file)
      requireType(document.pre_tokenizer, 'BertPreTokenizer', 'pre-tokenizer', file)
      const most = model.max_input_chars_per_word
      return {
        ...normalization,
        maxInputCharsPerWord: typeof most === 'number' ? most : 100,
        continuationPrefix:
          tokenContent(model.continuing_subword_prefix, file, 'continuing_subword_prefix') ?? '##',
        unkToken: tokenContent(model.unk_token, file, 'unk_token'),
        template: templateOf(document.post_processor, file),
      }
    },
  }
}

/** What a tokenizer_config.json holds. */
export interface TokenizerConfig {
  /** Whether the class that it names follows tokenizer.json alone. */
  readonly followsTokenizerJson: boolean
  readonly addedTokens: readonly AddedTokenOptions[]
  /** Whether they are all there are: files of earlier versions do not count then. */
  readonly listsAddedTokens: boolean
  /** Special tokens beyond the named ones. */
  readonly additional: readonly string[]
  /** Names of special tokens, maximal length and the like: in both readings. */
  readonly common: Partial<TokenizerOptions>
  /** How to normalize: in the usual reading. */
  readonly normalization: Partial<TokenizerOptions>
}

/** Reads a tokenizer_config.json. @throws ERR_FORMAT */
export function parseTokenizerConfig(text: string, file: string): TokenizerConfig {
  const config = parseJson(text, file)
  const own = isObject(config.voltaic) ? config.voltaic : {}
  const lowercase = boolean(config.do_lower_case, true, file, 'do_lower_case')
  const edition = (value: unknown): 'huggingface' | 'google' | undefined =>
    value === 'huggingface' || value === 'google' ? value : undefined
  const listed = isObject(config.added_tokens_decoder) ? Object.entries(config.added_tokens_decoder) : []
  const unicode = edition(own.unicode)
  return {
    followsTokenizerJson: ['PreTrainedTokenizerFast', 'TokenizersBackend'].includes(
      String(config.tokenizer_class),
    ),
    addedTokens: listed.map(([id, value]) => addedToken(value, Number(id), file)),
    listsAddedTokens: isObject(config.added_tokens_decoder),
    additional: additionalTokens(config, file),
    common: {
      ...tokenNames(config, file),
      unicode,
      truncationOrder: edition(own.truncation_order),
      splitSpecialTokens: boolean(
        config.split_special_tokens,
        unicode === undefined ? false : unicode === 'google',
        file,
        'split_special_tokens',
      ),
      modelMaxLength: maximalLength(config),
      cleanUpTokenizationSpaces: boolean(
        config.clean_up_tokenization_spaces,
        true,
        file,
        'clean_up_tokenization_spaces',
      ),
    },
    normalization: {
      lowercase,
      stripAccents: boolean(config.strip_accents, lowercase, file, 'strip_accents'),
      handleChineseChars: boolean(config.tokenize_chinese_chars, true, file, 'tokenize_chinese_chars'),
      cleanText: boolean(own.clean_text, true, file, 'voltaic.clean_text'),
      maxInputCharsPerWord:
        typeof own.max_input_chars_per_word === 'number' ? own.max_input_chars_per_word : undefined,
      continuationPrefix: tokenContent(
        own.continuing_subword_prefix,
        file,
        'voltaic.continuing_subword_prefix',
      ),
      template: isObject(own.template) ? (own.template as unknown as Template) : undefined,
    },
  }
}
