/** Checks of options: each gives the value back, or refuses it by name. */
import { VoltaicError } from '../runtime/errors.js'

/** Throws ERR_CONFIG naming the option, its value and what is expected. */
export function refuse(name: string, value: unknown, expected: string): never {
  throw new VoltaicError('ERR_CONFIG', `${name} is ${JSON.stringify(value)}, expected ${expected}`)
}

export const integer = (name: string, value: number, least: number): number =>
  Number.isSafeInteger(value) && value >= least
    ? value
    : refuse(name, value, `a whole number of ${least} or more`)

export const within = (name: string, value: number, low: number, high: number): number =>
  typeof value === 'number' && value >= low && value <= high
    ? value
    : refuse(name, value, `a number from ${low} to ${high}`)

export function oneOf<T extends string>(name: string, value: T, choices: readonly T[]): T {
  return choices.includes(value) ? value : refuse(name, value, choices.join(' or '))
}

export const text = (name: string, value: string): string =>
  typeof value === 'string' && value !== '' ? value : refuse(name, value, 'a text that is not empty')

export const flag = (name: string, value: boolean): boolean =>
  typeof value === 'boolean' ? value : refuse(name, value, 'true or false')

export const names = (name: string, value: readonly string[]): readonly string[] =>
  Array.isArray(value) && value.every((entry) => typeof entry === 'string' && entry !== '')
    ? value
    : refuse(name, value, 'a list of files and globs')
