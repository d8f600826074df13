/** Scopes: everything made inside is freed when they end, but for what is handed out. */
import { refuseAsync } from './tape.js'
import { protectTensor, Tensor } from './tensor.js'
import { exchangeTracked, trackedTensors } from './tracking.js'

const advice = 'give TensorScope.run the synchronous parts and dispose it after the last'

/** Tensors in a tensor, array, Map or plain object, at any depth. */
function findTensors(result: unknown, found: Set<unknown>): void {
  if (typeof result !== 'object' || result === null || found.has(result)) return
  if (result instanceof Tensor) {
    found.add(result)
    return
  }
  const prototype = Object.getPrototypeOf(result)
  if (Array.isArray(result) || result instanceof Map || result instanceof Set) {
    found.add(result)
    for (const item of result.values()) findTensors(item, found)
  } else if (prototype === Object.prototype || prototype === null) {
    found.add(result)
    for (const item of Object.values(result)) findTensors(item, found)
  }
}

function release(tensors: readonly Tensor[], kept: Set<unknown> | null): void {
  const outer = trackedTensors()
  for (const tensor of tensors) {
    if (kept?.has(tensor) !== true) tensor.dispose()
    else if (!tensor.disposed) {
      if (outer !== null) outer.push(tensor)
      else protectTensor(tensor)
    }
  }
}

/**
 * Runs `body` and frees every tensor made inside, except the tensors in what it returns: a tensor, or arrays, Maps and plain objects
 * of them; in a nested scope these belong to the outer one. The tape behind a returned tensor stays. Gradients of leaves and
 * parameters stay. When `body` throws, everything is freed.
 *
 * The body is synchronous. It may return a promise of data (`scope(() => f(x).data())`); an async function is refused with
 * ERR_ARGUMENT: use a TensorScope.
 */
export function scope<T>(body: () => T): T {
  refuseAsync('scope', body, advice)
  const list: Tensor[] = []
  const before = exchangeTracked(list)
  let kept: Set<unknown> | null = null
  try {
    const result = body()
    kept = new Set()
    findTensors(result, kept)
    return result
  } finally {
    exchangeTracked(before)
    release(list, kept)
  }
}

const forgotten = new FinalizationRegistry<Tensor[]>((list) => {
  for (const tensor of list) tensor.dispose()
})

/**
 * A scope in pieces, for work with awaits in between: `run` the synchronous parts, `dispose` at the end (or `using`). Tensors made
 * in `run`, also those it returns, live until `dispose`, but for those given to `keep`.
 */
export class TensorScope {
  readonly #tensors: Tensor[] = []

  constructor() {
    forgotten.register(this, this.#tensors, this)
  }

  /** Runs a synchronous function; the tensors made in it belong to this scope. */
  run<T>(body: () => T): T {
    refuseAsync('TensorScope.run', body, advice)
    const before = exchangeTracked(this.#tensors)
    try {
      return body()
    } finally {
      exchangeTracked(before)
    }
  }

  /** Lets tensors (in an array or plain object, too) outlive the scope: they belong to the scope around, if there is one. */
  keep<T>(tensors: T): T {
    const kept = new Set<unknown>()
    findTensors(tensors, kept)
    const rest = this.#tensors.filter((tensor) => !kept.has(tensor))
    release(
      this.#tensors.filter((tensor) => kept.has(tensor)),
      kept,
    )
    this.#tensors.length = 0
    for (const tensor of rest) this.#tensors.push(tensor)
    return tensors
  }

  /** Frees what was made inside. The scope may be used again afterwards. */
  dispose(): void {
    const list = this.#tensors.splice(0)
    release(list, null)
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** Runs `body` outside of all scopes: what it makes is freed by `dispose` or the finalizer only. For parameters and states. */
export function unscoped<T>(body: () => T): T {
  const before = exchangeTracked(null)
  try {
    return body()
  } finally {
    exchangeTracked(before)
  }
}
