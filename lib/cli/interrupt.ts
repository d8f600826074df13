/** How a long command is stopped: Ctrl-C or SIGTERM asks it to save and stop, a second one ends it at once. */
import { VoltaicError } from '../runtime/errors.js'
import { exitCodes } from './exit.js'

/** Runs `body` with a signal that Ctrl-C and SIGTERM raise; when it stops for that, says so and sets the exit code. */
export async function interruptible(
  announcement: string,
  body: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const stop = new AbortController()
  const interrupt = (): void => {
    if (stop.signal.aborted) process.exit(exitCodes.interrupted)
    stop.abort()
    process.stderr.write(`\n${announcement}\n`)
  }
  process.on('SIGINT', interrupt)
  process.on('SIGTERM', interrupt)
  try {
    await body(stop.signal)
  } catch (error) {
    if (!(error instanceof VoltaicError) || error.code !== 'ERR_ABORTED') throw error
    process.stderr.write(`${error.message}\n`)
    process.exitCode = exitCodes.interrupted
  } finally {
    process.off('SIGINT', interrupt)
    process.off('SIGTERM', interrupt)
  }
}
