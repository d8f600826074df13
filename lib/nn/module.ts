/** Module: parameters and modules as plain properties, found under the names that checkpoint files give them. */
import { type NamedParameter, Parameter, ParameterPart } from './parameter.js'

/** Where a parameter, or a part of one, stands. */
export interface ParameterEntry {
  readonly name: string
  readonly parameter: Parameter
  readonly part: ParameterPart | null
  /** The part's number; 0 for a whole parameter. */
  readonly index: number
}

function snakeCase(property: string): string {
  return property.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}

function join(prefix: string, name: string): string {
  return prefix === '' ? name : name === '' ? prefix : `${prefix}.${name}`
}

/**
 * Base of everything with parameters. Properties that hold a Parameter, a Module or an array of Modules are found by themselves, in
 * order of definition. A property's name in checkpoints is its own in snake_case, unless `checkpointNames` says otherwise.
 */
export class Module {
  /** Whether dropout is active. Set with `train` and `eval`. */
  training = true

  /** Property to checkpoint name (dots allowed); '' gives the property's own content the name of this module. */
  protected get checkpointNames(): Readonly<Record<string, string>> {
    return {}
  }

  /** Modules held directly, with their names. */
  *children(): Generator<[string, Module]> {
    const names = this.checkpointNames
    for (const [property, value] of Object.entries(this)) {
      const name = names[property] ?? snakeCase(property)
      if (value instanceof Module) yield [name, value]
      else if (Array.isArray(value)) {
        for (const [index, item] of value.entries()) {
          if (item instanceof Module) yield [join(name, String(index)), item]
        }
      }
    }
  }

  /** Every parameter under every name it has, parts separately, in order of definition. */
  *entries(prefix = ''): Generator<ParameterEntry> {
    const names = this.checkpointNames
    for (const [property, value] of Object.entries(this)) {
      const name = join(prefix, names[property] ?? snakeCase(property))
      if (value instanceof Parameter) {
        if (value.parts.length === 0) yield { name, parameter: value, part: null, index: 0 }
        for (const [index, part] of value.parts.entries()) {
          yield { name: join(prefix, part), parameter: value, part: new ParameterPart(value, index), index }
        }
      } else if (value instanceof Module) yield* value.entries(name)
      else if (Array.isArray(value)) {
        for (const [index, item] of value.entries()) {
          if (item instanceof Module) yield* item.entries(join(name, String(index)))
        }
      }
    }
  }

  /**
   * Names as in checkpoint files with what they name; a packed parameter gives its parts. A shared parameter comes once, under its
   * first name; with `duplicates` under each.
   */
  *namedParameters(options: { readonly duplicates?: boolean } = {}): Generator<[string, NamedParameter]> {
    const seen = new Map<Parameter, Set<number>>()
    for (const { name, parameter, part, index } of this.entries()) {
      const known = seen.get(parameter)
      if (known === undefined) seen.set(parameter, new Set([index]))
      else if (known.has(index) && options.duplicates !== true) continue
      else known.add(index)
      yield [name, part ?? parameter]
    }
  }

  /** Every parameter once, in order of definition. */
  parameters(): Parameter[] {
    const found = new Set<Parameter>()
    for (const { parameter } of this.entries()) found.add(parameter)
    return [...found]
  }

  /** Sets training mode (dropout active) here and below. */
  train(mode = true): this {
    this.training = mode
    for (const [, child] of this.children()) child.train(mode)
    return this
  }

  /** Sets evaluation mode: no dropout. */
  eval(): this {
    return this.train(false)
  }

  /** Forgets all gradients. */
  zeroGrad(): void {
    for (const parameter of this.parameters()) parameter.zeroGrad()
  }

  /** Frees all parameters, shared ones too. */
  dispose(): void {
    for (const parameter of this.parameters()) parameter.dispose()
  }
}

/** All names of each parameter of one or more modules, in order of first appearance. Parts count as names of the whole. */
export function parameterNames(modules: readonly Module[]): Map<Parameter, string[]> {
  const names = new Map<Parameter, string[]>()
  for (const module of modules) {
    for (const { name, parameter } of module.entries()) {
      const known = names.get(parameter)
      if (known === undefined) names.set(parameter, [name])
      else if (!known.includes(name)) known.push(name)
    }
  }
  return names
}
