/**
 * What a tokenizer is, as plain data: a worker thread that gets the specification makes the same tokenizer of it, and equal
 * specifications give equal ids.
 */
import { VoltaicError } from '../runtime/errors.js'
import type { UnicodeEdition } from '../runtime/tokenizer.js'

/** A token that is found in the text itself, before the text is split into words. */
export interface AddedToken {
  readonly content: string
  readonly id: number
  /** Left out by `decode` with `skipSpecialTokens`, and not sought in texts with `splitSpecialTokens`. */
  readonly special: boolean
  /** Sought in the normalized text instead of the given one. */
  readonly normalized: boolean
  /** Found only where no word character stands beside it. */
  readonly singleWord: boolean
  /** Takes the whitespace before it along. */
  readonly leftStrip: boolean
  /** Takes the whitespace after it along. */
  readonly rightStrip: boolean
}

/** A part of an encoded row: a special token, or the tokens of the first or second text. */
export type TemplatePiece =
  | { readonly token: string; readonly type: number }
  | { readonly sequence: 'A' | 'B'; readonly type: number }

/** How special tokens stand around one text and around two. */
export interface Template {
  readonly single: readonly TemplatePiece[]
  readonly pair: readonly TemplatePiece[]
}

export interface TokenizerSpecification {
  /** One token a line; the line's number from 0 is the id. Of equal lines the last one counts. Empty lines are unused ids. */
  readonly vocabulary: string
  readonly addedTokens: readonly AddedToken[]
  /**
   * Whose tables and order of steps. `huggingface`: Hugging Face's tokenizers. `google`: the original TensorFlow code (Unicode 14,
   * final sigma by context, unassigned characters dropped). They part on rare characters only.
   */
  readonly unicode: UnicodeEdition
  readonly lowercase: boolean
  /** Without `lowercase`, in `google` without effect. */
  readonly stripAccents: boolean
  readonly handleChineseChars: boolean
  /** Drop control characters and make every whitespace a space. */
  readonly cleanText: boolean
  /** A word of more code points becomes the unknown token. */
  readonly maxInputCharsPerWord: number
  readonly continuationPrefix: string
  /** Special tokens that occur in a text are split like any text instead of being recognised. */
  readonly splitSpecialTokens: boolean
  /** Which text gives up a token first in `longest_first`; they differ by one token when the room is odd. */
  readonly truncationOrder: UnicodeEdition
  readonly unkToken: string
  readonly clsToken: string
  readonly sepToken: string
  readonly padToken: string
  readonly maskToken: string
  readonly template: Template
  /** What `truncation: true` cuts to when no `maxLength` is given; null: nothing. */
  readonly modelMaxLength: number | null
  /** Whether `decode` takes out the spaces before punctuation and in contractions. */
  readonly cleanUpTokenizationSpaces: boolean
}

/** A specification with everything optional but the vocabulary. */
export type TokenizerOptions = {
  readonly [Name in Exclude<keyof TokenizerSpecification, 'vocabulary' | 'addedTokens'>]?:
    | TokenizerSpecification[Name]
    | undefined
} & {
  /** Tokens by id, or one token a line. */
  readonly vocabulary: string | readonly string[]
  /** Further tokens; those without an id get the next free one. */
  readonly addedTokens?: readonly (Partial<AddedToken> & { readonly content: string })[] | undefined
}

const specialRoles = ['padToken', 'unkToken', 'clsToken', 'sepToken', 'maskToken'] as const

/** [CLS] A [SEP], and [CLS] A [SEP] B [SEP] with the second part's type 1. */
export function bertTemplate(clsToken: string, sepToken: string): Template {
  const single: TemplatePiece[] = [
    { token: clsToken, type: 0 },
    { sequence: 'A', type: 0 },
    { token: sepToken, type: 0 },
  ]
  return { single, pair: [...single, { sequence: 'B', type: 1 }, { token: sepToken, type: 1 }] }
}

/** The five special tokens, in their usual order. */
export function specialTokensOf(specification: TokenizerSpecification): string[] {
  return specialRoles.map((role) => specification[role])
}

/** Tokens by id. */
export function vocabularyTokens(vocabulary: string): string[] {
  return vocabulary.split('\n')
}

function joinVocabulary(vocabulary: string | readonly string[]): string {
  if (typeof vocabulary === 'string') return vocabulary.endsWith('\n') ? vocabulary.slice(0, -1) : vocabulary
  const broken = vocabulary.findIndex((token) => token.includes('\n'))
  if (broken >= 0) {
    throw new VoltaicError(
      'ERR_FORMAT',
      `vocabulary: token ${broken} (${JSON.stringify(vocabulary[broken])}) holds a line feed; tokens stand one a line`,
    )
  }
  return vocabulary.join('\n')
}

/** Added tokens by id: the vocabulary's id, else the given one, else the next that is free. */
function numberAddedTokens(
  given: NonNullable<TokenizerOptions['addedTokens']>,
  ids: ReadonlyMap<string, number>,
  vocabularyLength: number,
): AddedToken[] {
  let next = vocabularyLength
  for (const { id } of given) next = Math.max(next, (id ?? -1) + 1)
  const byContent = new Map<string, AddedToken>()
  const owners = new Map([...ids].map(([token, id]) => [id, token]))
  for (const token of given) {
    if (token.content === '') throw new VoltaicError('ERR_FORMAT', 'tokenizer: an added token is empty')
    const id = ids.get(token.content) ?? byContent.get(token.content)?.id ?? token.id ?? next++
    const owner = owners.get(id) || token.content
    if (owner !== token.content) {
      throw new VoltaicError(
        'ERR_FORMAT',
        `tokenizer: the added token ${JSON.stringify(token.content)} has the id ${id}, which is that of ${JSON.stringify(owner)}`,
      )
    }
    owners.set(id, token.content)
    const {
      special = false,
      normalized = !special,
      singleWord = false,
      leftStrip = false,
      rightStrip = false,
    } = token
    byContent.set(token.content, {
      content: token.content,
      id,
      special,
      normalized,
      singleWord,
      leftStrip,
      rightStrip,
    })
  }
  return [...byContent.values()].sort((a, b) => a.id - b.id)
}

function requireSpecialTokens(
  specification: TokenizerSpecification,
  known: (token: string) => boolean,
): void {
  const missing = specialRoles.filter((role) => !known(specification[role]))
  if (missing.length === 0) return
  const names = missing.map((role) => `${specification[role]} (${role})`).join(', ')
  throw new VoltaicError(
    'ERR_FORMAT',
    `tokenizer: the vocabulary has no ${names}. Every special token must be in it: add a line for each, or, if it has another ` +
      `name there, pass that as the option (${missing.map((role) => `${role}: '…'`).join(', ')})`,
  )
}

/**
 * Fills in what the options leave out: BERT's uncased tokenizer in Hugging Face's form; with `unicode: 'google'` the original's
 * limit of 200 characters a word instead of 100, its truncation order, and no special tokens in texts.
 * @throws ERR_FORMAT when a special token is not in the vocabulary, ERR_ARGUMENT for values out of range.
 */
export function createSpecification(options: TokenizerOptions): TokenizerSpecification {
  const { unicode = 'huggingface', lowercase = true, clsToken = '[CLS]', sepToken = '[SEP]' } = options
  if (unicode !== 'huggingface' && unicode !== 'google') {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `tokenizer: unicode is '${unicode}', expected huggingface or google`,
    )
  }
  const google = unicode === 'google'
  const vocabulary = joinVocabulary(options.vocabulary)
  const tokens = vocabularyTokens(vocabulary)
  const ids = new Map(tokens.map((token, id) => [token, id]))
  const named = {
    unkToken: options.unkToken ?? '[UNK]',
    clsToken,
    sepToken,
    padToken: options.padToken ?? '[PAD]',
    maskToken: options.maskToken ?? '[MASK]',
  }
  const roles = new Set(Object.values(named))
  // Files list the special tokens too; said once is enough, so that equal tokenizers have equal specifications.
  const isUsual = (token: AddedToken): boolean =>
    roles.has(token.content) &&
    ids.has(token.content) &&
    token.special &&
    !(token.normalized || token.singleWord || token.leftStrip || token.rightStrip)
  const specification: TokenizerSpecification = {
    vocabulary,
    addedTokens: numberAddedTokens(options.addedTokens ?? [], ids, tokens.length).filter(
      (token) => !isUsual(token),
    ),
    unicode,
    lowercase,
    stripAccents: options.stripAccents ?? lowercase,
    handleChineseChars: options.handleChineseChars ?? true,
    cleanText: options.cleanText ?? true,
    maxInputCharsPerWord: options.maxInputCharsPerWord ?? (google ? 200 : 100),
    continuationPrefix: options.continuationPrefix ?? '##',
    splitSpecialTokens: options.splitSpecialTokens ?? google,
    truncationOrder: options.truncationOrder ?? unicode,
    ...named,
    template: options.template ?? bertTemplate(clsToken, sepToken),
    modelMaxLength: options.modelMaxLength ?? null,
    cleanUpTokenizationSpaces: options.cleanUpTokenizationSpaces ?? true,
  }
  const { maxInputCharsPerWord } = specification
  if (!Number.isInteger(maxInputCharsPerWord) || maxInputCharsPerWord < 1 || maxInputCharsPerWord > 2 ** 31) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `tokenizer: maxInputCharsPerWord is ${maxInputCharsPerWord}, expected a whole number from 1`,
    )
  }
  const added = new Set(specification.addedTokens.map(({ content }) => content))
  const known = (token: string): boolean => token !== '' && (ids.has(token) || added.has(token))
  requireSpecialTokens(specification, known)
  for (const piece of [...specification.template.single, ...specification.template.pair]) {
    if ('token' in piece && !known(piece.token)) {
      throw new VoltaicError(
        'ERR_FORMAT',
        `tokenizer: the template's token ${piece.token} is not in the vocabulary`,
      )
    }
  }
  return specification
}
