/** Data that stands beside a checkout of the project, where it does: tests that want it say so when they skip. */
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const beside = fileURLToPath(new URL('../../../shared/data/', import.meta.url))

/** The folder of shared test data, or undefined. VOLTAIC_SHARED_DATA names another place. */
export const sharedData: string | undefined = [process.env.VOLTAIC_SHARED_DATA, beside].find(
  (folder) => folder !== undefined && existsSync(folder),
)

/** tap options for a test that needs the shared data. */
export const needsSharedData: { skip?: string } =
  sharedData === undefined ? { skip: 'no ../shared/data here' } : {}
