/** What every pipeline stands on: an opened model with its tokenizer, calls that are gathered, and the end of both. */
import type { ElectraPreTrainedModel } from '../electra/index.js'
import { VoltaicError } from '../runtime/errors.js'
import type { Tokenizer } from '../text/index.js'
import { Gathering, type RunBatch, type Sequence } from './gathering.js'

/** Texts of one call that are in work at the same time: enough for a full pass of short ones. */
const inWork = 1024

/** What a pipeline has beside its call. */
export interface PipelineBase {
  readonly task: string
  readonly model: ElectraPreTrainedModel
  readonly tokenizer: Tokenizer
  /** Waits for the calls that run, then frees the model. Later calls are refused with ERR_DISPOSED. Twice is harmless. */
  dispose(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/** Runs sequences through the model, with those of other calls. */
export type Submit<Output> = (sequences: readonly Sequence[]) => Promise<Output[]>

export class Session<M extends ElectraPreTrainedModel = ElectraPreTrainedModel> {
  readonly task: string
  readonly model: M
  readonly tokenizer: Tokenizer
  /** Tokens of a row at most, special tokens included. */
  readonly maxLength: number
  readonly #batchTokens: number
  readonly #gatherings: Gathering<unknown>[] = []
  #disposal: Promise<void> | null = null

  constructor(task: string, model: M, tokenizer: Tokenizer, batchTokens: number) {
    this.task = task
    this.model = model
    this.tokenizer = tokenizer
    const { maxPositionEmbeddings } = model.config
    this.maxLength = Math.min(maxPositionEmbeddings, tokenizer.modelMaxLength ?? maxPositionEmbeddings)
    this.#batchTokens = batchTokens
  }

  /** A way to run sequences through the model; everything that is submitted to it shares passes. */
  gathered<Output>(run: RunBatch<Output>): Submit<Output> {
    const gathering = new Gathering(run, this.#batchTokens)
    this.#gatherings.push(gathering as Gathering<unknown>)
    return (sequences) => {
      this.#refuseDisposed()
      return gathering.submit(sequences)
    }
  }

  /** One result an input, in order. Long lists are worked on in pieces, so that memory and the event loop stay free. */
  async map<Input, Result>(
    inputs: readonly Input[],
    one: (input: Input, index: number) => Promise<Result>,
  ): Promise<Result[]> {
    this.#refuseDisposed()
    const results = new Array<Result>(inputs.length)
    let next = 0
    const work = async (): Promise<void> => {
      while (next < inputs.length) {
        const index = next++
        try {
          results[index] = await one(inputs[index] as Input, index)
        } catch (error) {
          next = inputs.length
          throw error
        }
      }
    }
    await Promise.all(Array.from({ length: Math.min(inWork, inputs.length) }, work))
    return results
  }

  /** One input's result, or a list's. */
  async each<Input, Result>(
    inputs: Input | readonly Input[],
    one: (input: Input, index: number) => Promise<Result>,
  ): Promise<Result | Result[]> {
    if (Array.isArray(inputs)) return this.map(inputs as readonly Input[], one)
    const [result] = await this.map([inputs as Input], one)
    return result as Result
  }

  /** A pipeline: its call, and what all have. */
  pipeline<Call extends object>(call: Call): Call & PipelineBase {
    const { task, model, tokenizer } = this
    const dispose = (): Promise<void> => {
      this.#disposal ??= this.#dispose()
      return this.#disposal
    }
    return Object.assign(call, { task, model, tokenizer, dispose, [Symbol.asyncDispose]: dispose })
  }

  #refuseDisposed(): void {
    if (this.#disposal === null) return
    throw new VoltaicError('ERR_DISPOSED', `${this.task}: the pipeline was disposed; open a new one`)
  }

  async #dispose(): Promise<void> {
    for (const gathering of this.#gatherings) await gathering.idle()
    this.model.dispose()
  }
}
