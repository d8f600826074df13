/** Aggregation of labelled tokens, by hand and by its laws. */
import fc from 'fast-check'
import t from 'tap'
import { type AggregationStrategy, aggregateEntities, type ScoredToken } from '../../dist/tasks/index.js'

const labels = ['O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC']

/** Scores with so much on one label and the rest on the others alike. */
const scores = (label: string, score: number, names: readonly string[] = labels): Float64Array =>
  Float64Array.from(names, (name) => (name === label ? score : (1 - score) / (names.length - 1)))

/** Tokens of pieces, found in the text one behind the other. */
function tokensOf(
  text: string,
  pieces: readonly (readonly [word: string, label: string, score: number, surface?: string])[],
  names: readonly string[] = labels,
): ScoredToken[] {
  let end = 0
  return pieces.map(([word, label, score, surface = word.replace(/^##/, '')], at) => {
    const start = text.indexOf(surface, end)
    if (start < 0) throw new Error(`${surface} is not in the text behind ${end}`)
    end = start + surface.length
    return {
      index: at + 1,
      word,
      start,
      end,
      isSubword: word.startsWith('##'),
      scores: scores(label, score, names),
    }
  })
}

const text = 'Ünal Møller met Zoë in São Paulo'
const tokens = tokensOf(text, [
  ['un', 'B-PER', 0.9, 'Ün'],
  ['##al', 'I-LOC', 0.8],
  ['moller', 'I-PER', 0.7, 'Møller'],
  ['met', 'O', 0.9],
  ['zoe', 'B-PER', 0.6, 'Zoë'],
  ['in', 'O', 0.9],
  ['sa', 'B-LOC', 0.5, 'Sã'],
  ['##o', 'B-PER', 0.6],
  ['paulo', 'I-LOC', 0.8, 'Paulo'],
])

/** What the strategy finds, with scores to 12 places. */
const found = (strategy: AggregationStrategy, ...rest: [(readonly string[])?]) =>
  aggregateEntities(tokens, strategy, text, labels, ...rest).map((entity) => ({
    ...entity,
    score: Number(entity.score.toFixed(12)),
  }))

t.test('none: every token that is not O, the piece as its word', async (t) => {
  const entities = found('none')
  t.same(entities[0], { entity: 'B-PER', score: 0.9, index: 1, word: 'un', start: 0, end: 2 })
  t.same(
    entities.map((entity) => ('entity' in entity ? `${entity.entity} ${entity.word}` : '')),
    ['B-PER un', 'I-LOC ##al', 'I-PER moller', 'B-PER zoe', 'B-LOC sa', 'B-PER ##o', 'I-LOC paulo'],
  )
  t.equal(found('none', []).length, tokens.length, 'nothing ignored')
  t.equal(found('none', ['B-PER']).length, tokens.length - 3)
})

const groups = (strategy: AggregationStrategy) =>
  found(strategy).map((group) =>
    'entity_group' in group ? `${group.entity_group} ${group.word} ${group.score}` : '',
  )

t.test('simple: neighbours of one type, words as they stand in the text', async (t) => {
  t.same(groups('simple'), [
    'PER Ün 0.9',
    'LOC al 0.8',
    'PER Møller 0.7',
    'PER Zoë 0.6',
    'LOC Sã 0.5',
    'PER o 0.6',
    'LOC Paulo 0.8',
  ])
  t.same(Object.keys(found('simple')[0] ?? {}), ['entity_group', 'score', 'word', 'start', 'end'])
})

t.test('first, average and max: a word has one label', async (t) => {
  // The means of words: 0.9 and 0.7; then 0.5 and 0.8.
  t.same(groups('first'), ['PER Ünal Møller 0.8', 'PER Zoë 0.6', 'LOC São Paulo 0.65'])
  // Ünal has (0.9 + 0.05) / 2. Of São: B-PER has 0.6 in one token and 0.125 in the other, more than B-LOC with 0.5 and 0.1; B-PER and I-LOC part.
  t.same(groups('average'), ['PER Ünal Møller 0.5875', 'PER Zoë 0.6', 'PER São 0.3625', 'LOC Paulo 0.8'])
  t.same(groups('max'), ['PER Ünal Møller 0.8', 'PER Zoë 0.6', 'PER São 0.6', 'LOC Paulo 0.8'])
})

t.test('B opens, I goes on whatever stood before it, and a type without a prefix goes on', async (t) => {
  const grouped = (tags: readonly string[], names: readonly string[]) => {
    const words = tags.map((_, at) => String.fromCharCode(97 + at))
    const line = words.join(' ')
    const all = tokensOf(
      line,
      words.map((word, at) => [word, tags[at]!, 0.9]),
      names,
    )
    return aggregateEntities(all, 'simple', line, names).map((group) =>
      'entity_group' in group ? `${group.entity_group}:${group.word}` : '',
    )
  }
  t.same(grouped(['B-PER', 'B-PER', 'I-PER', 'O', 'I-PER', 'I-LOC'], labels), [
    'PER:a',
    'PER:b c',
    'PER:e',
    'LOC:f',
  ])
  const ofFive = ['O', 'B-X', 'I-X', 'E-X', 'S-X', 'S-Y']
  t.same(grouped(['B-X', 'I-X', 'E-X', 'I-X', 'S-X', 'S-X', 'S-Y', 'O', 'E-X', 'B-X'], ofFive), [
    'X:a b c',
    'X:d',
    'X:e',
    'X:f',
    'Y:g',
    'X:i',
    'X:j',
  ])
  const plain = ['O', 'NOUN', 'WH-ADV']
  t.same(grouped(['NOUN', 'NOUN', 'WH-ADV', 'O', 'NOUN'], plain), ['NOUN:a b', 'WH-ADV:c', 'NOUN:e'])
})

t.test('laws: groups cover the tokens in order, slice the text, and score between 0 and 1', async () => {
  const piece = fc.record({
    surface: fc.constantFrom('a', 'é', '東', '😀', 'x1'),
    space: fc.boolean(),
    subword: fc.boolean(),
    scores: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 5, maxLength: 5 }),
  })
  const strategies = fc.constantFrom<AggregationStrategy>('simple', 'first', 'average', 'max')
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), strategies, (pieces, strategy) => {
      let line = ''
      const all = pieces.map(({ surface, space, subword, scores }, at): ScoredToken => {
        if (space) line += ' '
        const start = line.length
        line += surface
        return {
          index: at + 1,
          word: surface,
          start,
          end: line.length,
          isSubword: subword,
          scores: Float64Array.from(scores),
        }
      })
      const entities = aggregateEntities(all, strategy, line, labels, [])
      let next = 0
      for (const { word, start, end, score } of entities) {
        if (word !== line.slice(start, end)) return false
        if (start !== all[next]?.start || !(score >= 0 && score <= 1)) return false
        while (all[next] !== undefined && (all[next] as ScoredToken).end <= end) next += 1
      }
      return next === all.length
    }),
  )
})

t.test('what does not fit is refused', async (t) => {
  t.throws(() => aggregateEntities(tokens, 'last' as never, text, labels), {
    code: 'ERR_ARGUMENT',
    message: /strategy is 'last', expected one of none, simple, first, average, max/,
  })
  t.throws(() => aggregateEntities(tokens, 'none', text, labels.slice(1)), {
    code: 'ERR_ARGUMENT',
    message: /token 1 has 5 scores for 4 labels/,
  })
  t.same(aggregateEntities([], 'average', '', labels), [])
})
