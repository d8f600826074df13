/** A tokenizer: a function from texts to rows of ids, with everything else about its vocabulary on it. */
import { VoltaicError } from '../runtime/errors.js'
import { createNativeTokenizer, type NativeTokenizer, type TokenizedDocuments } from '../runtime/tokenizer.js'
import { cleanUpTokenization, joinTokens } from './decoding.js'
import { createEncoder, type EncodeOptions, type Encoding, type TokenizerInput } from './encoding.js'
import {
  type AddedToken,
  createSpecification,
  specialTokensOf,
  type TokenizerOptions,
  type TokenizerSpecification,
  vocabularyTokens,
} from './specification.js'
import { saveTokenizer } from './tokenizer-files.js'

export interface DecodeOptions {
  /** Leave [CLS], [SEP] and the like out. Default false. */
  readonly skipSpecialTokens?: boolean
  /** Take out the spaces before punctuation and in contractions. Default: the tokenizer's own setting (true). */
  readonly cleanUpTokenizationSpaces?: boolean
}

export interface Tokenizer {
  /**
   * Encodes texts or pairs of texts: one row each, nothing padded.
   * @throws ERR_ARGUMENT for input or options that do not fit.
   */
  (input: TokenizerInput, options?: EncodeOptions): Encoding
  /** Plain data that makes the same tokenizer again, in a worker thread for example. */
  readonly specification: TokenizerSpecification
  /** Tokens by id, added tokens included. Ids that no token has hold ''. */
  readonly vocabulary: readonly string[]
  readonly vocabularySize: number
  readonly unkTokenId: number
  readonly clsTokenId: number
  readonly sepTokenId: number
  readonly padTokenId: number
  readonly maskTokenId: number
  /** The ids of all special tokens, ascending. */
  readonly specialTokenIds: readonly number[]
  /** What `truncation: true` cuts to; null: nothing. */
  readonly modelMaxLength: number | null
  /** The tokens of a text, without special tokens around it. */
  tokenize(text: string): string[]
  /** Ids of a text, without special tokens around it. */
  encode(text: string): Int32Array
  /** The same for UTF-8 bytes; the fast path for corpora. Malformed bytes count as U+FFFD. */
  encodeBytes(utf8: Uint8Array): Int32Array
  /**
   * Ids of documents that lie one behind the other as UTF-8, each to its end in `ends`, without special tokens. Each line is a text; one
   * with a token is a sentence. Ids take 16 bits where the vocabulary has at most 65,536 tokens.
   * @throws ERR_ARGUMENT for ends that do not ascend or lie outside.
   */
  encodeDocuments(utf8: Uint8Array, ends: Uint32Array): TokenizedDocuments
  /** The text of ids. @throws ERR_ARGUMENT for an id outside the vocabulary. */
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string
  /** `decode` for each row. */
  batchDecode(rows: readonly ArrayLike<number>[], options?: DecodeOptions): string[]
  /** The id of a token, or undefined. */
  tokenToId(token: string): number | undefined
  /** The id of a token or ids of tokens; those not in the vocabulary get the unknown token's. */
  convertTokensToIds(token: string): number
  convertTokensToIds(tokens: readonly string[]): number[]
  /** The token of an id or the tokens of ids. @throws ERR_ARGUMENT for an id outside the vocabulary. */
  convertIdsToTokens(id: number): string
  convertIdsToTokens(ids: ArrayLike<number>): string[]
  /**
   * Writes vocab.txt, tokenizer.json and tokenizer_config.json as Hugging Face's libraries read them; the folder is made if need be.
   * @throws ERR_IO
   */
  save(folder: string): Promise<void>
}

/** The tokens that are recognised in texts: the added ones and the five special ones. */
function recognisedTokens(
  specification: TokenizerSpecification,
  idOf: ReadonlyMap<string, number>,
): AddedToken[] {
  const { addedTokens, splitSpecialTokens } = specification
  const listed = new Set(addedTokens.map(({ content }) => content))
  const plain = { special: true, normalized: false, singleWord: false, leftStrip: false, rightStrip: false }
  const specials = specialTokensOf(specification)
    .filter((content) => !listed.has(content))
    .map((content) => ({ content, id: idOf.get(content) ?? 0, ...plain }))
  return [...addedTokens, ...specials].filter(({ special }) => !(special && splitSpecialTokens))
}

function createNative(
  specification: TokenizerSpecification,
  idOf: ReadonlyMap<string, number>,
): NativeTokenizer {
  const { vocabulary, unicode, cleanText, handleChineseChars, stripAccents, lowercase } = specification
  return createNativeTokenizer({
    vocabulary,
    unicode,
    cleanText,
    handleChineseChars,
    stripAccents,
    lowercase,
    unknownId: idOf.get(specification.unkToken) ?? 0,
    continuationPrefix: specification.continuationPrefix,
    maxInputCharsPerWord: specification.maxInputCharsPerWord,
    addedTokens: recognisedTokens(specification, idOf),
  })
}

/**
 * Makes a tokenizer from a vocabulary and options, or from another tokenizer's `specification`.
 * @throws ERR_FORMAT when a special token is not in the vocabulary, naming it; ERR_ARGUMENT for options out of range.
 */
export function createTokenizer(options: TokenizerOptions | TokenizerSpecification): Tokenizer {
  const specification = createSpecification(options)
  const vocabulary = vocabularyTokens(specification.vocabulary)
  for (const { content, id } of specification.addedTokens) {
    while (vocabulary.length <= id) vocabulary.push('')
    vocabulary[id] = content
  }
  const idOf = new Map(vocabulary.map((token, id) => [token, id]))
  idOf.delete('')
  const native = createNative(specification, idOf)
  const tokenId = (token: string): number => idOf.get(token) ?? unkTokenId
  const unkTokenId = idOf.get(specification.unkToken) as number
  const special = new Set(specialTokensOf(specification).map(tokenId))
  for (const token of specification.addedTokens) if (token.special) special.add(token.id)

  const tokenOf = (id: number): string => {
    const token = vocabulary[id]
    if (token !== undefined) return token
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `tokenizer: id ${id} is not in the vocabulary of ${vocabulary.length} tokens; is this the model's tokenizer?`,
    )
  }
  const encode = createEncoder({
    native,
    template: specification.template,
    tokenId,
    truncationOrder: specification.truncationOrder,
    modelMaxLength: specification.modelMaxLength,
  })
  const decode = (ids: ArrayLike<number>, options: DecodeOptions = {}): string => {
    const { skipSpecialTokens = false, cleanUpTokenizationSpaces = specification.cleanUpTokenizationSpaces } =
      options
    const kept = Array.from(ids).filter((id) => !(skipSpecialTokens && special.has(id)))
    const text = joinTokens(kept.map(tokenOf), specification.continuationPrefix)
    return cleanUpTokenizationSpaces ? cleanUpTokenization(text) : text
  }
  function convertTokensToIds(token: string): number
  function convertTokensToIds(tokens: readonly string[]): number[]
  function convertTokensToIds(tokens: string | readonly string[]): number | number[] {
    return typeof tokens === 'string' ? tokenId(tokens) : tokens.map(tokenId)
  }
  function convertIdsToTokens(id: number): string
  function convertIdsToTokens(ids: ArrayLike<number>): string[]
  function convertIdsToTokens(ids: number | ArrayLike<number>): string | string[] {
    return typeof ids === 'number' ? tokenOf(ids) : Array.from(ids, tokenOf)
  }
  const call = (input: TokenizerInput, options?: EncodeOptions): Encoding => encode(input, options)
  return Object.assign(call, {
    specification,
    vocabulary,
    vocabularySize: vocabulary.length,
    unkTokenId,
    clsTokenId: tokenId(specification.clsToken),
    sepTokenId: tokenId(specification.sepToken),
    padTokenId: tokenId(specification.padToken),
    maskTokenId: tokenId(specification.maskToken),
    specialTokenIds: [...special].sort((a, b) => a - b),
    modelMaxLength: specification.modelMaxLength,
    tokenize: (text: string) => Array.from(native.encode(text), tokenOf),
    encode: (text: string) => native.encode(text),
    encodeBytes: (utf8: Uint8Array) => native.encodeBytes(utf8),
    encodeDocuments: (utf8: Uint8Array, ends: Uint32Array) =>
      native.encodeDocuments(utf8, ends, vocabulary.length > 65536),
    decode,
    batchDecode: (rows: readonly ArrayLike<number>[], options?: DecodeOptions) =>
      rows.map((row) => decode(row, options)),
    tokenToId: (token: string) => idOf.get(token),
    convertTokensToIds,
    convertIdsToTokens,
    save: (folder: string) => saveTokenizer(specification, folder),
  })
}
