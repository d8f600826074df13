/**
 * Tagged sentences: CoNLL columns (one word a line, a blank line behind each sentence) with entities as BIO or BIOES or with any tags,
 * and CoNLL-U with parts of speech. A malformed line takes its whole sentence along.
 */
import { mostColumns } from './delimited.js'
import { RowChecks, type RowOptions, type SkippedRow } from './row-checks.js'
import { readTextBytes, textLines } from './text-file.js'

export interface TaggedSentence {
  readonly words: readonly string[]
  /** One a word; empty where a word of the sentence has none, which only `unlabelled` admits. */
  readonly tags: readonly string[]
  /** The line of its first word, from 1. */
  readonly line: number
}

export interface TaggedSentences {
  readonly sentences: readonly TaggedSentence[]
  readonly skipped: readonly SkippedRow[]
}

/** More words than any sentence or document has; a file without a blank line is one of another kind. */
const mostWords = 50_000

/** A word with its tag, if it has one; undefined for a line to pass over; or the problem with the line. */
type WordLine =
  | { readonly word: string; readonly tag: string | undefined }
  | { readonly problem: string }
  | undefined

interface SentenceOptions extends RowOptions {
  /** The tags that may occur; a sentence with another is malformed. Default: any. */
  readonly tagNames?: readonly string[] | undefined
  /** Words may lack their tags; such sentences have none. Default false. */
  readonly unlabelled?: boolean | undefined
}

function unknownTag(
  tag: string | undefined,
  known: ReadonlySet<string> | undefined,
): { readonly problem: string } | undefined {
  if (tag === undefined || known === undefined || known.has(tag)) return undefined
  const shown = [...known].slice(0, 12).join(', ')
  const more = known.size > 12 ? ', …' : ''
  return { problem: `the tag '${tag.slice(0, 80)}' is none of the ${known.size} labels: ${shown}${more}` }
}

const tooManyWords = {
  problem: `the sentence has more than ${mostWords} words, expected a blank line behind each sentence`,
}

async function readSentences(
  file: string,
  { strict, tagNames }: SentenceOptions,
  readLine: (text: string) => WordLine,
): Promise<TaggedSentences> {
  const bytes = await readTextBytes(file)
  const checks = new RowChecks(file, strict)
  const known = tagNames === undefined ? undefined : new Set(tagNames)
  const sentences: TaggedSentence[] = []
  let words: string[] = []
  let tags: string[] = []
  let first = 0
  let good = true
  const finish = (): void => {
    const whole = tags.length === words.length
    if (good && words.length > 0) sentences.push({ words, tags: whole ? tags : [], line: first })
    words = []
    tags = []
    good = true
  }
  for (const { line, text } of textLines(bytes)) {
    const blank = text.trim() === ''
    if (blank) finish()
    if (blank || !good) continue
    const found = readLine(text)
    if (found === undefined) continue
    const read =
      words.length === mostWords
        ? tooManyWords
        : 'problem' in found
          ? found
          : (unknownTag(found.tag, known) ?? found)
    if ('problem' in read) {
      checks.refuse(line, read.problem)
      good = false
      continue
    }
    if (words.length === 0) first = line
    words.push(read.word)
    if (read.tag !== undefined) tags.push(read.tag)
  }
  finish()
  return { sentences, skipped: checks.finish(sentences.length, 'sentences') }
}

export interface ConllOptions extends SentenceOptions {
  /** From 0; negative from the right. Default 0. */
  readonly wordColumn?: number | undefined
  /** Default -1, the last. */
  readonly tagColumn?: number | undefined
  /** `entities` (default): O or B-, I-, E-, S- and a type, other tags are malformed; `any`: whatever stands there. */
  readonly tags?: 'entities' | 'any' | undefined
}

const entityTag = /^(?:O|[BIES]-.+)$/u

/**
 * Reads CoNLL columns, parted by tabs where a line has one, else by white space. -DOCSTART- lines are passed over.
 * @throws ERR_IO; ERR_FORMAT with file and line, and for a file without one good sentence
 */
export function readConll(file: string, options: ConllOptions = {}): Promise<TaggedSentences> {
  const { wordColumn = 0, tagColumn = -1, tags = 'entities', unlabelled = false } = options
  return readSentences(file, options, (text) => {
    if (text.startsWith('-DOCSTART-')) return undefined
    const fields = text.includes('\t')
      ? text.split('\t', mostColumns + 1)
      : text.trim().split(/\s+/, mostColumns + 1)
    if (fields.length > mostColumns) return { problem: `more than ${mostColumns} columns` }
    const word = fields.at(wordColumn)?.trim()
    const tag = fields.length > 1 ? fields.at(tagColumn)?.trim() : undefined
    if (word && !tag && unlabelled) return { word, tag: undefined }
    if (!word || !tag) {
      return { problem: `${fields.length} columns, expected a word and its tag` }
    }
    if (tags === 'entities' && !entityTag.test(tag)) {
      return { problem: `the tag '${tag.slice(0, 80)}' is neither O nor B-, I-, E- or S- with a type` }
    }
    return { word, tag }
  })
}

export interface ConlluOptions extends SentenceOptions {
  /** `upos` (default): universal parts of speech; `xpos`: the language's own. */
  readonly column?: 'upos' | 'xpos' | undefined
}

/**
 * Reads CoNLL-U: the syntactic words. Comments, ranges of multi-word tokens (1-2) and empty nodes (1.1) are passed over.
 * @throws as `readConll`
 */
export function readConllu(file: string, options: ConlluOptions = {}): Promise<TaggedSentences> {
  const { column = 'upos', unlabelled = false } = options
  return readSentences(file, options, (text) => {
    if (text.startsWith('#')) return undefined
    const fields = text.split('\t', mostColumns)
    if (fields.length !== 10) return { problem: `${fields.length} columns, expected the 10 of CoNLL-U` }
    const [id = '', word = ''] = fields
    if (/^\d+[-.]\d+$/.test(id)) return undefined
    if (!/^\d+$/.test(id) || word === '')
      return { problem: `the line has the id '${id.slice(0, 80)}', expected a number` }
    const tag = fields[column === 'upos' ? 3 : 4] as string
    if (tag !== '' && tag !== '_') return { word, tag }
    return unlabelled
      ? { word, tag: undefined }
      : { problem: `the word '${word.slice(0, 80)}' has no ${column}` }
  })
}

/** The tags that occur, sorted by code units. */
export function tagNamesOf(sentences: readonly TaggedSentence[]): string[] {
  return [...new Set(sentences.flatMap(({ tags }) => tags))].sort()
}
