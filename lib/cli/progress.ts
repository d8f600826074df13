/**
 * What a long command shows: on a terminal one line that is drawn over, in a pipe plain lines. Everything goes to standard error,
 * so that standard output holds results alone.
 */
import { formatDuration } from './format.js'

export interface Progress {
  /** Replaces the line being drawn; in a pipe nothing, lines come through `log`. */
  update(text: string, fraction?: number): void
  /** A line that stays. */
  log(line: string): void
  /** Ends the line being drawn. */
  done(): void
}

const barWidth = 24
const redrawMs = 100

function bar(fraction: number): string {
  const filled = Math.round(Math.min(1, Math.max(0, fraction)) * barWidth)
  return `[${'='.repeat(filled)}${' '.repeat(barWidth - filled)}]`
}

export function createProgress(stream: NodeJS.WriteStream = process.stderr): Progress {
  const isTerminal = stream.isTTY === true
  let drawn = false
  let last = 0
  const clear = (): void => {
    if (drawn) stream.write('\r\x1b[K')
    drawn = false
  }
  return {
    update(text, fraction) {
      if (!isTerminal || performance.now() - last < redrawMs) return
      last = performance.now()
      const line = fraction === undefined ? text : `${bar(fraction)} ${text}`
      stream.write(`\r\x1b[K${line.slice(0, Math.max(20, (stream.columns ?? 80) - 1))}`)
      drawn = true
    },
    log(line) {
      clear()
      stream.write(`${line}\n`)
    },
    done: clear,
  }
}

/** Time left, from what is done and how long it took. */
export function timeLeft(doneFraction: number, seconds: number): string {
  return doneFraction > 0 ? formatDuration((seconds / doneFraction) * (1 - doneFraction)) : '?'
}
