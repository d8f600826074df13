// Data for the guides: texts about the town of the built-in sample text, made from word lists, the same on every run.
//
//   node docs/guides/town.mjs town
//
// writes into the folder `town`: reviews, topics, requests, ratings (.tsv), sentences (.conll), questions (.json) and choices
// (.jsonl), each as a training and a validation file, and sentences.txt.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const trades = [
  {
    trade: 'baker',
    place: 'bakery',
    people: ['anna', 'adam'],
    goods: ['loaves', 'cakes', 'rolls'],
    acts: ['baked', 'kneaded'],
    tool: 'oven',
  },
  {
    trade: 'chef',
    place: 'kitchen',
    people: ['clara', 'boris'],
    goods: ['soups', 'sauces', 'stews'],
    acts: ['cooked', 'tasted'],
    tool: 'pan',
  },
  {
    trade: 'sailor',
    place: 'harbor',
    people: ['emma', 'carl'],
    goods: ['sails', 'boats', 'oars'],
    acts: ['steered', 'moored'],
    tool: 'anchor',
  },
  {
    trade: 'farmer',
    place: 'farm',
    people: ['greta', 'david'],
    goods: ['fields', 'cows', 'barns'],
    acts: ['harvested', 'watered'],
    tool: 'plough',
  },
  {
    trade: 'teacher',
    place: 'school',
    people: ['ida', 'emil'],
    goods: ['lessons', 'essays', 'exams'],
    acts: ['explained', 'graded'],
    tool: 'chalk',
  },
  {
    trade: 'tailor',
    place: 'shop',
    people: ['lena', 'hugo'],
    goods: ['coats', 'shirts', 'dresses'],
    acts: ['sewed', 'stitched'],
    tool: 'thread',
  },
  {
    trade: 'painter',
    place: 'studio',
    people: ['maria', 'ivan'],
    goods: ['portraits', 'landscapes', 'murals'],
    acts: ['painted', 'sketched'],
    tool: 'brush',
  },
  {
    trade: 'smith',
    place: 'forge',
    people: ['nora', 'jacob'],
    goods: ['swords', 'horseshoes', 'nails'],
    acts: ['forged', 'sharpened'],
    tool: 'hammer',
  },
  {
    trade: 'gardener',
    place: 'garden',
    people: ['olga', 'leo'],
    goods: ['roses', 'tulips', 'hedges'],
    acts: ['planted', 'pruned'],
    tool: 'spade',
  },
  {
    trade: 'musician',
    place: 'hall',
    people: ['rosa', 'oscar'],
    goods: ['songs', 'melodies', 'waltzes'],
    acts: ['played', 'rehearsed'],
    tool: 'violin',
  },
]
const praise = ['splendid', 'lovely', 'excellent', 'delightful', 'wonderful']
const blame = ['awful', 'dreadful', 'spoiled', 'terrible', 'disappointing']

/** Marsaglia's xorshift: numbers from 0 to below 2^32. */
let state = 2463534242
function random() {
  state ^= state << 13
  state ^= state >>> 17
  state ^= state << 5
  state >>>= 0
  return state
}
const pick = (list) => list[random() % list.length]
const scene = () => {
  const chosen = pick(trades)
  return { ...chosen, person: pick(chosen.people), good: pick(chosen.goods), act: pick(chosen.acts) }
}
/** Scenes of different trades. */
function scenesApart(count) {
  const scenes = []
  while (scenes.length < count) {
    const next = scene()
    if (scenes.every(({ trade }) => trade !== next.trade)) scenes.push(next)
  }
  return scenes
}
const capital = (name) => name[0].toUpperCase() + name.slice(1)
const times = (count, make) => Array.from({ length: count }, make)

// Reviews: what people say of the town's goods.
function review() {
  const { trade, person, good, place } = scene()
  const [words, label] = pick([
    [praise, 'praise'],
    [blame, 'complaint'],
  ])
  const word = pick(words)
  const text = pick([
    `the ${good} of ${person} the ${trade} were ${word}.`,
    `we came to the ${place} and the ${good} were ${word}.`,
    `${word} ${good} in the ${place} today.`,
    `the ${trade} is a ${word} one, and so are the ${good}.`,
  ])
  return `${text}\t${label}`
}

// Texts about one or two trades, with the topics of both.
const topics = {
  food: ['baker', 'chef', 'farmer'],
  crafts: ['tailor', 'smith', 'painter'],
  leisure: ['musician', 'gardener', 'painter'],
  travel: ['sailor'],
  learning: ['teacher'],
}
function topical() {
  const scenes = scenesApart(pick([1, 2]))
  const text = scenes.map((s) => `the ${s.trade} ${s.act} the ${s.good} in the ${s.place}.`).join(' ')
  const found = Object.keys(topics).filter((topic) => scenes.some((s) => topics[topic].includes(s.trade)))
  return `${text}\t${found.join(',')}`
}

// Requests: what people want from a shop's assistant. 'other' is what it should not answer.
function request() {
  const { good, place, trade, person } = scene()
  return pick([
    () => `${pick(['i would like', 'please bring me', 'can i have'])} the ${good}\torder`,
    () => `${pick(['when does', 'at what hour does'])} the ${place} open\thours`,
    () => `${pick(['where is', 'how do i come to'])} the ${place}\tway`,
    () => `the ${good} were ${pick(blame)}\tcomplaint`,
    () => `take back the ${pick(blame)} ${good}\tcomplaint`,
    () => `${person} the ${trade} was glad today\tother`,
  ])()
}

// Ratings: reviews with one to five stars.
const stars = [
  ['awful', 'dreadful'],
  ['poor', 'disappointing'],
  ['plain', 'decent'],
  ['good', 'lovely'],
  ['splendid', 'wonderful'],
]
function rating() {
  const { trade, person, good, place } = scene()
  const number = pick([1, 2, 3, 4, 5])
  const word = pick(stars[number - 1])
  const text = pick([
    `the ${good} of ${person} the ${trade} were ${word}.`,
    `we came to the ${place} and the ${good} were ${word}.`,
    `${word} ${good} in the ${place} today.`,
  ])
  return `${text}\t${number}`
}

// Sentences with the people and places tagged.
function tagged() {
  const { trade, person, good, act, place } = scene()
  const other = capital(pick(pick(trades).people))
  const name = capital(person)
  const words = pick([
    [
      [name, 'B-PERSON'],
      ['the', 'O'],
      [trade, 'O'],
      [act, 'O'],
      ['the', 'O'],
      [good, 'O'],
      ['in', 'O'],
      ['the', 'B-PLACE'],
      [place, 'I-PLACE'],
      ['.', 'O'],
    ],
    [
      ['In', 'O'],
      ['the', 'B-PLACE'],
      [place, 'I-PLACE'],
      [',', 'O'],
      [name, 'B-PERSON'],
      ['asked', 'O'],
      [other, 'B-PERSON'],
      ['for', 'O'],
      ['the', 'O'],
      [good, 'O'],
      ['.', 'O'],
    ],
    [
      ['The', 'O'],
      [good, 'O'],
      ['of', 'O'],
      [name, 'B-PERSON'],
      ['came', 'O'],
      ['to', 'O'],
      [other, 'B-PERSON'],
      ['.', 'O'],
    ],
  ])
  return `${words.map((word) => word.join(' ')).join('\n')}\n`
}

// Questions, each with a text that holds its answer.
function paragraph(index) {
  const scenes = scenesApart(3)
  const context = scenes.map((s) => `The ${s.trade} ${s.act} the ${s.good} in the ${s.place}.`).join(' ')
  const asked = pick(scenes)
  const [question, answer] = pick([
    [`what was ${asked.act} in the ${asked.place}?`, `the ${asked.good}`],
    [`where is the ${asked.trade}?`, `the ${asked.place}`],
  ])
  const sentence = context.indexOf(`The ${asked.trade} ${asked.act} the ${asked.good}`)
  const start = context.indexOf(answer, sentence)
  return {
    context,
    qas: [{ id: `town-${index}`, question, answers: [{ text: answer, answer_start: start }] }],
  }
}
const squad = (paragraphs) => JSON.stringify({ version: '1.1', data: [{ title: 'The town', paragraphs }] })

// Which of three sentences is the one that makes sense.
function choice() {
  const scenes = scenesApart(3)
  const label = random() % scenes.length
  const { trade, act } = scenes[label]
  const choices = scenes.map(({ good }) => `the ${trade} ${act} the ${good}.`)
  return JSON.stringify({ question: 'in the town.', choices, label })
}

const folder = process.argv[2] ?? 'town'
mkdirSync(folder, { recursive: true })
const write = (name, text) => writeFileSync(join(folder, name), text)
for (const [part, share] of [
  ['train', 1],
  ['validation', 0.25],
]) {
  write(`reviews-${part}.tsv`, `text\tlabel\n${times(400 * share, review).join('\n')}\n`)
  write(`topics-${part}.tsv`, `text\tlabel\n${times(600 * share, topical).join('\n')}\n`)
  write(`requests-${part}.tsv`, `text\tlabel\n${times(600 * share, request).join('\n')}\n`)
  write(`ratings-${part}.tsv`, `text\tlabel\n${times(600 * share, rating).join('\n')}\n`)
  write(`sentences-${part}.conll`, times(400 * share, tagged).join('\n'))
  write(`questions-${part}.json`, squad(times(1600 * share, (_, index) => paragraph(`${part}-${index}`))))
  write(`choices-${part}.jsonl`, `${times(800 * share, choice).join('\n')}\n`)
}
write(
  'sentences.txt',
  `${times(40, () => {
    const s = scene()
    return `${capital(s.person)} the ${s.trade} ${s.act} the ${s.good} in the ${s.place}.`
  }).join('\n')}\n`,
)
