/** token-classification and replaced-token-detection: every token once, in its place in the text, in windows too. */
import fc from 'fast-check'
import t from 'tap'
import { ElectraForPreTraining, ElectraForTokenClassification, pipeline } from 'voltaic'
import { labels, saveModel, textOf, tokenizer } from './models.js'

/** Sums in double precision on both sides; the logits are the same bits, whatever the batch. */
const tolerance = 1e-12
const names = ['O', 'B-X', 'I-X', 'B-Y', 'I-Y']
const mixed = 'Ça a été  cooked，naïve 🚢 in 中文学 — the BOAT😀, e\u0301te\u0301 x²'

const plain = { addSpecialTokens: false, returnOffsetsMapping: true } as const

t.test('each token has the softmax of its logits, and offsets that slice the text', async (t) => {
  const folder = await saveModel(t, ElectraForTokenClassification, labels(...names))
  const model = await ElectraForTokenClassification.fromPretrained(folder, { device: 'cpu' })
  const rows = model.forward(tokenizer(mixed)).logits.toArray() as number[][]
  model.dispose()
  await using classify = await pipeline('token-classification', folder, { device: 'cpu' })
  const found = await classify(mixed, { ignore_labels: [] })
  const encoded = tokenizer(mixed, plain)
  const ids = encoded.inputIds[0]!
  const offsets = encoded.offsetsMapping![0]!
  t.equal(found.length, ids.length)
  found.forEach(({ entity, score, index, word, start, end }, i) => {
    const powers = rows[i + 1]!.map((logit) => Math.exp(logit))
    const best = powers.indexOf(Math.max(...powers))
    t.equal(index, i + 1)
    t.equal(entity, names[best])
    t.ok(Math.abs(score - powers[best]! / powers.reduce((sum, power) => sum + power)) < tolerance)
    t.equal(word, tokenizer.convertIdsToTokens(ids[i]!))
    t.same([start, end], [offsets[2 * i], offsets[2 * i + 1]])
  })
  const withoutO = await classify(mixed)
  t.same(
    withoutO,
    found.filter(({ entity }) => entity !== 'O'),
    'O is left out by default',
  )
  t.same(await classify([mixed, 'a']), [withoutO, await classify('a')], 'lists of texts give lists')
  t.same(await classify(''), [])

  for (const aggregation_strategy of ['simple', 'first', 'average', 'max'] as const) {
    const groups = await classify(mixed, { aggregation_strategy, ignore_labels: [] })
    t.ok(groups.length > 0)
    for (const { entity_group, word, start, end } of groups) {
      t.ok(['O', 'X', 'Y'].includes(entity_group))
      t.equal(word, mixed.slice(start, end))
    }
  }
  await t.rejects(classify('a', { aggregation_strategy: 'best' } as never), {
    code: 'ERR_ARGUMENT',
    message: /expected one of none, simple, first, average, max/,
  })
  await t.rejects(classify('a', { ignore_labels: 'O' } as never), { message: /ignore_labels/ })
})

t.test('words of any script and marks: the pieces in order cover what the tokenizer keeps', async (t) => {
  const folder = await saveModel(t, ElectraForTokenClassification, labels(...names))
  await using classify = await pipeline('ner', folder, { device: 'cpu' })
  const parts = ['é', 'ß', '中', '学', '😀', '👩‍👧', '🚢', 'red', ' ', '-', 'ﬁ', '\u0301', 'Å', '\u200d', '𝔘']
  await fc.assert(
    fc.asyncProperty(fc.array(fc.constantFrom(...parts), { maxLength: 60 }), async (pieces) => {
      const text = pieces.join('')
      const found = await classify(text, { ignore_labels: [], max_length: 12, stride: 3 })
      const offsets = tokenizer(text, plain).offsetsMapping![0]!
      return (
        found.length === offsets.length / 2 &&
        found.every(({ start, end }, i) => start === offsets[2 * i] && end === offsets[2 * i + 1])
      )
    }),
    { numRuns: 60 },
  )
})

t.test('a long text: each token from the window where it has most context', async (t) => {
  const folder = await saveModel(t, ElectraForPreTraining)
  const text = textOf(70)
  const encoded = tokenizer(text, { ...plain, maxLength: undefined })
  const ids = encoded.inputIds[0]!
  const [room, stride] = [18, 6]
  const starts = Array.from({ length: Math.ceil((ids.length - room) / (room - stride)) + 1 }, (_, w) => {
    return w * (room - stride)
  })
  const windows = starts.map((begin) => ids.subarray(begin, begin + room))
  const model = await ElectraForPreTraining.fromPretrained(folder, { device: 'cpu' })
  const scores = windows.map((window) => {
    const inputIds = [[tokenizer.clsTokenId, ...window, tokenizer.sepTokenId]]
    const logits = model.forward({ inputIds }).logits.toArray() as number[]
    return logits.slice(1, -1).map((logit) => 1 / (1 + Math.exp(-logit)))
  })
  model.dispose()

  await using detect = await pipeline('replaced-token-detection', folder, { device: 'cpu' })
  const found = await detect(text, { max_length: room + 2, stride })
  t.equal(found.length, ids.length)
  found.forEach(({ score, start, end, index, word }, token) => {
    const sides = windows.map(({ length }, w) => {
      const place = token - starts[w]!
      return Math.min(place, length - 1 - place) + 0.01 * length
    })
    const held = sides.map((side, w) =>
      token >= starts[w]! && token < starts[w]! + windows[w]!.length ? side : -1,
    )
    const window = held.indexOf(Math.max(...held))
    t.ok(Math.abs(score - scores[window]![token - starts[window]!]!) < tolerance, `token ${token}`)
    t.same([start, end], [...encoded.offsetsMapping![0]!.subarray(2 * token, 2 * token + 2)])
    t.equal(index, token + 1)
    t.equal(word, tokenizer.convertIdsToTokens(ids[token]!))
  })
  t.equal((await detect('the red boat')).length, 3)
  t.same(await detect(['a', '']), [await detect('a'), []])
})
