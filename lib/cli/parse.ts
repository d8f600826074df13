/** Option values: numbers are checked where they are given, so that a slip is a usage error and nothing has run. */
import { InvalidArgumentError } from 'commander'

/** 1000, 1_000, 1e6, 20k, 1M */
export function parseNumber(text: string): number {
  const match = /^([+-]?(?:\d[\d_]*\.?[\d_]*|\.\d+)(?:e[+-]?\d+)?)([kKM]?)$/.exec(text.trim())
  if (!match) throw new InvalidArgumentError(`'${text}' is not a number.`)
  return (
    Number((match[1] as string).replaceAll('_', '')) * ({ k: 1e3, K: 1e3, M: 1e6 }[match[2] as string] ?? 1)
  )
}

export function parseWhole(text: string): number {
  const value = parseNumber(text)
  if (!Number.isSafeInteger(value)) throw new InvalidArgumentError(`'${text}' is not a whole number.`)
  return value
}

export function parsePositive(text: string): number {
  const value = parseWhole(text)
  if (value < 1) throw new InvalidArgumentError(`'${text}' is not 1 or more.`)
  return value
}

/** A fraction as 0.25 or 1/4. */
export function parseFraction(text: string): number {
  const parts = /^(\d+)\/(\d+)$/.exec(text.trim())
  return parts ? Number(parts[1]) / Number(parts[2]) : parseNumber(text)
}

/** NAME=FILE, and files that go on with the language before: `--language es=a.txt b.txt ru=c.txt`. */
export function parseLanguage(
  value: string,
  before: Readonly<Record<string, readonly string[]>> | undefined,
): Readonly<Record<string, readonly string[]>> {
  const languages = before ?? {}
  const match = /^([\p{L}\p{N}_-]+)=(.+)$/u.exec(value)
  const name = match?.[1] ?? Object.keys(languages).at(-1)
  if (name === undefined) throw new InvalidArgumentError(`'${value}' names no language; write NAME=FILE.`)
  return { ...languages, [name]: [...(languages[name] ?? []), match?.[2] ?? value] }
}
