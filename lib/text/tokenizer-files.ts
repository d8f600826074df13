import { join } from 'node:path'
import { writeFileAtomically } from '../runtime/atomic-file.js'
import { makeFolder } from '../runtime/make-folder.js'
import {
  type AddedToken,
  createSpecification,
  specialTokensOf,
  type TemplatePiece,
  type TokenizerSpecification,
  vocabularyTokens,
} from './specification.js'

export const vocabularyFileName = 'vocab.txt'
export const tokenizerFileName = 'tokenizer.json'
export const tokenizerConfigFileName = 'tokenizer_config.json'

/** What Hugging Face writes for "no limit": 1e30 as Python holds it, an integer. */
const noLimit = '1000000000000000019884624838656'

/** Added tokens and special tokens by id. */
function listedTokens(specification: TokenizerSpecification): AddedToken[] {
  const { vocabulary, addedTokens } = specification
  const ids = new Map(vocabularyTokens(vocabulary).map((token, id) => [token, id]))
  const listed = new Map(addedTokens.map((token) => [token.content, token]))
  const flags = { special: true, normalized: false, singleWord: false, leftStrip: false, rightStrip: false }
  for (const content of specialTokensOf(specification)) {
    const id = ids.get(content)
    if (id !== undefined && !listed.has(content)) listed.set(content, { content, id, ...flags })
  }
  return [...listed.values()].sort((a, b) => a.id - b.id)
}

const tokenFlags = ({ singleWord, leftStrip, rightStrip, normalized, special }: AddedToken) => ({
  single_word: singleWord,
  lstrip: leftStrip,
  rstrip: rightStrip,
  normalized,
  special,
})

function postProcessor(specification: TokenizerSpecification): object {
  const tokens = listedTokens(specification)
  const { single, pair } = specification.template
  const piece = (piece: TemplatePiece): object =>
    'token' in piece
      ? { SpecialToken: { id: piece.token, type_id: piece.type } }
      : { Sequence: { id: piece.sequence, type_id: piece.type } }
  const used = new Set([...single, ...pair].flatMap((piece) => ('token' in piece ? [piece.token] : [])))
  const special = tokens
    .filter(({ content }) => used.has(content))
    .map(({ content, id }) => [content, { id: content, ids: [id], tokens: [content] }] as const)
  return {
    type: 'TemplateProcessing',
    single: single.map(piece),
    pair: pair.map(piece),
    special_tokens: Object.fromEntries(special),
  }
}

/** The members of an object by hand: an object would put number-like tokens first. */
function vocabularyJson(vocabulary: string): string {
  const ids = new Map(vocabularyTokens(vocabulary).map((token, id) => [token, id]))
  ids.delete('')
  const members = [...ids].sort(([, a], [, b]) => a - b)
  return `{\n${members.map(([token, id]) => `      ${JSON.stringify(token)}: ${id}`).join(',\n')}\n    }`
}

function tokenizerJson(specification: TokenizerSpecification): string {
  const { cleanText, handleChineseChars, lowercase, stripAccents } = specification
  const mark = '<vocabulary>'
  const document = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: listedTokens(specification).map((token) => ({
      id: token.id,
      content: token.content,
      ...tokenFlags(token),
    })),
    normalizer: {
      type: 'BertNormalizer',
      clean_text: cleanText,
      handle_chinese_chars: handleChineseChars,
      strip_accents: stripAccents === lowercase ? null : stripAccents,
      lowercase,
    },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    post_processor: postProcessor(specification),
    decoder: { type: 'WordPiece', prefix: specification.continuationPrefix, cleanup: true },
    model: {
      type: 'WordPiece',
      unk_token: specification.unkToken,
      continuing_subword_prefix: specification.continuationPrefix,
      max_input_chars_per_word: specification.maxInputCharsPerWord,
      vocab: mark,
    },
  }
  // The vocabulary is the last member, so the last mark is ours whatever the tokens are called.
  const text = JSON.stringify(document, null, 2)
  const at = text.lastIndexOf(`"${mark}"`)
  return text.slice(0, at) + vocabularyJson(specification.vocabulary) + text.slice(at + mark.length + 2)
}

/** What the class of these tokenizers cannot say in its own keys; left out where it says the same. */
function ownSettings(specification: TokenizerSpecification): object {
  const { unicode, vocabulary, lowercase, stripAccents, template, ...rest } = specification
  const { clsToken, sepToken, unkToken, padToken, maskToken, addedTokens } = specification
  const specials = { clsToken, sepToken, unkToken, padToken, maskToken }
  const usual = createSpecification({ vocabulary, addedTokens, unicode, lowercase, ...specials })
  const own = {
    ...(unicode !== 'huggingface' && { unicode }),
    ...(rest.maxInputCharsPerWord !== usual.maxInputCharsPerWord && {
      max_input_chars_per_word: rest.maxInputCharsPerWord,
    }),
    ...(rest.truncationOrder !== usual.truncationOrder && { truncation_order: rest.truncationOrder }),
    ...(!rest.cleanText && { clean_text: false }),
    ...(rest.continuationPrefix !== usual.continuationPrefix && {
      continuing_subword_prefix: rest.continuationPrefix,
    }),
    ...(JSON.stringify(template) !== JSON.stringify(usual.template) && { template }),
  }
  return Object.keys(own).length === 0 ? {} : { voltaic: own }
}

function tokenizerConfigJson(specification: TokenizerSpecification): string {
  const { lowercase, stripAccents, modelMaxLength } = specification
  const decoder = listedTokens(specification).map((token) => {
    const { special, ...flags } = tokenFlags(token)
    return [String(token.id), { content: token.content, ...flags, special }] as const
  })
  const config = {
    added_tokens_decoder: Object.fromEntries(decoder),
    clean_up_tokenization_spaces: specification.cleanUpTokenizationSpaces,
    cls_token: specification.clsToken,
    do_lower_case: lowercase,
    mask_token: specification.maskToken,
    model_max_length: modelMaxLength ?? 0,
    pad_token: specification.padToken,
    sep_token: specification.sepToken,
    ...((specification.splitSpecialTokens || specification.unicode === 'google') && {
      split_special_tokens: specification.splitSpecialTokens,
    }),
    strip_accents: stripAccents === lowercase ? null : stripAccents,
    tokenize_chinese_chars: specification.handleChineseChars,
    tokenizer_class: 'ElectraTokenizer',
    unk_token: specification.unkToken,
    ...ownSettings(specification),
  }
  const text = `${JSON.stringify(config, null, 2)}\n`
  return modelMaxLength === null
    ? text.replace('"model_max_length": 0', `"model_max_length": ${noLimit}`)
    : text
}

/** The three files by name. Equal specifications give equal bytes. */
export function tokenizerFiles(specification: TokenizerSpecification): Record<string, string> {
  return {
    [vocabularyFileName]: `${specification.vocabulary}\n`,
    [tokenizerFileName]: tokenizerJson(specification),
    [tokenizerConfigFileName]: tokenizerConfigJson(specification),
  }
}

/**
 * Writes the three files into `folder`, which is made if need be; each replaces an older one in one step.
 * @throws ERR_IO
 */
export async function saveTokenizer(specification: TokenizerSpecification, folder: string): Promise<void> {
  makeFolder(folder)
  for (const [name, content] of Object.entries(tokenizerFiles(specification))) {
    await writeFileAtomically(join(folder, name), content)
  }
}
