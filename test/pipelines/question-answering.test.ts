/** question-answering with a model whose answers are known: its encoder passes words on, its head looks for two of them. */
import t from 'tap'
import { ElectraForQuestionAnswering, type ElectraPreTrainedModel, pipeline } from 'voltaic'
import { createDraws, randomSite } from '../../dist/data/random.js'
import { saveModel, textOf, tokenizer, vocabulary } from './models.js'

/** Every word's last state is the word's own vector: ±1 at random, so that the words' vectors are far from each other. */
function vectorOf(word: number): Float32Array {
  const draws = createDraws(word, randomSite.order)
  return Float32Array.from({ length: 32 }, () => (draws.uniform() < 0.5 ? 1 : -1))
}

/** A model that finds the answer from `start` to `end`, in whatever text. */
function rig(start: string, end: string) {
  const [startVector, endVector] = [start, end].map((word) => vectorOf(tokenizer.tokenToId(word) as number))
  return (model: ElectraPreTrainedModel): void => {
    for (const [name, parameter] of model.namedParameters()) {
      const size = parameter.shape.reduce((product, length) => product * length, 1)
      if (/LayerNorm\.weight$/.test(name)) parameter.assign(new Float32Array(size).fill(1))
      else if (/word_embeddings\.weight$/.test(name))
        parameter.assign(Float32Array.from(vocabulary.flatMap((_, id) => [...vectorOf(id)])))
      else if (name === 'qa_outputs.weight')
        parameter.assign(Float32Array.from([...startVector!, ...endVector!]))
      else parameter.assign(new Float32Array(size))
    }
  }
}

const question = 'What was in the film?'

t.test('an answer past token 512 is found, at its exact place', async (t) => {
  const folder = await saveModel(
    t,
    ElectraForQuestionAnswering,
    { embeddingSize: 32, maxPositionEmbeddings: 512 },
    rig('🚢', '学'),
  )
  await using answer = await pipeline('question-answering', folder, { device: 'cpu' })
  const planted = '🚢 é in 中文学'
  for (const words of [3, 700, 2000]) {
    const context = `${textOf(words)} Ça 😀 ${planted}, ${textOf(300, 1)}`
    const before = tokenizer(context.slice(0, context.indexOf(planted)), { addSpecialTokens: false })
    if (words > 500) t.ok(before.inputIds[0]!.length > 512, 'the answer is past token 512')
    const found = await answer(question, context)
    t.equal(found.answer, planted)
    t.equal(found.start, context.indexOf(planted))
    t.equal(context.slice(found.start, found.end), planted)
    t.ok(found.score > 0.9 && found.score <= 1)
  }
})

t.test('top_k, the longest answer, no answer, lists', async (t) => {
  const folder = await saveModel(
    t,
    ElectraForQuestionAnswering,
    { embeddingSize: 32, maxPositionEmbeddings: 512 },
    rig('red', 'boat'),
  )
  await using answer = await pipeline('question-answering', folder, { device: 'cpu' })
  const context = 'the chef ate. red green fish boat was good'
  t.equal((await answer(question, context)).answer, 'red green fish boat')
  const three = await answer(question, context, { top_k: 3 })
  t.ok(Array.isArray(three) && three.length === 3 && three[0]?.answer === 'red green fish boat')
  const short = await answer(question, context, { max_answer_len: 2 })
  t.not(short.answer, 'red green fish boat')
  t.ok(tokenizer.tokenize(short.answer).length <= 2)

  const [best, other] = await answer([question, 'who ate'], [context, 'red boat'])
  t.same([best, other], [await answer(question, context), await answer('who ate', 'red boat')])
  t.equal((await answer([question, question], context)).length, 2, 'one context for all')
  await t.rejects(answer([question], [context, context]), { message: /2 contexts for 1 questions/ })
  await t.rejects(answer(question, 5 as never), { code: 'ERR_ARGUMENT', message: /the context is 5/ })
  await t.rejects(answer(question, context, { max_seq_len: 513 }), { message: /512 tokens at most/ })

  t.same(await answer(question, '', { handle_impossible_answer: true }), {
    answer: '',
    score: 1,
    start: 0,
    end: 0,
  })
})

t.test('answers begin and end with words, unless pieces will do', async (t) => {
  const folder = await saveModel(
    t,
    ElectraForQuestionAnswering,
    { embeddingSize: 32, maxPositionEmbeddings: 512 },
    rig('##o', '##e'),
  )
  await using answer = await pipeline('question-answering', folder, { device: 'cpu' })
  const context = 'Did Boë sail? Zoë, 😀 did.'
  // ##o ##e: both are in Boë and in Zoë, and the best span begins in either.
  const whole = await answer(question, context, { top_k: 4 })
  const pieces = await answer(question, context, { top_k: 4, align_to_words: false })
  t.ok(Array.isArray(whole) && Array.isArray(pieces))
  const words = whole as { answer: string; start: number; end: number }[]
  for (const { answer: text, start, end } of words) {
    t.equal(text, context.slice(start, end))
    t.notMatch(context.slice(start - 1, start), /\p{L}/u, 'no letter before')
    t.notMatch(context.slice(end, end + 1), /\p{L}/u, 'no letter after')
  }
  t.equal(new Set(words.map(({ start, end }) => `${start} ${end}`)).size, 4, 'no answer twice')
  t.ok((pieces as { answer: string }[]).some(({ answer: text }) => text.startsWith('o')))
})

t.test('a model that finds no answer says so, when it may', async (t) => {
  const folder = await saveModel(
    t,
    ElectraForQuestionAnswering,
    { embeddingSize: 32, maxPositionEmbeddings: 512 },
    rig('[CLS]', '[CLS]'),
  )
  await using answer = await pipeline('question-answering', folder, { device: 'cpu' })
  const context = 'the chef ate. red green fish boat was good'
  const none = await answer(question, context, { handle_impossible_answer: true })
  t.same([none.answer, none.start, none.end], ['', 0, 0])
  t.ok(none.score > 0.9)
  t.ok((await answer(question, context)).answer.length > 0, 'it must answer otherwise')
})

t.test('a calibrated threshold decides what is no answer', async (t) => {
  const context = 'the chef ate. red green fish boat was good'
  for (const [difference, isAnswered] of [
    [1000, true],
    [-1000, false],
  ] as const) {
    const folder = await saveModel(
      t,
      ElectraForQuestionAnswering,
      {
        embeddingSize: 32,
        maxPositionEmbeddings: 512,
        extra: { voltaic_calibration: { null_score_difference: difference } },
      },
      rig('red', '[CLS]'),
    )
    await using answer = await pipeline('question-answering', folder, { device: 'cpu' })
    const options = { handle_impossible_answer: true }
    t.equal((await answer(question, context, options)).answer !== '', isAnswered)
    const all = (await answer(question, context, { ...options, top_k: 100 })) as { answer: string }[]
    t.equal(all.filter(({ answer: text }) => text === '').length, 1, 'no answer is one of all')
    t.not((await answer(question, context)).answer, '', 'without the option there is an answer')
  }
})
