/**
 * metrics.jsonl: one JSON object a line, each with its `step`. After a resume at step N every row up to N stands there once, and no
 * row after N: the resumed run writes those again.
 */
import { readFileSync } from 'node:fs'
import { parseJsonText } from '../formats/json-file.js'
import { VoltaicError } from '../runtime/errors.js'
import { ioError, systemErrorName } from '../runtime/mapped-file.js'
import { type AppendFile, openAppendFile } from './append-file.js'

export interface MetricsRow {
  readonly step: number
  readonly [metric: string]: unknown
}

export interface MetricsLog {
  readonly path: string
  /** Bytes written so far: what a checkpoint records, after `sync`. */
  readonly position: number
  /** Writes one row at once. A number that is not finite becomes null, as JSON has no other word for it. */
  append(row: MetricsRow): void
  /** Resolves when all rows so far would survive a power cut: before a checkpoint that counts on them is published. */
  sync(): Promise<void>
  /** Cuts the log to its first `position` bytes. */
  truncateTo(position: number): void
  close(): void
}

export interface MetricsLogOptions {
  /**
   * Where to go on: a checkpoint's `position`, or the step it was taken at (rows after it go, and a last line that was cut off goes).
   * Without either, a log that is already there is started afresh.
   */
  readonly resume?: { readonly position: number } | { readonly step: number }
}

function stepOf(line: string): number | undefined {
  try {
    const row = parseJsonText(line, 'a row')
    const step = typeof row === 'object' && row !== null ? (row as { step?: unknown }).step : undefined
    return Number.isSafeInteger(step) ? (step as number) : undefined
  } catch {
    return undefined
  }
}

/** Bytes of `content` up to the end of the last row of step `last` or before, as long as steps do not pass it. */
function lengthThroughStep(content: Buffer, last: number, path: string): number {
  let kept = 0
  let damagedLine = 0
  let line = 0
  for (let start = 0; start < content.length; ) {
    const end = content.indexOf(0x0a, start)
    if (end < 0) break
    line += 1
    const step = stepOf(content.toString('utf8', start, end))
    if (step === undefined) damagedLine ||= line
    else if (step > last) break
    else if (damagedLine > 0) {
      throw new VoltaicError(
        'ERR_FORMAT',
        `${path}: line ${damagedLine} is no row of metrics, but rows follow it; repair the line, or move the file away`,
      )
    } else kept = end + 1
    start = end + 1
  }
  return kept
}

function resumeAtStep(file: AppendFile, step: number): void {
  let content: Buffer
  try {
    content = readFileSync(file.path)
  } catch (cause) {
    if (systemErrorName(cause) === undefined) throw cause
    throw ioError('read', file.path, cause)
  }
  file.truncateTo(lengthThroughStep(content, step, file.path))
}

/**
 * Opens a run's metrics log.
 * @throws ERR_IO when it cannot be written; ERR_FORMAT when rows that a checkpoint counts on are missing or damaged
 */
export function openMetricsLog(path: string, { resume }: MetricsLogOptions = {}): MetricsLog {
  const file = openAppendFile(path)
  try {
    if (resume === undefined) file.truncateTo(0)
    else if ('position' in resume) file.truncateTo(resume.position)
    else resumeAtStep(file, resume.step)
  } catch (error) {
    file.close()
    throw error
  }
  return {
    path,
    get position(): number {
      return file.position
    },
    append(row): void {
      if (!Number.isSafeInteger(row.step) || row.step < 0) {
        throw new VoltaicError(
          'ERR_ARGUMENT',
          `${path}: a row's step is ${row.step}; expected a whole number, 0 or more`,
        )
      }
      file.append(Buffer.from(`${JSON.stringify(row)}\n`))
    },
    sync: file.sync,
    truncateTo: file.truncateTo,
    close: file.close,
  }
}
