/**
 * Sequences of many calls in one forward pass. While one pass runs, what comes in waits; then it goes together, in the order it came,
 * up to a number of tokens. Nothing is padded, and in fp32 a row does not depend on the rows around it, so who went with whom shows
 * in the time alone.
 */

/** One row of tokens, as the model takes it. */
export interface Sequence {
  readonly inputIds: Int32Array
  readonly tokenTypeIds: Int32Array
  /** Where the generator is asked, counted from the row's first token. Others ignore it. */
  readonly maskedPositions?: Int32Array | undefined
}

/** Runs the model once; one output a sequence, in their order. */
export type RunBatch<Output> = (batch: readonly Sequence[]) => Promise<Output[]>

interface Job<Output> {
  readonly sequences: readonly Sequence[]
  readonly outputs: Output[]
  /** Sequences that went into a pass already. */
  taken: number
  readonly resolve: (outputs: Output[]) => void
  readonly reject: (error: unknown) => void
}

/** A job's sequences [begin, end) in one pass. */
interface Share<Output> {
  readonly job: Job<Output>
  readonly begin: number
  readonly end: number
}

/** Lets everything that is due run first: calls that come in the same turn of the event loop go into the same pass. */
const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

export class Gathering<Output> {
  readonly #run: RunBatch<Output>
  readonly #budget: number
  readonly #waiting: Job<Output>[] = []
  #working: Promise<void> | null = null

  /** @param budget tokens of a pass; a longer sequence goes alone */
  constructor(run: RunBatch<Output>, budget: number) {
    this.#run = run
    this.#budget = budget
  }

  /** One output a sequence. Rejects with the error of the pass that one of them was in. */
  submit(sequences: readonly Sequence[]): Promise<Output[]> {
    if (sequences.length === 0) return Promise.resolve([])
    return new Promise((resolve, reject) => {
      this.#waiting.push({ sequences, outputs: [], taken: 0, resolve, reject })
      this.#working ??= this.#work()
    })
  }

  /** Resolves when nothing runs and nothing waits. */
  async idle(): Promise<void> {
    while (this.#working !== null) await this.#working
  }

  async #work(): Promise<void> {
    await nextTurn()
    while (this.#waiting.length > 0) await this.#pass(this.#take())
    this.#working = null
  }

  /** The next sequences up to the budget, at least one. */
  #take(): Share<Output>[] {
    const shares: Share<Output>[] = []
    let tokens = 0
    for (let job = this.#waiting[0]; job !== undefined; job = this.#waiting[0]) {
      const begin = job.taken
      let end = begin
      for (; end < job.sequences.length; end++) {
        const { length } = (job.sequences[end] as Sequence).inputIds
        if (tokens > 0 && tokens + length > this.#budget) break
        tokens += length
      }
      if (end > begin) shares.push({ job, begin, end })
      job.taken = end
      if (end < job.sequences.length) break
      this.#waiting.shift()
    }
    return shares
  }

  async #pass(shares: readonly Share<Output>[]): Promise<void> {
    try {
      const outputs = await this.#run(
        shares.flatMap(({ job, begin, end }) => job.sequences.slice(begin, end)),
      )
      let at = 0
      for (const { job, begin, end } of shares) {
        for (let place = begin; place < end; place++) job.outputs.push(outputs[at++] as Output)
        if (end === job.sequences.length) job.resolve(job.outputs)
      }
    } catch (error) {
      // One call's trouble is not the others': each share gets a pass of its own.
      if (shares.length > 1) for (const share of shares) await this.#pass([share])
      else for (const { job } of shares) this.#drop(job, error)
    }
  }

  #drop(job: Job<Output>, error: unknown): void {
    const place = this.#waiting.indexOf(job)
    if (place >= 0) this.#waiting.splice(place, 1)
    job.reject(error)
  }
}
