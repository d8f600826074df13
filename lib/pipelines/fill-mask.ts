/** `fill-mask`: the generator's best tokens for each [MASK]. */
import type { ElectraForMaskedLM } from '../electra/index.js'
import { softmax } from '../tasks/class-scores.js'
import { checkOptionNames, refuse, textInput, topOption } from './options.js'
import { maskedLogits } from './outputs.js'
import { largest } from './sampling.js'
import type { PipelineBase, Session } from './session.js'
import {
  type Framing,
  framed,
  framingOf,
  type TextWindow,
  tokensOf,
  type WindowOptions,
  windowRoom,
} from './windows.js'

export interface FillMaskPipelineOptions extends Pick<WindowOptions, 'max_length'> {
  /** Tokens for each mask, the best first. Default 5; null for the whole vocabulary. */
  readonly top_k?: number | null | undefined
}

export interface FilledMask {
  readonly score: number
  /** The token's id. */
  readonly token: number
  readonly token_str: string
  /** The text with the token filled in, as `decode` gives it; other masks stay. */
  readonly sequence: string
}

export interface FillMaskPipeline extends PipelineBase {
  /** A list; of a text with several masks, a list for each mask. */
  (text: string, options?: FillMaskPipelineOptions): Promise<FilledMask[] | FilledMask[][]>
  /** The same for each text. */
  (texts: readonly string[], options?: FillMaskPipelineOptions): Promise<(FilledMask[] | FilledMask[][])[]>
}

/** The row with `room` tokens round a place, as much on either side as there is. */
export function windowRound(framing: Framing, ids: Int32Array, place: number, room: number): TextWindow {
  const begin = Math.max(0, Math.min(place - Math.floor(room / 2), ids.length - room))
  const window = framed(framing, ids, begin, Math.min(ids.length, begin + room))
  return { ...window, maskedPositions: Int32Array.of(window.first + place - begin) }
}

export function createFillMask(session: Session<ElectraForMaskedLM>): FillMaskPipeline {
  const { task, model, tokenizer } = session
  const framing = framingOf(tokenizer)
  const submit = session.gathered(maskedLogits(model))

  async function fill(input: string, most: number, options: FillMaskPipelineOptions) {
    const { ids } = tokensOf(tokenizer, textInput(task, 'the text', input))
    const { room } = windowRoom(session, framing.before.length + framing.after.length, options)
    const masks = [...ids.keys()].filter((place) => ids[place] === tokenizer.maskTokenId)
    if (masks.length === 0) {
      const { maskToken } = tokenizer.specification
      refuse(task, `no ${maskToken} in ${JSON.stringify(input.slice(0, 80))}; put one where a word is wanted`)
    }
    const { vocabSize } = model.config
    const whole = {
      ...framed(framing, ids, 0, ids.length),
      maskedPositions: Int32Array.from(masks, (place) => framing.before.length + place),
    }
    const logits =
      ids.length <= room
        ? (await submit([whole])).flatMap((row) =>
            masks.map((_, mask) => row.subarray(mask * vocabSize, (mask + 1) * vocabSize)),
          )
        : await submit(masks.map((place) => windowRound(framing, ids, place, room)))
    const filled = masks.map((place, mask) => {
      const scores = softmax(logits[mask] as Float32Array)
      return largest(scores, most).map((token): FilledMask => {
        const sequence = tokenizer.decode(ids.with(place, token), { skipSpecialTokens: masks.length === 1 })
        return {
          score: scores[token] as number,
          token,
          token_str: tokenizer.convertIdsToTokens(token),
          sequence,
        }
      })
    })
    return masks.length === 1 ? (filled[0] as FilledMask[]) : filled
  }

  async function call(
    inputs: string | readonly string[],
    options: FillMaskPipelineOptions = {},
  ): Promise<object> {
    checkOptionNames(task, options, ['top_k', 'max_length'])
    const most = topOption(task, options.top_k, 5)
    return session.each(inputs, (text) => fill(text, most, options))
  }
  return session.pipeline(call) as FillMaskPipeline
}
