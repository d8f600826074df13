/** Vocabulary training: the worked example, reproducibility, the alphabet's limit, and what is refused. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import t from 'tap'
import { trainVocabulary } from '../../dist/text/index.js'
import { needsSharedData, sharedData } from '../helpers/shared.js'

const counted = { hug: 10, pug: 5, pun: 12, bun: 4, hugs: 5 }
const words = Object.entries(counted).flatMap(([word, count]) => Array<string>(count).fill(word))
const special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']

t.test('the worked example: 23 tokens, merges by count, a tie to the smaller pair', async (t) => {
  t.same(await trainVocabulary(words, { vocabularySize: 40 }), [
    ...special,
    ...['b', 'g', 'h', 'n', 'p', 's', 'u'],
    ...['##g', '##n', '##s', '##u'],
    ...['##ug', '##un', 'hug', 'pun', 'pug', 'hugs', 'bun'],
  ])
  t.same((await trainVocabulary(words, { vocabularySize: 20 })).slice(16), ['##ug', '##un', 'hug', 'pun'])
  t.equal((await trainVocabulary(words, { vocabularySize: 40, minFrequency: 6 })).length, 20)
})

t.test('a token that two merges make has one id', async (t) => {
  const vocabulary = await trainVocabulary(['aaaa', 'aaa', 'aa', 'aaaa aaaaa'], {
    vocabularySize: 30,
    minFrequency: 1,
  })
  t.equal(new Set(vocabulary).size, vocabulary.length)
  t.ok(vocabulary.includes('aaaaa'))
})

t.test('options of normalization, special tokens and the alphabet', async (t) => {
  const texts = ['Café CAFÉ 東京', 'aab aab ab']
  const tokens = async (options: object): Promise<string[]> =>
    (
      await trainVocabulary(texts, { vocabularySize: 12, minFrequency: 100, specialTokens: [], ...options })
    ).sort()
  t.same(await tokens({}), ['##a', '##b', '##e', '##f', 'a', 'b', 'c', 'e', 'f', '東', '京'].sort())
  t.ok((await tokens({ lowercase: false })).includes('É'.replace('É', '##É')), 'cased keeps accents')
  t.same(await tokens({ limitAlphabet: 2 }), ['##a', '##b', 'a', 'b'], 'the most frequent characters stay')
  t.same(await tokens({ limitAlphabet: 2, specialTokens: ['<x>'] }), ['##a', '##b', '<x>', 'a', 'b'])
})

async function* slowly(chunks: Iterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for (const chunk of chunks) {
    await new Promise((resolve) => setImmediate(resolve))
    yield chunk
  }
}

function* piecesOf(bytes: Uint8Array, size: number): Generator<Uint8Array> {
  for (let begin = 0; begin < bytes.length; begin += size) yield bytes.subarray(begin, begin + size)
}

t.test('chunks are texts, or with `continuous` pieces cut anywhere', async (t) => {
  const options = { vocabularySize: 200, minFrequency: 1 }
  const text = 'the café und 東京 ÜBER 😀 words, words; 한국 the\n'.repeat(20)
  const whole = await trainVocabulary([text], options)
  for (const size of [1, 2, 3, 7, 64]) {
    const pieces = piecesOf(Buffer.from(text), size)
    t.same(
      await trainVocabulary(slowly(pieces), { ...options, continuous: true }),
      whole,
      `pieces of ${size} bytes`,
    )
  }
  t.same(await trainVocabulary(text.split(' '), options), whole, 'words as texts, as strings')
  t.notSame(
    await trainVocabulary(['ab', 'ab'], options),
    await trainVocabulary(['ab', 'ab'], { ...options, continuous: true }),
  )
})

t.test(
  'the same corpus gives the same vocabulary, in any order, while timers fire',
  needsSharedData,
  async (t) => {
    const corpus = gunzipSync(
      readFileSync(join(sharedData as string, 'corpus/tiny-shakespeare.txt.gz')),
    ).toString()
    const texts = corpus.split('\n\n')
    let fired = 0
    const timer = setInterval(() => {
      fired += 1
    }, 1)
    const vocabulary = await trainVocabulary(texts, { vocabularySize: 4000 })
    clearInterval(timer)
    t.equal(vocabulary.length, 4000)
    t.equal(new Set(vocabulary).size, 4000)
    t.ok(fired > 3, `${fired} timers fired`)
    t.same(await trainVocabulary(texts.reverse(), { vocabularySize: 4000 }), vocabulary)
    t.ok(['the', 'and', 'king', '##ing'].every((token) => vocabulary.includes(token)))
  },
)

t.test('improper use, an empty corpus and an abort are clear errors', async (t) => {
  const options = { vocabularySize: 50 }
  await t.rejects(trainVocabulary(['a'], { vocabularySize: 0 }), {
    code: 'ERR_ARGUMENT',
    message: /vocabularySize is 0/,
  })
  await t.rejects(trainVocabulary(['a'], { ...options, minFrequency: -1 }), { code: 'ERR_ARGUMENT' })
  await t.rejects(trainVocabulary(['a'], { ...options, specialTokens: ['a\nb'] }), { code: 'ERR_ARGUMENT' })
  await t.rejects(trainVocabulary([], options), { code: 'ERR_ARGUMENT', message: /no word/ })
  await t.rejects(trainVocabulary(['  \n'], options), { code: 'ERR_ARGUMENT', message: /no word/ })
  await t.rejects(trainVocabulary(words, { ...options, signal: AbortSignal.abort() }), {
    code: 'ERR_ABORTED',
  })
  const controller = new AbortController()
  const training = trainVocabulary(words, { ...options, signal: controller.signal })
  controller.abort()
  await t.rejects(training, { code: 'ERR_ABORTED' })
})
