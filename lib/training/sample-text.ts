/**
 * The built-in sample text: sentences about the trades of a small town, made from word lists by a seeded generator, so that the
 * package carries no corpus. Every trade has its people, place, tools, goods and deeds, and a sentence keeps to one trade. What stands
 * where is regular, so a word of the wrong kind is what a detector learns to see within a minute.
 */
import { createDraws, type Draws, randomSite } from '../data/random.js'

/** Sentences of the sample text, each a document: about 1.2 MB. */
export const sampleSentences = 20_000

interface Trade {
  readonly name: string
  readonly place: string
  readonly people: readonly string[]
  readonly helper: string
  readonly tools: readonly string[]
  /** Things made or handled, in the plural. */
  readonly goods: readonly string[]
  /** Past-tense verbs that go with the goods. */
  readonly acts: readonly string[]
}

const trade = (
  name: string,
  place: string,
  helper: string,
  people: string,
  tools: string,
  goods: string,
  acts: string,
): Trade => ({
  name,
  place,
  helper,
  people: people.split(' '),
  tools: tools.split(' '),
  goods: goods.split(' '),
  acts: acts.split(' '),
})

const trades: readonly Trade[] = [
  trade('baker', 'bakery', 'miller', 'anna adam', 'oven tray', 'loaves cakes rolls', 'baked kneaded'),
  trade('chef', 'kitchen', 'waiter', 'clara boris', 'pan ladle', 'soups sauces stews', 'cooked tasted'),
  trade('sailor', 'harbor', 'captain', 'emma carl', 'anchor compass', 'sails boats oars', 'steered moored'),
  trade(
    'farmer',
    'farm',
    'shepherd',
    'greta david',
    'plough tractor',
    'fields cows barns',
    'harvested watered',
  ),
  trade(
    'teacher',
    'school',
    'pupil',
    'ida emil',
    'chalk blackboard',
    'lessons essays exams',
    'explained graded',
  ),
  trade(
    'doctor',
    'hospital',
    'nurse',
    'julia felix',
    'bandage needle',
    'patients wounds fevers',
    'treated healed',
  ),
  trade('tailor', 'shop', 'weaver', 'lena hugo', 'thread scissors', 'coats shirts dresses', 'sewed stitched'),
  trade(
    'painter',
    'studio',
    'model',
    'maria ivan',
    'brush easel',
    'portraits landscapes murals',
    'painted sketched',
  ),
  trade(
    'smith',
    'forge',
    'apprentice',
    'nora jacob',
    'hammer anvil',
    'swords horseshoes nails',
    'forged sharpened',
  ),
  trade('gardener', 'garden', 'florist', 'olga leo', 'spade shears', 'roses tulips hedges', 'planted pruned'),
  trade(
    'musician',
    'hall',
    'singer',
    'rosa oscar',
    'violin flute',
    'songs melodies waltzes',
    'played rehearsed',
  ),
  trade('fisher', 'lake', 'diver', 'sara simon', 'net hook', 'trout salmon eels', 'caught hauled'),
]

/** What a sentence is about. */
interface Scene {
  readonly trade: Trade
  readonly person: string
  readonly tool: string
  readonly good: string
  readonly act: string
}

const sentences: readonly ((scene: Scene) => string)[] = [
  (s) => `the ${s.trade.name} ${s.act} the ${s.good} in the ${s.trade.place}.`,
  (s) => `${s.person} the ${s.trade.name} ${s.act} the ${s.good} with the ${s.tool}.`,
  (s) => `in the ${s.trade.place}, the ${s.trade.name} put the ${s.tool} beside the ${s.good}.`,
  (s) => `the ${s.trade.helper} asked the ${s.trade.name} for the ${s.good}.`,
  (s) => `${s.person} works in the ${s.trade.place} and ${s.act} the ${s.good} today.`,
  (s) => `the ${s.tool} of the ${s.trade.name} is in the ${s.trade.place}.`,
  (s) => `the ${s.trade.helper} came to the ${s.trade.place} and saw ${s.person} the ${s.trade.name}.`,
  (s) => `when the ${s.trade.name} had ${s.act} the ${s.good}, the ${s.trade.helper} was glad.`,
]

const pick = <T>(draws: Draws, list: readonly T[]): T => list[draws.integer(0, list.length - 1)] as T

function drawScene(draws: Draws): Scene {
  const chosen = pick(draws, trades)
  return {
    trade: chosen,
    person: pick(draws, chosen.people),
    tool: pick(draws, chosen.tools),
    good: pick(draws, chosen.goods),
    act: pick(draws, chosen.acts),
  }
}

const capitalized = (line: string): string => line.replace(/[a-z]/, (letter) => letter.toUpperCase())

/** `count` sentences as one text, a blank line between documents. The same for the same numbers, everywhere. */
export function writeSampleText(count: number, seed = 1): string {
  const draws = createDraws(seed, randomSite.sample)
  const documents = Array.from({ length: count }, (_, index) => {
    draws.restart(index)
    const scene = drawScene(draws)
    return capitalized(pick(draws, sentences)(scene))
  })
  return `${documents.join('\n\n')}\n`
}

/** A sentence of which one word was replaced. */
export interface SampleProbe {
  readonly text: string
  /** The replaced word, and the one in its place. */
  readonly word: string
  readonly replacement: string
}

/** Sentences as the sample text has them, but with a word of another kind in the place of one: a deed for a thing, and the like. */
export function writeProbes(count: number, seed = 1): SampleProbe[] {
  const draws = createDraws(seed, randomSite.sample)
  return Array.from({ length: count }, (_, probe) => {
    draws.restart(1e9 + probe)
    const scene = drawScene(draws)
    const other = drawScene(draws)
    const [sentence, word, replacement] = [
      [sentences[0], scene.good, other.act],
      [sentences[1], scene.act, other.trade.place],
      [sentences[2], scene.tool, other.act],
      [sentences[4], scene.trade.place, other.person],
    ][probe % 4] as [(scene: Scene) => string, string, string]
    return { text: capitalized(sentence(scene).replace(word, replacement)), word, replacement }
  })
}
