/** `--config FILE.json`: a command's options from a file, under their names in camelCase. */
import { readJsonFile } from '../formats/json-file.js'
import { VoltaicError } from '../runtime/errors.js'

/** @throws ERR_CONFIG for a file that is no JSON object, or names an option that is not `known` */
export function readConfigFile<Options>(path: string, known: readonly string[]): Partial<Options> {
  let parsed: unknown
  try {
    parsed = readJsonFile(path)
  } catch (cause) {
    throw new VoltaicError(
      'ERR_CONFIG',
      `--config ${path} cannot be read as JSON: ${(cause as Error).message}`,
      { cause },
    )
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed))
    throw new VoltaicError('ERR_CONFIG', `--config ${path} holds no JSON object`)
  const unknown = Object.keys(parsed).filter((name) => !known.includes(name))
  if (unknown.length > 0)
    throw new VoltaicError(
      'ERR_CONFIG',
      `--config ${path} has unknown options: ${unknown.join(', ')}. Known are ${[...known].sort().join(', ')}`,
    )
  return parsed as Partial<Options>
}
