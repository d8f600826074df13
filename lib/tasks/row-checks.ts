/** What happens to a malformed row of a task file: the whole reading fails, or the row is left out and reported. */
import { VoltaicError } from '../runtime/errors.js'

/** With more, the file is of another kind, and the report would fill the memory. */
export const mostSkipped = 10_000

/** A row that was left out. */
export interface SkippedRow {
  /** Its line in the file, from 1; of a row that spans lines, the first. */
  readonly line: number
  readonly problem: string
}

export interface RowOptions {
  /** A malformed row ends the reading with ERR_FORMAT. Default false: it is left out, and listed in `skipped`. */
  readonly strict?: boolean | undefined
}

/** What was left out of a file, as a task tells it. */
export function skippedPlaces(skipped: readonly SkippedRow[]): { place: string; problem: string }[] {
  return skipped.map(({ line, problem }) => ({ place: `line ${line}`, problem }))
}

/** Collects the malformed rows of one file, or throws at the first. */
export class RowChecks {
  readonly #skipped: SkippedRow[]

  constructor(
    readonly file: string,
    readonly strict: boolean = false,
    skipped: readonly SkippedRow[] = [],
  ) {
    this.#skipped = [...skipped]
  }

  /** @throws ERR_FORMAT when strict, or when too many have been refused for a file of this kind */
  refuse(line: number, problem: string): void {
    if (this.strict) throw new VoltaicError('ERR_FORMAT', `${this.file}:${line}: ${problem}`)
    const [first] = this.#skipped
    if (first !== undefined && this.#skipped.length >= mostSkipped) {
      throw new VoltaicError(
        'ERR_FORMAT',
        `${this.file}: more than ${mostSkipped} malformed rows, the first on line ${first.line}: ${first.problem}`,
      )
    }
    this.#skipped.push({ line, problem })
  }

  /**
   * What was left out, in the order of lines.
   * @param kept how many rows (or sentences) were good
   * @throws ERR_FORMAT when there was none
   */
  finish(kept: number, what = 'rows'): readonly SkippedRow[] {
    const skipped = this.#skipped.sort((a, b) => a.line - b.line)
    const [first] = skipped
    if (kept > 0) return skipped
    throw new VoltaicError(
      'ERR_FORMAT',
      first === undefined
        ? `${this.file}: holds no ${what}`
        : `${this.file}: none of its ${skipped.length} ${what} can be used; line ${first.line}: ${first.problem}`,
    )
  }
}
