/** Options of calls: what is not known or does not fit is refused before anything runs. */
import { VoltaicError } from '../runtime/errors.js'

export function refuse(task: string, message: string): never {
  throw new VoltaicError('ERR_ARGUMENT', `${task}: ${message}`)
}

export const shown = (value: unknown): string => (JSON.stringify(value) ?? String(value)).slice(0, 80)

/** @throws ERR_ARGUMENT for a name that the pipeline does not have: a slip would go unseen */
export function checkOptionNames(task: string, options: object, known: readonly string[]): void {
  const unknown = Object.keys(options).find((name) => !known.includes(name))
  if (unknown !== undefined) refuse(task, `no option '${unknown}'; the options are ${known.join(', ')}`)
}

/** A whole number of `least` or more, or the fallback where none is given. */
export function wholeOption(
  task: string,
  name: string,
  value: number | undefined,
  least: number,
  fallback: number,
): number {
  if (value === undefined) return fallback
  if (Number.isSafeInteger(value) && value >= least) return value
  return refuse(task, `${name} is ${shown(value)}; expected a whole number of ${least} or more`)
}

/** A number from `least` to `most`, or the fallback where none is given. */
export function numberOption(
  task: string,
  name: string,
  value: number | undefined,
  [least, most]: readonly [number, number],
  fallback: number,
): number {
  if (value === undefined) return fallback
  if (typeof value === 'number' && value >= least && value <= most) return value
  const range = most === Number.POSITIVE_INFINITY ? `of ${least} or more` : `from ${least} to ${most}`
  return refuse(task, `${name} is ${shown(value)}; expected a number ${range}`)
}

/** One of some names, or the fallback where none is given. */
export function nameOption<Name extends string>(
  task: string,
  name: string,
  value: Name | undefined,
  names: readonly Name[],
  fallback: Name,
): Name {
  if (value === undefined) return fallback
  if (names.includes(value)) return value
  return refuse(task, `${name} is ${shown(value)}; expected one of ${names.join(', ')}`)
}

/** How many of the best to give: `top_k`, null for all. */
export function topOption(task: string, value: number | null | undefined, fallback: number): number {
  if (value === null) return Number.POSITIVE_INFINITY
  return wholeOption(task, 'top_k', value, 1, fallback)
}

/** @throws ERR_ARGUMENT for anything but a string */
export function textInput(task: string, name: string, value: unknown): string {
  if (typeof value === 'string') return value
  return refuse(task, `${name} is ${shown(value)}; expected a string`)
}
