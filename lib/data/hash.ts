/** A hash of plain data, for keys and fingerprints: equal data, equal hash, in whatever order an object's keys were set. */
import { createHash, type Hash } from 'node:crypto'

/** Feeds plain data to a hash: the order of an object's keys does not matter. */
function update(hash: Hash, value: unknown): void {
  if (ArrayBuffer.isView(value)) {
    hash.update(`bytes ${value.byteLength}\n`)
    hash.update(new Uint8Array(value.buffer, value.byteOffset, value.byteLength))
  } else if (value instanceof Map) {
    hash.update(`map ${value.size}\n`)
    for (const entry of value) update(hash, entry)
  } else if (Array.isArray(value) || value instanceof Set) {
    const items = [...value]
    hash.update(`list ${items.length}\n`)
    for (const item of items) update(hash, item)
  } else if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined)
    entries.sort(([a], [b]) => (a < b ? -1 : 1))
    hash.update(`object ${entries.length}\n`)
    for (const [name, item] of entries) {
      update(hash, name)
      update(hash, item)
    }
  } else {
    const text = String(value)
    hash.update(`${typeof value} ${text.length} ${text}\n`)
  }
}

/** The SHA-256 of numbers, strings, lists, maps, typed arrays and objects of them, in hexadecimal. */
export function hashPlainData(value: unknown): string {
  const hash = createHash('sha256')
  update(hash, value)
  return hash.digest('hex')
}
