/**
 * JSON as Python's `json.dumps(value, indent=2, sort_keys=True)` prints it, so that a configuration that passes through Voltaic
 * comes out byte for byte as the ecosystem's own tools wrote it: keys by code point, everything beyond ASCII escaped, and a number
 * that Python holds as float printed with a point (`0.0`) or a two-digit exponent (`1e-05`).
 */

/** Compares two strings by code points, as Python and UTF-8 bytes order them (JavaScript's own order is by UTF-16 units). */
export function compareCodePoints(first: string, second: string): number {
  return Buffer.compare(Buffer.from(first), Buffer.from(second))
}

/** A number as Python's `repr` prints a float. */
export function pythonFloat(value: number): string {
  if (Number.isNaN(value)) return 'NaN'
  if (!Number.isFinite(value)) return value > 0 ? 'Infinity' : '-Infinity'
  if (Object.is(value, -0)) return '-0.0'
  if (value === 0) return '0.0'
  const [digits = '', exponentText = '0'] = value.toExponential().split('e')
  const exponent = Number(exponentText)
  if (exponent < -4 || exponent >= 16) {
    return `${digits}e${exponent < 0 ? '-' : '+'}${String(Math.abs(exponent)).padStart(2, '0')}`
  }
  const plain = String(value)
  return plain.includes('.') ? plain : `${plain}.0`
}

function quote(text: string): string {
  return JSON.stringify(text).replace(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

const isIndex = (key: string): boolean => /^(0|[1-9]\d*)$/.test(key)

/** Python sorts integer keys (the labels' numbers) as numbers, before they become strings. */
function sortedKeys(value: object): string[] {
  const keys = Object.keys(value)
  return keys.every(isIndex) ? keys.sort((a, b) => Number(a) - Number(b)) : keys.sort(compareCodePoints)
}

/**
 * Prints a JSON value. Members whose key is in `floatKeys` are Python floats; other whole numbers print without a point.
 * Members that are `undefined` are left out.
 */
export function pythonJson(value: unknown, floatKeys: ReadonlySet<string> = new Set()): string {
  const print = (item: unknown, isFloat: boolean, indent: string): string => {
    if (typeof item === 'string') return quote(item)
    if (typeof item === 'number') {
      return isFloat || !Number.isSafeInteger(item) ? pythonFloat(item) : String(item)
    }
    if (typeof item !== 'object' || item === null)
      return item === true ? 'true' : item === false ? 'false' : 'null'
    const inner = `${indent}  `
    if (Array.isArray(item)) {
      const rows = item.map((element) => inner + print(element, isFloat, inner))
      return rows.length === 0 ? '[]' : `[\n${rows.join(',\n')}\n${indent}]`
    }
    const members = item as Readonly<Record<string, unknown>>
    const rows = sortedKeys(item)
      .filter((key) => members[key] !== undefined)
      .map((key) => `${inner}${quote(key)}: ${print(members[key], floatKeys.has(key), inner)}`)
    return rows.length === 0 ? '{}' : `{\n${rows.join(',\n')}\n${indent}}`
  }
  return print(value, false, '')
}
