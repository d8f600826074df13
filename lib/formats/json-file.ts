/**
 * JSON files from strangers. JSON.parse alone takes time and memory that a small hostile file can make large: a document that nests
 * by the million needs some fifty bytes for each bracket, and every new name of a field some two hundred. So size, depth and the
 * number of values are checked before it sees the text. What has passed is shallow enough for any recursion over it.
 */
import { readFileSync, statSync } from 'node:fs'
import { VoltaicError } from '../runtime/errors.js'
import { ioError } from '../runtime/mapped-file.js'

/** Configurations and indices; none comes near. */
const largestFile = 8 * 1024 * 1024
/** Deeper than any configuration, tokenizer or notebook. */
const deepest = 100
/** Vocabularies with their merges come near half of it. */
const mostValues = 1_000_000

const quoteMark = 0x22
const backslash = 0x5c
const comma = 0x2c

/** Where the string that opens at `start` ends: its closing quote, or the text's end. */
function endOfString(text: string, start: number): number {
  for (let quote = text.indexOf('"', start + 1); quote >= 0; quote = text.indexOf('"', quote + 1)) {
    let before = quote - 1
    while (text.charCodeAt(before) === backslash) before -= 1
    if ((quote - before) % 2 === 1) return quote
  }
  return text.length
}

/**
 * Refuses a JSON text that nests deeper than 100 or holds more than 1,000,000 values; whether it is JSON at all is not asked.
 * @param path names the file in messages
 * @throws ERR_FORMAT
 */
export function requireOrdinaryJson(text: string, path: string): void {
  let depth = 0
  let values = 0
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at)
    if (unit === quoteMark) {
      at = endOfString(text, at)
      continue
    }
    if (unit === 0x5d || unit === 0x7d) depth -= 1
    const opens = unit === 0x5b || unit === 0x7b
    if (opens) depth += 1
    if (opens || unit === comma) values += 1
    if (depth > deepest) {
      throw new VoltaicError(
        'ERR_FORMAT',
        `${path}: nests deeper than ${deepest}; expected an ordinary JSON file`,
      )
    }
    if (values > mostValues) {
      throw new VoltaicError(
        'ERR_FORMAT',
        `${path}: more than ${mostValues} values; expected an ordinary JSON file`,
      )
    }
  }
}

/**
 * Parses JSON; a byte order mark in front is left out.
 * @param path names the file in messages
 * @throws ERR_FORMAT when it is no JSON, nests deeper than 100, or holds more than 1,000,000 values
 */
export function parseJsonText(text: string, path: string): unknown {
  requireOrdinaryJson(text, path)
  try {
    return JSON.parse(text.replace(/^\ufeff/, ''))
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message.slice(0, 200) : cause
    throw new VoltaicError(
      'ERR_FORMAT',
      `${path}: not JSON (${reason}). The file is damaged; copy or save it again`,
      { cause },
    )
  }
}

/**
 * Reads a small JSON file.
 * @throws ERR_IO; ERR_FORMAT when it is larger than 8 MiB, and as `parseJsonText`
 */
export function readJsonFile(path: string): unknown {
  let text: string
  try {
    if (statSync(path).size > largestFile) {
      throw new VoltaicError(
        'ERR_FORMAT',
        `${path}: larger than ${largestFile} bytes; expected a small JSON file`,
      )
    }
    text = readFileSync(path, 'utf8')
  } catch (cause) {
    throw ioError('read', path, cause)
  }
  return parseJsonText(text, path)
}
