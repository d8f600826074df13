/** How commands end: the exit codes, and one line that says what failed and what to do. */
import { VoltaicError } from '../runtime/errors.js'

export const exitCodes = { done: 0, failed: 1, usage: 2, interrupted: 130 } as const

/** Prints an error the way its reader needs it: ours as one line, a bug with its stack. */
export function reportFailure(error: unknown): void {
  process.exitCode = exitCodes.failed
  if (error instanceof VoltaicError) {
    process.stderr.write(`voltaic: ${error.message} [${error.code}]\n`)
  } else {
    process.stderr.write(`voltaic: unexpected ${error instanceof Error ? error.stack : String(error)}\n`)
  }
}
