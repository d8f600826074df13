// The families' rows by name.
import { readdirSync } from 'node:fs'

export const families = readdirSync(new URL('./families/', import.meta.url))
  .filter((file) => file.endsWith('.mjs'))
  .map((file) => file.slice(0, -4))

/** The rows of a family at a scale (scales.mjs). Nothing is allocated yet. */
export async function rowsOf(family, scale) {
  const { benchmarks } = await import(`./families/${family}.mjs`)
  return [...benchmarks(scale)]
}
