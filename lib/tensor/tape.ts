/**
 * The tape: one node for each result that depends on something that requires a gradient, in order of creation. `backward` walks the
 * nodes once, newest first, so that a node's gradient is complete before it is passed on; gradients under way are freed as soon as
 * they are used, saved inputs too unless the tape is kept.
 */
import { type Device, type DType, run, type Shape, VoltaicError } from '../runtime/index.js'
import { binary } from './raw.js'
import { shapeText } from './shapes.js'
import {
  castValue,
  filledValue,
  guard,
  isExclusive,
  newValue,
  releaseValue,
  retain,
  type Value,
} from './value.js'

/** Gives each input of `node` its share of `gradient` (which stays the caller's). */
export type Backward = (node: TapeNode, gradient: Value) => void

const noValues: readonly Value[] = []
const noNodes: readonly (TapeNode | null)[] = []

let created = 0
let enabled = true

export class TapeNode {
  readonly name: string
  readonly dtype: DType
  readonly shape: Shape
  readonly order: number = created++
  /** Where the gradients of the op's inputs go; null for an input that needs none. */
  inputs: readonly (TapeNode | null)[]
  /** What backward reads; one reference of each belongs to the node. */
  saved: readonly Value[]
  /** null for a leaf, which keeps its gradient. */
  readonly backward: Backward | null
  /** A leaf's gradient (float32), or what came so far in the walk under way. */
  gradient: Value | null = null
  /** Nodes on the tape that have this one as an input. */
  consumers = 0
  /** Whether a Tensor shows this node's result. */
  owned = true
  /** The walk ran through it and its saved values are gone. */
  spent = false
  /** The finalizer knows all that it saved. */
  guarded = false
  /** The gradient is accepted in either float dtype, not only the result's. */
  acceptsAnyFloat = false
  /** A leaf's gradient lies in an arena: it is set to zero, never freed. */
  arenaGradient = false
  /** The user asked for this intermediate result's gradient. */
  keepsGradient = false
  keptGradient: Value | null = null
  /**
   * The pre-activation of `linear` with an activation: the next layer's gradient product may multiply by the activation's
   * derivative and add up the bias gradient itself; then `preactivationGradient` is set.
   */
  fusion: { readonly preactivation: Value; readonly activation: number } | null = null
  preactivationGradient = false
  private walked = 0

  constructor(
    name: string,
    value: Value,
    inputs: readonly (TapeNode | null)[],
    saved: readonly Value[],
    backward: Backward | null,
  ) {
    this.name = name
    this.dtype = value.dtype
    this.shape = value.shape
    this.inputs = inputs
    this.saved = saved
    this.backward = backward
    for (const input of inputs) if (input !== null) input.consumers++
  }

  needs(index: number): boolean {
    return this.inputs[index] != null
  }

  /** Hands `gradient` over to an input; it is released where none is needed. */
  give(index: number, gradient: Value): void {
    const input = this.inputs[index]
    if (input == null) releaseValue(gradient)
    else input.receive(gradient)
  }

  /** A zero-initialised or partly summed float32 buffer that a kernel adds an input's gradient to; `close` hands it over. */
  open(index: number, like: Value): Value {
    return this.openShape(index, like.device, like.shape)
  }

  openShape(index: number, device: Device, shape: Shape): Value {
    const input = this.inputs[index]
    if (input == null) return newValue(device, 'float32', shape)
    if (input.backward === null) {
      input.gradient ??= guard(filledValue(device, 'float32', shape, 0))
      return input.gradient
    }
    const pending = input.gradient
    if (pending !== null && pending.dtype === 'float32' && isExclusive(pending)) return pending
    return filledValue(device, 'float32', shape, 0)
  }

  close(index: number, buffer: Value): void {
    const input = this.inputs[index]
    if (input == null) releaseValue(buffer)
    else if (input.gradient !== buffer) input.receive(buffer)
  }

  /** An input's gradient so far when a product may be added into it in place; else null. */
  pending(index: number): Value | null {
    const input = this.inputs[index]
    if (input == null || input.gradient === null) return null
    return input.backward === null || isExclusive(input.gradient) ? input.gradient : null
  }

  /** The node of an input whose gradient this node alone makes, so that it may go through the activation at once. */
  fusible(index: number): TapeNode | null {
    const input = this.inputs[index]
    if (input == null || input.fusion === null || input.consumers !== 1) return null
    return input.gradient === null && !input.keepsGradient ? input : null
  }

  /** Takes over `gradient` and adds it to what came before. */
  receive(gradient: Value): void {
    const present = this.gradient
    if (present === null) {
      this.gradient = this.backward === null ? leafGradient(gradient) : gradient
      return
    }
    if (this.backward === null || isExclusive(present)) {
      try {
        run('accumulate', [gradient.handle, present.handle])
      } finally {
        releaseValue(gradient)
      }
      return
    }
    const addend = gradient.dtype === present.dtype ? retain(gradient) : castValue(gradient, present.dtype)
    this.gradient = binary('add', addend, present)
    releaseValue(addend)
    releaseValue(gradient)
    releaseValue(present)
  }

  /** Releases what backward would read, and lets go of the inputs. */
  free(): void {
    if (this.backward === null) return
    this.spent = true
    for (const value of this.saved) releaseValue(value)
    this.saved = noValues
    this.fusion = null
    if (this.keptGradient !== null && !this.owned) {
      releaseValue(this.keptGradient)
      this.keptGradient = null
    }
  }

  /** Removes the node from its inputs' consumers; adds those that nobody can reach any more to `unreachable`. */
  detachInputs(unreachable?: TapeNode[]): void {
    for (const input of this.inputs) {
      if (input !== null && --input.consumers === 0 && !input.owned && !input.spent) unreachable?.push(input)
    }
    this.inputs = noNodes
  }

  /** True the first time in a walk. */
  visit(walk: number): boolean {
    if (this.walked === walk) return false
    this.walked = walk
    return true
  }
}

function leafGradient(gradient: Value): Value {
  if (gradient.dtype === 'float32' && isExclusive(gradient)) return guard(gradient)
  try {
    return guard(castValue(gradient, 'float32'))
  } finally {
    releaseValue(gradient)
  }
}

/** The Tensor that showed the node's result is gone: if nothing else leads there, everything behind it is freed. */
export function disown(node: TapeNode): void {
  node.owned = false
  if (node.backward === null) return
  if (node.keptGradient !== null) {
    releaseValue(node.keptGradient)
    node.keptGradient = null
  }
  if (node.consumers > 0 || node.spent) return
  const unreachable = [node]
  for (let next = unreachable.pop(); next !== undefined; next = unreachable.pop()) {
    if (next.backward === null) continue
    next.free()
    next.detachInputs(unreachable)
  }
}

export function isRecording(): boolean {
  return enabled
}

const asyncFunction = Object.getPrototypeOf(async () => undefined).constructor as new () => unknown

/** Throws ERR_ARGUMENT for an async function: its body goes on after `op` has ended. */
export function refuseAsync(op: string, body: unknown, advice: string): void {
  if (body instanceof asyncFunction) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `${op}: the function is async, and what it does after its first await would run outside; ${advice}`,
    )
  }
}

/**
 * Runs `body` without recording: its results require no gradient and nothing is saved. The body is synchronous (it may return a
 * promise, such as `tensor.data()`); an async function is refused with ERR_ARGUMENT, because other code would run at its awaits.
 */
export function noGrad<T>(body: () => T): T {
  refuseAsync('noGrad', body, 'wrap only the synchronous parts')
  const before = enabled
  enabled = false
  try {
    return body()
  } finally {
    enabled = before
  }
}

let walks = 0

function collect(root: TapeNode): TapeNode[] {
  const walk = ++walks
  const nodes: TapeNode[] = [root]
  root.visit(walk)
  for (let i = 0; i < nodes.length; i++) {
    const node = nodes[i] as TapeNode
    if (node.spent) {
      throw new VoltaicError(
        'ERR_GRADIENT',
        `backward: the tape behind ${node.name} was used up by an earlier backward; ` +
          'pass { retainGraph: true } to the earlier one, or compute the result again',
      )
    }
    for (const input of node.inputs) {
      if (input !== null && input.backward !== null && input.visit(walk)) nodes.push(input)
    }
  }
  return nodes.sort((a, b) => b.order - a.order)
}

/** Propagates `seed` (taken over) from `root` to every leaf behind it. */
export function propagate(root: TapeNode, seed: Value, retainGraph: boolean): void {
  if (root.backward === null) {
    root.receive(seed)
    return
  }
  let nodes: TapeNode[]
  try {
    nodes = collect(root)
  } catch (error) {
    releaseValue(seed)
    throw error
  }
  root.receive(seed)
  let done = 0
  try {
    for (; done < nodes.length; done++) {
      const node = nodes[done] as TapeNode
      step(node)
      if (!retainGraph) node.free()
    }
  } finally {
    for (; done < nodes.length; done++) dropGradient(nodes[done] as TapeNode)
    if (!retainGraph) {
      for (const node of nodes) {
        node.free()
        node.detachInputs()
      }
    }
  }
}

function dropGradient(node: TapeNode): void {
  if (node.gradient !== null) releaseValue(node.gradient)
  node.gradient = null
  node.preactivationGradient = false
}

function step(node: TapeNode): void {
  let gradient = node.gradient
  if (gradient === null) return
  node.gradient = null
  try {
    if (gradient.dtype !== node.dtype && !node.acceptsAnyFloat) {
      const cast = castValue(gradient, node.dtype)
      releaseValue(gradient)
      gradient = cast
    }
    if (node.keepsGradient) keep(node, gradient)
    ;(node.backward as Backward)(node, gradient)
  } finally {
    node.preactivationGradient = false
    releaseValue(gradient)
  }
}

function keep(node: TapeNode, gradient: Value): void {
  if (node.keptGradient === null) {
    node.keptGradient = guard(castValue(gradient, 'float32'))
    return
  }
  run('accumulate', [gradient.handle, node.keptGradient.handle])
}

/** A seed of the wrong shape is refused before anything is computed. */
export function checkSeed(shape: Shape, seed: Value): void {
  if (seed.shape.length !== shape.length || seed.shape.some((dimension, axis) => dimension !== shape[axis])) {
    throw new VoltaicError(
      'ERR_SHAPE',
      `backward: the gradient has shape ${shapeText(seed.shape)}, expected the tensor's own, ${shapeText(shape)}`,
    )
  }
  if (seed.dtype !== 'float32' && seed.dtype !== 'bfloat16') {
    throw new VoltaicError(
      'ERR_DTYPE',
      `backward: the gradient is ${seed.dtype}, expected float32 or bfloat16`,
    )
  }
}
