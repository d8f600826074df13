/**
 * Training batches of several languages. Each has its own order and epochs; which one the next segment is of is drawn. A language of
 * longer segments is drawn less often, so that the tokens have the shares that were asked for:
 *
 *   P(language) proportional to share / mean tokens of its segments
 *
 * A segment that a batch cuts goes on in the next one, whatever is drawn afterwards. Draw n is a function of (seed, n).
 */
import { VoltaicError } from '../runtime/errors.js'
import {
  assertBudget,
  type BatchState,
  type BatchStream,
  type Cursor,
  createAssembler,
  type LanguageState,
} from './batches.js'
import type { LanguageSegments } from './languages.js'
import { createDraws, createPermutation, randomSite, seedKey } from './random.js'
import type { Segments } from './segments.js'

export interface LanguageStreamOptions {
  readonly languages: readonly LanguageSegments[]
  /** The budget in sequences of full length. */
  readonly batchSize: number
  /** Decides the orders and the draws. */
  readonly seed: number
  /** Go on from here. Default: the beginning. */
  readonly state?: BatchState | undefined
}

/** A language's walk through its segments. */
class Walk {
  #epoch: number
  #position: number
  #order: (place: number) => number

  constructor(
    readonly segments: Segments,
    readonly seed: number,
    { epoch, position }: LanguageState,
  ) {
    this.#epoch = epoch
    this.#position = position
    this.#order = createPermutation(segments.count, seed, epoch)
  }

  get state(): LanguageState {
    return { epoch: this.#epoch, position: this.#position, segments: this.segments.count }
  }

  get segment(): number {
    return this.#order(this.#position)
  }

  advance(): void {
    this.#position += 1
    if (this.#position < this.segments.count) return
    this.#epoch += 1
    this.#position = 0
    this.#order = createPermutation(this.segments.count, this.seed, this.#epoch)
  }
}

function assertState(state: BatchState, languages: readonly LanguageSegments[]): void {
  const saved = state.languages
  const fits =
    saved?.parts.length === languages.length &&
    saved.parts.every(({ segments }, at) => segments === languages[at]?.segments.count)
  if (!fits) {
    throw new VoltaicError(
      'ERR_FORMAT',
      'the saved place in the data is not of these languages: it is not the data of the run that is resumed',
    )
  }
  const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 0
  const whole =
    isCount(saved.draws) &&
    isCount(saved.current) &&
    saved.current < languages.length &&
    isCount(state.offset) &&
    state.offset < (languages[0]?.segments.sequenceLength ?? 0) &&
    saved.parts.every(
      ({ epoch, position, segments }) => isCount(epoch) && isCount(position) && position < segments,
    )
  if (!whole) {
    throw new VoltaicError('ERR_FORMAT', `the saved place in the data is damaged: ${JSON.stringify(state)}`)
  }
}

/** The probabilities of a draw, added up. */
function cumulated(languages: readonly LanguageSegments[]): number[] {
  const weights = languages.map(
    ({ share, segments: { totalTokens, count } }) => (share * count) / totalTokens,
  )
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  let sum = 0
  return weights.map((weight) => {
    sum += weight / total
    return sum
  })
}

/**
 * Opens the stream of training batches, at the beginning or at `state`. A batch's epoch is the least of its languages'.
 * @throws ERR_ARGUMENT for a bad batch size or seed or a language without a segment, ERR_FORMAT for a state that does not fit
 */
export function createLanguageBatchStream(options: LanguageStreamOptions): BatchStream {
  const { languages, batchSize, seed, state } = options
  const budgets = languages.map(({ segments }) => assertBudget({ segments, batchSize }))
  const [first] = languages
  if (first === undefined) throw new VoltaicError('ERR_ARGUMENT', 'there is no language to make batches of')
  seedKey(seed)
  if (state !== undefined) assertState(state, languages)
  const bounds = cumulated(languages)
  const draws = createDraws(seed, randomSite.languages)
  let drawn = state?.languages?.draws ?? 0
  const draw = (): number => {
    draws.restart(drawn++)
    const number = draws.uniform()
    const found = bounds.findIndex((bound) => number < bound)
    return found < 0 ? languages.length - 1 : found
  }
  const walks = languages.map(
    ({ segments }, at) =>
      new Walk(
        segments,
        seed,
        state?.languages?.parts[at] ?? { epoch: 0, position: 0, segments: segments.count },
      ),
  )
  let current = state?.languages?.current ?? draw()
  const walk = (): Walk => walks[current] as Walk
  const cursor: Cursor = {
    offset: state?.offset ?? 0,
    read(content) {
      walk().segments.read(walk().segment, content)
      return true
    },
    advance() {
      walk().advance()
      current = draw()
    },
  }
  const assemble = createAssembler(first.segments, budgets[0] as number)
  const epoch = (): number => Math.min(...walks.map((one) => one.state.epoch))
  return {
    get state() {
      const parts = walks.map((one) => one.state)
      return {
        epoch: epoch(),
        position: walk().state.position,
        offset: cursor.offset,
        segments: parts.reduce((sum, { segments }) => sum + segments, 0),
        languages: { draws: drawn, current, parts },
      }
    },
    next: () => assemble(cursor, epoch()),
  }
}
