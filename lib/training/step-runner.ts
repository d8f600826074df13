/**
 * Runs a step's kernels: one after the other, or on a device that can, as a captured graph. The first two steps of a shape run plainly
 * (libraries choose and load their kernels, scratch memory grows); the third is captured, and from then on a step costs the host one
 * launch. Both ways compute the same from the same memory, so the bits are the same.
 *
 * What changes from step to step is uploaded before: batches into buffers of their own for each shape, everything else by the caller.
 * The number of sequences varies from batch to batch, so it is rounded up by empty ones, and a shape is: how many micro-batches, how
 * many tokens in each, how many sequences.
 */
import type { Batch } from '../data/index.js'
import { BatchBuffers, type BatchInput, type BatchPadding } from '../electra/index.js'
import type { ElectraConfig } from '../formats/electra-config.js'
import {
  type CapturedGraph,
  canCapture,
  capture,
  type Device,
  emptyCache,
  VoltaicError,
} from '../runtime/index.js'
import { type Tensor, TensorScope } from '../tensor/index.js'

/** Queues all kernels of a step and gives the tensors that are read of it. It moves no data. */
export type StepBody = (inputs: readonly BatchInput[]) => Tensor[]

interface Shape {
  readonly buffers: readonly BatchBuffers[]
  plainSteps: number
  graph: CapturedGraph | undefined
  /** The graph's results; each launch writes them anew. */
  outputs: readonly Tensor[]
}

export interface StepRunnerOptions {
  readonly device: Device
  readonly limits: ElectraConfig
  /** Tokens of a sequence at most. */
  readonly sequenceLength: number
  /** Hears why steps are not captured where they could be. */
  readonly onNote?: ((text: string) => void) | undefined
}

const plainStepsFirst = 2

export class StepRunner {
  readonly #options: StepRunnerOptions
  readonly #shapes = new Map<string, Shape>()
  #captures: boolean

  constructor(options: StepRunnerOptions) {
    this.#options = options
    this.#captures = canCapture(options.device)
  }

  /** Shapes that are captured. */
  get graphs(): number {
    return [...this.#shapes.values()].filter(({ graph }) => graph !== undefined).length
  }

  /** Queues a step. `body` must be the same function of its inputs until `dispose`. Gives the results' numbers, in its order. */
  run(batches: readonly Batch[], body: StepBody): Promise<ArrayLike<number>>[] {
    // The CPU gains nothing from a fixed shape, and empty sequences cost it time.
    if (this.#options.device.kind === 'cpu') return this.#plain(() => body(batches))
    const padding = this.#padding(batches)
    const shape = this.#shapeOf(batches, padding)
    const inputs = batches.map((batch, i) => (shape.buffers[i] as BatchBuffers).put(batch, padding))
    if (this.#captures && shape.graph === undefined && shape.plainSteps === plainStepsFirst)
      this.#capture(shape, () => body(inputs))
    if (shape.graph === undefined) {
      shape.plainSteps++
      return this.#plain(() => body(inputs))
    }
    shape.graph.launch()
    return shape.outputs.map((output) => output.data())
  }

  /** Frees graphs and buffers; steps that come begin anew. */
  dispose(): void {
    for (const { graph, outputs, buffers } of this.#shapes.values()) {
      graph?.dispose()
      for (const output of outputs) output.dispose()
      for (const buffer of buffers) buffer.dispose()
    }
    this.#shapes.clear()
  }

  /** Sequences: as many as full ones would be, doubled until all of the step's batches have room. */
  #padding(batches: readonly Batch[]): BatchPadding {
    const { sequenceLength } = this.#options
    const most = (numbers: readonly number[]): number => Math.max(...numbers)
    const needed = most(batches.map(({ offsets }) => offsets.length - 1))
    let sequences = Math.ceil(most(batches.map(({ ids }) => ids.length)) / sequenceLength)
    while (sequences < needed) sequences *= 2
    return { sequences, longest: most([sequenceLength, ...batches.map(({ longest }) => longest)]) }
  }

  #shapeOf(batches: readonly Batch[], { sequences, longest }: BatchPadding): Shape {
    const { limits, device } = this.#options
    const key = [...batches.map(({ ids }) => ids.length), sequences, longest].join()
    let shape = this.#shapes.get(key)
    if (shape === undefined) {
      const buffers = batches.map(() => new BatchBuffers(limits, device))
      shape = { buffers, plainSteps: 0, graph: undefined, outputs: [] }
      this.#shapes.set(key, shape)
    }
    return shape
  }

  #plain(body: () => Tensor[]): Promise<ArrayLike<number>>[] {
    const scope = new TensorScope()
    try {
      return scope.run(body).map((output) => output.data())
    } finally {
      scope.dispose()
    }
  }

  #capture(shape: Shape, body: () => Tensor[]): void {
    try {
      this.#tryCapture(shape, body)
    } catch (error) {
      if (!(error instanceof VoltaicError)) throw error
      if (error.code === 'ERR_OUT_OF_MEMORY') {
        // What the plain steps left may be in pieces of other sizes.
        emptyCache(this.#options.device)
        try {
          this.#tryCapture(shape, body)
          return
        } catch {
          // Told below: the first reason is the one that matters.
        }
      }
      // The plain way does without, and meets again what is wrong with the step itself.
      this.#captures = false
      this.#options.onNote?.(`steps are not captured as graphs, which costs speed: ${error.message}`)
    }
  }

  #tryCapture(shape: Shape, body: () => Tensor[]): void {
    const scope = new TensorScope()
    // A step's results are read before the next is queued, so all graphs may use the same memory.
    const sharing = [...this.#shapes.values()].find(({ graph }) => graph !== undefined)?.graph
    let outputs: Tensor[] = []
    try {
      shape.graph = capture(
        this.#options.device,
        () => {
          outputs = scope.run(body)
        },
        { sharing },
      )
      shape.outputs = scope.keep(outputs)
    } finally {
      scope.dispose()
    }
  }
}
