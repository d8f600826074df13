/**
 * Entities as spans of words, and as tags: BIO (B- opens, I- goes on) and BIOES (E- closes, S- is a whole one).
 *
 * Spans are read as seqeval's default mode and the conlleval script of CoNLL-2000 read them, also from tags that no scheme allows:
 * an I- without a B- opens a span, and a change of type always parts two.
 */
import { VoltaicError } from '../runtime/errors.js'

/** An entity: words `start` to `end`, both included. */
export interface EntitySpan {
  readonly type: string
  readonly start: number
  readonly end: number
}

/** Whether a span that was open at the tag before ends before this one. */
function ends(before: string, now: string): boolean {
  if (before === 'E' || before === 'S') return true
  return (before === 'B' || before === 'I') && (now === 'B' || now === 'S' || now === 'O')
}

function starts(before: string, now: string): boolean {
  if (now === 'B' || now === 'S') return true
  return (before === 'E' || before === 'S' || before === 'O') && (now === 'E' || now === 'I')
}

const isOutside = (tag: string): boolean => tag === 'O' || tag === '.'

/**
 * The entities of one sentence.
 * @throws ERR_ARGUMENT for an empty tag
 */
export function entitySpans(tags: readonly string[]): EntitySpan[] {
  const spans: EntitySpan[] = []
  let before = 'O'
  let typeBefore = ''
  let start = 0
  for (const [index, tag] of [...tags, 'O'].entries()) {
    const now = tag[0]
    if (now === undefined)
      throw new VoltaicError('ERR_ARGUMENT', `tag ${index} is empty, expected O or B-TYPE`)
    // Behind the first dash after the letter, or without one all behind the letter: bare B and I are of one type, _.
    const rest = tag.slice(1)
    const type = rest.slice(rest.indexOf('-') + 1) || '_'
    const changed = type !== typeBefore
    if (ends(before, now) || (!isOutside(before) && changed)) {
      spans.push({ type: typeBefore, start, end: index - 1 })
    }
    if (starts(before, now) || (!isOutside(now) && changed)) start = index
    before = now
    typeBefore = type
  }
  return spans
}

export type TagScheme = 'BIO' | 'BIOES'

/**
 * The tags of a sentence's entities, which must not overlap: `entitySpans` of them gives the spans again.
 * @param words the number of words
 */
export function tagsOfSpans(spans: readonly EntitySpan[], words: number, scheme: TagScheme): string[] {
  const tags = new Array<string>(words).fill('O')
  for (const { type, start, end } of spans) {
    const free = tags[start] !== undefined && tags.slice(start, end + 1).every((tag) => tag === 'O')
    if (!free || end < start || end >= words) {
      throw new VoltaicError(
        'ERR_ARGUMENT',
        `the entity ${type} at words ${start} to ${end} overlaps another or leaves the ${words} words`,
      )
    }
    const single = start === end
    tags[start] = `${scheme === 'BIOES' && single ? 'S' : 'B'}-${type}`
    tags.fill(`I-${type}`, start + 1, end + 1)
    if (scheme === 'BIOES' && !single) tags[end] = `E-${type}`
  }
  return tags
}
