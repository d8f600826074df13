/**
 * `text-infilling`: the generator writes. It fills each [MASK] and each span that is named, a token at a time from the left, each
 * drawn with what was drawn before in view; further rounds take the tokens out again one by one, in another order, and draw them
 * anew (Gibbs sampling, as Wang and Cho, 2019, read a masked model). The same seed gives the same text.
 */
import { createDraws, type Draws, randomSite } from '../data/random.js'
import type { ElectraForMaskedLM } from '../electra/index.js'
import { softmax } from '../tasks/class-scores.js'
import { windowRound } from './fill-mask.js'
import { type Filling, type InfilledToken, infilledText } from './infilled-text.js'
import {
  checkOptionNames,
  numberOption,
  refuse,
  shown,
  textInput,
  topOption,
  wholeOption,
} from './options.js'
import { maskedLogits } from './outputs.js'
import { type SamplingSettings, sampleToken } from './sampling.js'
import type { PipelineBase, Session } from './session.js'
import {
  framingOf,
  type TextTokens,
  type TextWindow,
  tokensOf,
  type WindowOptions,
  windowRoom,
} from './windows.js'

export interface TextInfillingPipelineOptions extends Pick<WindowOptions, 'max_length'> {
  /** Parts of the text to write anew, [start, end) in UTF-16 units: every token that they touch. */
  readonly spans?: readonly (readonly [number, number])[] | undefined
  /** The chance of every other token to be taken out and drawn anew in a round. Default 0. */
  readonly mask_probability?: number | undefined
  /** Passes over what is to be filled. Default 1. */
  readonly rounds?: number | undefined
  /** 0 takes the best token always. Default 1. */
  readonly temperature?: number | undefined
  /** Draw from so many of the best tokens; null for all. Default 50. */
  readonly top_k?: number | null | undefined
  /** Draw from the best tokens that together have this probability. Default 1. */
  readonly top_p?: number | undefined
  /** Default 1. */
  readonly seed?: number | undefined
  /** Versions of each text. Default 1. */
  readonly num_return_sequences?: number | undefined
}

export interface InfilledText {
  readonly generated_text: string
  /** What was filled in, from left to right. */
  readonly tokens: InfilledToken[]
}

export interface TextInfillingPipeline extends PipelineBase {
  /** The versions of a text. */
  (text: string, options?: TextInfillingPipelineOptions): Promise<InfilledText[]>
  (texts: readonly string[], options?: TextInfillingPipelineOptions): Promise<InfilledText[][]>
}

type Spans = NonNullable<TextInfillingPipelineOptions['spans']>

interface Settings extends SamplingSettings {
  readonly spans: Spans
  readonly maskProbability: number
  readonly rounds: number
  readonly seed: number
  readonly versions: number
}

const optionNames = [
  'spans',
  'mask_probability',
  'rounds',
  'temperature',
  'top_k',
  'top_p',
  'seed',
  'num_return_sequences',
  'max_length',
]

/** Versions of a text have numbers of their own; this many at most. */
const mostVersions = 2 ** 20

function settingsOf(task: string, options: TextInfillingPipelineOptions): Settings {
  checkOptionNames(task, options, optionNames)
  const { spans = [] } = options
  const isSpan = (span: unknown): boolean =>
    Array.isArray(span) && span.length === 2 && span.every(Number.isInteger) && span[0] < span[1]
  const wrong = Array.isArray(spans) ? spans.find((span) => !isSpan(span)) : spans
  if (wrong !== undefined) refuse(task, `spans: ${shown(wrong)}; expected [start, end] with start before end`)
  const versions = wholeOption(task, 'num_return_sequences', options.num_return_sequences, 1, 1)
  if (versions > mostVersions)
    refuse(task, `num_return_sequences is ${versions}; expected at most ${mostVersions}`)
  const topP = numberOption(task, 'top_p', options.top_p, [0, 1], 1)
  if (topP === 0) refuse(task, 'top_p is 0; expected a number above 0, at most 1')
  return {
    spans,
    maskProbability: numberOption(task, 'mask_probability', options.mask_probability, [0, 1], 0),
    rounds: wholeOption(task, 'rounds', options.rounds, 1, 1),
    temperature: numberOption(task, 'temperature', options.temperature, [0, Number.POSITIVE_INFINITY], 1),
    topK: topOption(task, options.top_k, 50),
    topP,
    seed: wholeOption(task, 'seed', options.seed, 0, 1),
    versions,
  }
}

/** The tokens that are filled in every round: masks, and those that a span touches. */
function tokensToFill({ ids, offsets }: TextTokens, mask: number, spans: Spans): number[] {
  return [...ids.keys()].filter((place) => {
    const start = offsets[2 * place] as number
    const end = offsets[2 * place + 1] as number
    return ids[place] === mask || spans.some(([from, to]) => start < to && end > from)
  })
}

/** In another order (Fisher and Yates). */
function shuffled(places: readonly number[], draws: Draws): number[] {
  const order = [...places]
  for (let last = order.length - 1; last > 0; last--) {
    const other = draws.integer(0, last)
    const moved = order[last] as number
    order[last] = order[other] as number
    order[other] = moved
  }
  return order
}

/** Whether a place begins a word behind text that stays: a continuation there would grow onto the word before. */
function standsAlone(
  { text, offsets }: TextTokens,
  place: number,
  fillings: ReadonlyMap<number, Filling>,
): boolean {
  if (place === 0) return true
  const start = offsets[2 * place] as number
  return (
    !fillings.has(place - 1) &&
    start > (offsets[2 * place - 1] as number) &&
    /\s/u.test(text.slice(start - 1, start))
  )
}

export function createTextInfilling(session: Session<ElectraForMaskedLM>): TextInfillingPipeline {
  const { task, model, tokenizer } = session
  const framing = framingOf(tokenizer)
  const submit = session.gathered(maskedLogits(model))
  const mask = tokenizer.maskTokenId
  const { continuationPrefix: prefix } = tokenizer.specification
  const ids = Int32Array.from({ length: model.config.vocabSize }, (_, id) => id)
  /** Special tokens and unused places of the vocabulary are never drawn. */
  const never = ids.filter((id) => {
    const word = tokenizer.vocabulary[id] ?? ''
    return word === '' || tokenizer.specialTokenIds.includes(id) || /^\[unused\d+\]$/.test(word)
  })
  const continuations = ids.filter((id) => prefix !== '' && tokenizer.vocabulary[id]?.startsWith(prefix))

  /** Draws a token for a place. @param startsWord whether it may not go on with the word before */
  async function draw(
    window: TextWindow,
    startsWord: boolean,
    settings: Settings,
    draws: Draws,
  ): Promise<{ readonly id: number; readonly score: number }> {
    const [logits] = (await submit([window])) as [Float32Array]
    const allowed = logits.slice()
    for (const id of never) allowed[id] = Number.NEGATIVE_INFINITY
    if (startsWord) for (const id of continuations) allowed[id] = Number.NEGATIVE_INFINITY
    const id = sampleToken(allowed, settings, draws.uniform())
    return { id, score: softmax(logits)[id] as number }
  }

  async function version(
    tokens: TextTokens,
    settings: Settings,
    room: number,
    number: number,
  ): Promise<InfilledText> {
    const draws = createDraws(settings.seed, randomSite.infilling, number)
    const ids = tokens.ids.slice()
    const always = new Set(tokensToFill(tokens, mask, settings.spans))
    const others = [...ids.keys()].filter((place) => !always.has(place))
    const fillings = new Map<number, Filling>()
    for (let round = 0; round < settings.rounds; round++) {
      const sometimes = others.filter(() => draws.uniform() < settings.maskProbability)
      const places = [...always, ...sometimes].sort((a, b) => a - b)
      if (round === 0) for (const place of places) ids[place] = mask
      for (const place of round === 0 ? places : shuffled(places, draws)) {
        ids[place] = mask
        const window = windowRound(framing, ids, place, room)
        const { id, score } = await draw(window, standsAlone(tokens, place, fillings), settings, draws)
        ids[place] = id
        fillings.set(place, { word: tokenizer.convertIdsToTokens(id), score })
      }
    }
    const { text, tokens: filled } = infilledText(tokens, fillings, prefix, framing.before.length)
    return { generated_text: text, tokens: filled }
  }

  async function call(
    inputs: string | readonly string[],
    options: TextInfillingPipelineOptions = {},
  ): Promise<object> {
    const settings = settingsOf(task, options)
    const { room } = windowRoom(session, framing.before.length + framing.after.length, options)
    return session.each(inputs, (input, index) => {
      const tokens = tokensOf(tokenizer, textInput(task, 'the text', input))
      if (settings.maskProbability === 0 && tokensToFill(tokens, mask, settings.spans).length === 0) {
        refuse(
          task,
          `nothing to fill in ${JSON.stringify(input.slice(0, 80))}; put ${tokenizer.specification.maskToken} where words are wanted, ` +
            'name spans, or set mask_probability',
        )
      }
      const first = index * settings.versions
      return session.map(
        Array.from({ length: settings.versions }, (_, number) => first + number),
        (number) => version(tokens, settings, room, number),
      )
    })
  }
  return session.pipeline(call) as TextInfillingPipeline
}
