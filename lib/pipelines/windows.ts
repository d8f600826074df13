/**
 * Texts as rows for the model: one row where a text fits, else windows that overlap. Special tokens stand around each window as the
 * tokenizer has them.
 */
import { type TokenRange, windowWithMostContext } from '../tasks/windows.js'
import type { Template, Tokenizer } from '../text/index.js'
import { cut } from '../text/truncation.js'
import type { Sequence } from './gathering.js'
import { refuse, wholeOption } from './options.js'
import type { Session } from './session.js'

/** Options of the pipelines that take long texts. */
export interface WindowOptions {
  /** Tokens of a window at most, special tokens included. Default: all that the model has positions for. */
  readonly max_length?: number | undefined
  /** Tokens that a window shares with the one before. Default: a quarter of what fits. */
  readonly stride?: number | undefined
}

export const windowOptionNames: readonly string[] = ['max_length', 'stride']

/** The tokens of a text, without special tokens. */
export interface TextTokens {
  readonly text: string
  readonly ids: Int32Array
  /** [start, end) of each token, two numbers a token, in UTF-16 units. */
  readonly offsets: Int32Array
  readonly words: Int32Array
}

/** A row with tokens [begin, end) of a text. */
export interface TextWindow extends Sequence, TokenRange {
  /** Where in the row the first of them stands. */
  readonly first: number
}

/** The special tokens before and after a single text. */
export interface Framing {
  readonly before: Int32Array
  readonly after: Int32Array
  /** The token type of the text and of what stands around it. */
  readonly types: { readonly before: Int32Array; readonly text: number; readonly after: Int32Array }
}

export function framingOf(tokenizer: Tokenizer): Framing {
  const { single } = tokenizer.specification.template
  const place = single.findIndex((piece) => 'sequence' in piece)
  const ids = (pieces: Template['single']): Int32Array =>
    Int32Array.from(pieces, (piece) => tokenizer.convertTokensToIds('token' in piece ? piece.token : ''))
  const types = (pieces: Template['single']): Int32Array => Int32Array.from(pieces, ({ type }) => type)
  const [before, after] = [single.slice(0, place), single.slice(place + 1)]
  return {
    before: ids(before),
    after: ids(after),
    types: { before: types(before), text: single[place]?.type ?? 0, after: types(after) },
  }
}

/** The row of tokens [begin, end) with the special tokens around them. */
export function framed(framing: Framing, ids: Int32Array, begin: number, end: number): TextWindow {
  const { before, after, types } = framing
  const length = before.length + (end - begin) + after.length
  const inputIds = new Int32Array(length)
  const tokenTypeIds = new Int32Array(length).fill(types.text)
  inputIds.set(before)
  inputIds.set(ids.subarray(begin, end), before.length)
  inputIds.set(after, length - after.length)
  tokenTypeIds.set(types.before)
  tokenTypeIds.set(types.after, length - after.length)
  return { inputIds, tokenTypeIds, begin, end, first: before.length }
}

export function tokensOf(tokenizer: Tokenizer, text: string): TextTokens {
  const { inputIds, offsetsMapping, wordIds } = tokenizer(text, {
    addSpecialTokens: false,
    returnOffsetsMapping: true,
    returnWordIds: true,
  })
  const none = new Int32Array(0)
  return {
    text,
    ids: inputIds[0] ?? none,
    offsets: offsetsMapping?.[0] ?? none,
    words: wordIds?.[0] ?? none,
  }
}

/** Tokens of a text that a window holds, and how many it shares. @throws ERR_ARGUMENT when the options leave no room */
export function windowRoom(
  { task, maxLength }: Session,
  special: number,
  options: WindowOptions,
): { readonly most: number; readonly room: number; readonly stride: number } {
  const most = wholeOption(task, 'max_length', options.max_length, special + 1, maxLength)
  if (most > maxLength) refuse(task, `max_length is ${most}; the model takes ${maxLength} tokens at most`)
  const room = most - special
  const stride = wholeOption(task, 'stride', options.stride, 0, Math.floor(room / 4))
  if (stride >= room)
    refuse(task, `stride is ${stride}; expected less than the ${room} tokens that a window holds`)
  return { most, room, stride }
}

/** The windows of a text; one where it fits. */
export function textWindows(session: Session, tokens: TextTokens, options: WindowOptions): TextWindow[] {
  const framing = framingOf(session.tokenizer)
  const { room, stride } = windowRoom(session, framing.before.length + framing.after.length, options)
  const { kept, overflow } = cut(tokens.ids.length, room, stride)
  return [kept, ...overflow].map(([begin, end]) => framed(framing, tokens.ids, begin, end))
}

/** The windows of two texts: what does not fit of the longer one, or of both, is cut into windows, each with each. */
export function pairWindows(
  session: Session,
  pair: readonly [string, string],
  options: WindowOptions,
): Sequence[] {
  const { tokenizer } = session
  const special = tokenizer.specification.template.pair.filter((piece) => 'token' in piece).length
  const { most, room, stride } = windowRoom(session, special + 1, options)
  // A text that is cut keeps half of the room at least.
  const shared = Math.min(stride, Math.max(0, Math.floor(room / 2) - 1))
  const { inputIds, tokenTypeIds } = tokenizer([pair], {
    maxLength: most,
    truncation: 'longest_first',
    stride: shared,
    returnOverflowingTokens: true,
  })
  return inputIds.map((ids, row) => ({ inputIds: ids, tokenTypeIds: tokenTypeIds[row] as Int32Array }))
}

/** For each token of a text the window in which it has most context, and its place in that row. */
export function bestPlaces(
  windows: readonly TextWindow[],
): { readonly window: number; readonly place: number }[] {
  // Windows ascend, so those that hold a token stand together: what comes before and after is not looked at, in a long text most.
  let from = 0
  let to = 0
  return Array.from({ length: windows.at(-1)?.end ?? 0 }, (_, token) => {
    while ((windows[from] as TextWindow).end <= token) from++
    while (to < windows.length && (windows[to] as TextWindow).begin <= token) to++
    const window = from + windowWithMostContext(windows.slice(from, to), token)
    const { first, begin } = windows[window] as TextWindow
    return { window, place: first + token - begin }
  })
}
