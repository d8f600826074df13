/** `replaced-token-detection`: for each token the discriminator's probability that it was put there by something that guesses. */
import type { ElectraForPreTraining } from '../electra/index.js'
import { sigmoid } from '../tasks/class-scores.js'
import { checkOptionNames, textInput } from './options.js'
import { replacedLogits } from './outputs.js'
import type { PipelineBase, Session } from './session.js'
import { bestPlaces, textWindows, tokensOf, type WindowOptions, windowOptionNames } from './windows.js'

export interface DetectedToken {
  /** Its place in the row, [CLS] included. */
  readonly index: number
  /** The piece as in the vocabulary. */
  readonly word: string
  /** The probability that it was replaced. */
  readonly score: number
  /** Its place in the text, in UTF-16 units. */
  readonly start: number
  readonly end: number
}

export interface ReplacedTokenDetectionPipeline extends PipelineBase {
  (text: string, options?: WindowOptions): Promise<DetectedToken[]>
  (texts: readonly string[], options?: WindowOptions): Promise<DetectedToken[][]>
}

export function createReplacedTokenDetection(
  session: Session<ElectraForPreTraining>,
): ReplacedTokenDetectionPipeline {
  const { task, tokenizer } = session
  const submit = session.gathered(replacedLogits(session.model))

  async function detect(text: string, options: WindowOptions): Promise<DetectedToken[]> {
    const tokens = tokensOf(tokenizer, textInput(task, 'the text', text))
    const windows = textWindows(session, tokens, options)
    const logits = await submit(windows)
    return bestPlaces(windows).map(({ window, place }, token) => ({
      index: (windows[0]?.first ?? 0) + token,
      word: tokenizer.convertIdsToTokens(tokens.ids[token] as number),
      score: sigmoid(logits[window]?.[place] as number),
      start: tokens.offsets[2 * token] as number,
      end: tokens.offsets[2 * token + 1] as number,
    }))
  }

  async function call(inputs: string | readonly string[], options: WindowOptions = {}): Promise<object> {
    checkOptionNames(task, options, windowOptionNames)
    return session.each(inputs, (text) => detect(text, options))
  }
  return session.pipeline(call) as ReplacedTokenDetectionPipeline
}
