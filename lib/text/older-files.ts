/**
 * What tokenizers of earlier versions keep in files of their own: special_tokens_map.json (names of special tokens) and
 * added_tokens.json (tokens beside the vocabulary, with their ids). Where tokenizer_config.json has `added_tokens_decoder`, everything
 * is in there, and Hugging Face's classes do not look at these two; nor are they looked at here.
 */
import {
  type AddedTokenOptions,
  additionalTokens,
  largestId,
  parseJson,
  refuse,
  tokenNames,
} from './read-files.js'
import type { TokenizerOptions } from './specification.js'

export interface OlderFiles {
  /** Names of special tokens; they count more than those of tokenizer_config.json. */
  readonly names: Partial<TokenizerOptions>
  /** The additional special tokens. */
  readonly additional: readonly string[]
  /** Those of added_tokens.json. */
  readonly addedTokens: readonly AddedTokenOptions[]
}

interface Text {
  readonly text: string | undefined
  readonly file: string
}

/** Reads both, where they are. @throws ERR_FORMAT */
export function parseOlderFiles(specialTokensMap: Text, addedTokens: Text): OlderFiles {
  const map = parseJson(specialTokensMap.text ?? '{}', specialTokensMap.file)
  const ids = Object.entries(parseJson(addedTokens.text ?? '{}', addedTokens.file))
  const names = tokenNames(map, specialTokensMap.file)
  const additional = additionalTokens(map, specialTokensMap.file)
  const special = new Set([...Object.values(names), ...additional])
  return {
    names,
    additional,
    addedTokens: ids.map(([content, id]) => {
      if (!Number.isInteger(id) || (id as number) < 0 || (id as number) > largestId) {
        refuse(
          addedTokens.file,
          `the token ${JSON.stringify(content)} has the id ${JSON.stringify(id)?.slice(0, 80)}, expected 0 to ${largestId}`,
        )
      }
      return { content, id: id as number, special: special.has(content) }
    }),
  }
}
