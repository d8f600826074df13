/**
 * Tagged sentences for a task: CoNLL-U (.conllu), JSON lines with a list of words and a list of tags (.jsonl, .ndjson), or CoNLL
 * columns (any other name).
 */
import { VoltaicError } from '../runtime/errors.js'
import {
  type ConllOptions,
  readConll,
  readConllu,
  type TaggedSentence,
  type TaggedSentences,
  tagNamesOf,
} from './conll.js'
import { RowChecks, skippedPlaces } from './row-checks.js'
import type { TaskExamples, TaskReadOptions } from './task.js'
import { columnOf, readTaskFile, type TaskTable } from './task-files.js'

/** The number of a column of CoNLL. @throws ERR_CONFIG when it is none */
function columnNumber(file: string, name: string | undefined, option: string): number | undefined {
  if (name === undefined) return undefined
  if (/^-?\d{1,4}$/.test(name)) return Number(name)
  throw new VoltaicError(
    'ERR_CONFIG',
    `${file}: ${option} is '${name}'; CoNLL columns have numbers, from 0, or from -1 at the right`,
  )
}

/** Among tags such as O and B-PER every other one must be of that kind; among others anything goes. */
function areEntities(tags: readonly string[]): boolean {
  return tags.includes('O') && tags.some((tag) => /^[BI]-./u.test(tag))
}

async function readColumns(file: string, options: TaskReadOptions): Promise<TaggedSentences> {
  const { strict, unlabelled, labelNames } = options
  const conll: ConllOptions = {
    wordColumn: columnNumber(file, options.textColumn, 'textColumn'),
    tagColumn: columnNumber(file, options.labelColumn, 'labelColumn'),
    tags: 'any',
    strict,
    unlabelled,
    tagNames: labelNames,
  }
  const found = await readConll(file, conll)
  if (labelNames !== undefined || !areEntities(tagNamesOf(found.sentences))) return found
  return readConll(file, { ...conll, tags: 'entities' })
}

function readUniversal(file: string, options: TaskReadOptions): Promise<TaggedSentences> {
  const { labelColumn: column = 'upos', strict, unlabelled, labelNames: tagNames } = options
  if (column !== 'upos' && column !== 'xpos') {
    throw new VoltaicError(
      'ERR_CONFIG',
      `${file}: labelColumn is '${column}'; expected upos or xpos, which CoNLL-U has`,
    )
  }
  return readConllu(file, { column, strict, unlabelled, tagNames })
}

const wordColumns = ['words', 'tokens']
const tagColumns = ['tags', 'labels', 'ner_tags', 'pos_tags']

/** The column that was asked for, or the first usual one that the table has. */
function findColumn(
  table: TaskTable,
  asked: string | undefined,
  usual: readonly string[],
  option: string,
): number {
  const name = asked ?? usual.find((column) => table.columns.includes(column)) ?? (usual[0] as string)
  return columnOf(table, name, option)
}

const isStrings = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((item) => typeof item === 'string' && item !== '')

async function readLists(file: string, options: TaskReadOptions): Promise<TaggedSentences> {
  const { strict, unlabelled = false, labelNames } = options
  const table = await readTaskFile(file, strict === undefined ? {} : { strict })
  const checks = new RowChecks(file, strict, table.skipped)
  const wordColumn = findColumn(table, options.textColumn, wordColumns, 'textColumn')
  const hasTags = options.labelColumn !== undefined || tagColumns.some((name) => table.columns.includes(name))
  const tagColumn =
    unlabelled && !hasTags ? undefined : findColumn(table, options.labelColumn, tagColumns, 'labelColumn')
  const sentences: TaggedSentence[] = []
  for (const { line, fields } of table.rows) {
    const words = fields[wordColumn]
    const tags = tagColumn === undefined ? undefined : fields[tagColumn]
    const lacksTags = unlabelled && (tags === undefined || tags === null)
    if (!isStrings(words) || words.length === 0) checks.refuse(line, 'the words are not a list of strings')
    else if (lacksTags) sentences.push({ words, tags: [], line })
    else if (!isStrings(tags) || tags.length !== words.length) {
      const found = Array.isArray(tags) ? `a list of ${tags.length}` : typeof tags
      checks.refuse(line, `the tags are ${found}, expected ${words.length} strings, one a word`)
    } else {
      const unknown = tags.find((tag) => labelNames?.includes(tag) === false)
      if (unknown === undefined) sentences.push({ words, tags, line })
      else checks.refuse(line, `the tag '${unknown.slice(0, 80)}' is none of the labels`)
    }
  }
  return { sentences, skipped: checks.finish(sentences.length, 'sentences') }
}

/**
 * Reads tagged sentences. `textColumn` and `labelColumn`: of CoNLL numbers (default 0 and -1, the last); of CoNLL-U upos (default) or
 * xpos; of JSON lines names (default words or tokens; tags, labels, ner_tags or pos_tags).
 * @throws ERR_IO; ERR_CONFIG for a column that the file does not have; ERR_FORMAT with file and line
 */
export async function readTagged(
  file: string,
  options: TaskReadOptions,
): Promise<TaskExamples<TaggedSentence>> {
  const extension = /\.(conllu|jsonl|ndjson)(\.gz)?$/i.exec(file)?.[1]?.toLowerCase()
  const read = extension === undefined ? readColumns : extension === 'conllu' ? readUniversal : readLists
  const { sentences, skipped } = await read(file, options)
  return { examples: sentences, skipped: skippedPlaces(skipped) }
}
