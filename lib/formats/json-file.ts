/**
 * JSON files from strangers. JSON.parse alone takes time and memory that a small hostile file can make large: a document that nests
 * by the million needs some fifty bytes for each bracket. So size and depth are checked before it sees the text.
 */
import { readFileSync, statSync } from 'node:fs'
import { VoltaicError } from '../runtime/errors.js'
import { ioError } from '../runtime/mapped-file.js'

/** Configurations and indices; none comes near. */
const largestFile = 8 * 1024 * 1024
/** Deeper than any configuration, tokenizer or notebook. */
const deepest = 100

const quoteMark = 0x22
const backslash = 0x5c

/** Brackets open at once, at most; strings are skipped. Text that is no JSON gets some number. */
function depthOf(text: string): number {
  let depth = 0
  let most = 0
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at)
    if (unit === quoteMark) {
      for (at++; at < text.length && text.charCodeAt(at) !== quoteMark; at++) {
        if (text.charCodeAt(at) === backslash) at++
      }
    } else if (unit === 0x5b || unit === 0x7b) {
      depth += 1
      if (depth > most) most = depth
    } else if (unit === 0x5d || unit === 0x7d) depth -= 1
  }
  return most
}

/**
 * Parses JSON; a byte order mark in front is left out.
 * @param path names the file in messages
 * @throws ERR_FORMAT when it is no JSON or nests deeper than 100
 */
export function parseJsonText(text: string, path: string): unknown {
  if (depthOf(text) > deepest) {
    throw new VoltaicError(
      'ERR_FORMAT',
      `${path}: nests deeper than ${deepest}; expected an ordinary JSON file`,
    )
  }
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
 * @throws ERR_IO; ERR_FORMAT when it is larger than 8 MiB, nests deeper than 100, or is no JSON
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
