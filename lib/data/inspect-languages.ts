/**
 * The mix of languages, as far as scripts and frequent words show it. Letters are counted by script. A document is Latin when most of
 * its letters are; then its language is guessed by the words below: the language with most hits, at least 3 and at least one word in
 * twenty, and a tenth more than the next. It is a guess for a report, not a label for filtering: a language that is not listed
 * is 'unclear' or looks like a relative, and lists of names or code look like nothing.
 */
import { scriptNames } from './inspect-code-points.js'
import { hashText } from './inspect-repeats.js'

export interface ScriptShare {
  readonly script: string
  readonly letters: number
  /** Of all letters. */
  readonly share: number
}

export interface LanguageShare {
  /** What documents look like: a language for Latin script, or 'unclear'; else the script of most letters. */
  readonly looksLike: string
  readonly documents: number
  /** Of all documents. */
  readonly share: number
}

const frequentWords: Readonly<Record<string, string>> = {
  English:
    'the of and to in that was is for it with as his on be at by had not but from have were which this are',
  German:
    'der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er',
  French: 'de la le et les des en un du une que est dans qui pour par au sur pas plus ne avec il ce sont son',
  Spanish: 'de la que el en y a los se del las un por con no una su para es al lo como más o pero sus fue',
  Portuguese: 'de a o que e do da em um para com não uma os no se na por mais as dos como mas ao foi das',
  Italian: 'di e il la che in a per un è del non con le si da una i sono al della come dei nel gli alla',
  Dutch: 'de van een het en in is dat op te zijn met voor niet aan er om door als ook maar bij naar werd uit',
  Swedish: 'och i att en som på är av för med den till det om de inte har ett var från vid kan under men',
  'Danish or Norwegian':
    'og i at en som på er af av for med den til det de ikke har et var fra ved kan men blev ble',
  Finnish: 'ja on ei se että oli hän joka mutta ovat myös kun sen ole niin kuin tai jonka sekä hänen vuonna',
  Polish: 'w i na z do nie się jest że to o jak po od za przez oraz dla był są ale być tym który ze',
  Czech: 'a v na se je že z s do o to i ve za by jsou jako pro po k od ale byl který byla',
  Romanian: 'de și în a la cu din pe o un că nu este care mai pentru fost sau se au prin după sunt',
  Hungarian: 'a az és hogy nem is egy volt meg ez csak de mint van már azt ha vagy el még között',
  Turkish:
    've bir bu da de için ile olarak çok daha olan gibi ne kadar sonra ancak veya en olduğu tarafından her o',
  Vietnamese: 'và của là có không các được cho trong một với những đã người này từ ở khi để như về đến',
  Indonesian:
    'yang dan di dari dengan untuk pada ini itu dalam tidak adalah ke oleh sebagai juga akan mereka ada atau',
}

const languages = Object.keys(frequentWords)

/** The languages that have a word, by the word's hash. */
function wordTable(seed: number): ReadonlyMap<number, readonly number[]> {
  const table = new Map<number, number[]>()
  for (const [language, name] of languages.entries()) {
    for (const word of new Set((frequentWords[name] as string).split(' '))) {
      const hash = hashText(word, 0, word.length, seed)
      table.set(hash, [...(table.get(hash) ?? []), language])
    }
  }
  return table
}

function byCount<Item>(items: Iterable<Item>, count: (item: Item) => number): Item[] {
  return [...items].filter((item) => count(item) > 0).sort((a, b) => count(b) - count(a))
}

export class LanguageCounter {
  readonly #table: ReadonlyMap<number, readonly number[]>
  readonly #letters = new Float64Array(scriptNames.length)
  readonly #documentLetters = new Float64Array(scriptNames.length)
  readonly #hits = new Float64Array(languages.length)
  readonly #documents = new Map<string, number>()
  #words = 0

  constructor(seed: number) {
    this.#table = wordTable(seed)
  }

  addLetter(script: number): void {
    this.#documentLetters[script] = (this.#documentLetters[script] as number) + 1
  }

  /** A word in lower case by its hash, with the seed given. */
  addWord(hash: number): void {
    this.#words += 1
    const having = this.#table.get(hash)
    if (having === undefined) return
    for (const language of having) this.#hits[language] = (this.#hits[language] as number) + 1
  }

  /** Ends a document. */
  end(): void {
    const name = this.#guess()
    this.#documents.set(name, (this.#documents.get(name) ?? 0) + 1)
    for (const [script, letters] of this.#documentLetters.entries())
      this.#letters[script] = (this.#letters[script] as number) + letters
    this.#documentLetters.fill(0)
    this.#hits.fill(0)
    this.#words = 0
  }

  #guess(): string {
    const most = Math.max(...this.#documentLetters)
    if (most === 0) return 'no letters'
    const script = scriptNames[this.#documentLetters.indexOf(most)] as string
    // Japanese is mostly kana with Han; Chinese has no kana.
    const kana = ['Hiragana', 'Katakana'].reduce(
      (sum, name) => sum + (this.#documentLetters[scriptNames.indexOf(name)] as number),
      0,
    )
    if (['Han', 'Hiragana', 'Katakana'].includes(script)) return 10 * kana > most ? 'Japanese' : 'Han'
    if (script !== 'Latin') return script
    const [first = 0, second = 0] = [...this.#hits].sort((a, b) => b - a)
    const isClear = first >= 3 && 20 * first >= this.#words && first >= 1.1 * second
    return isClear ? (languages[this.#hits.indexOf(first)] as string) : 'unclear (Latin)'
  }

  summary(): { scripts: ScriptShare[]; languages: LanguageShare[] } {
    const letters = this.#letters.reduce((sum, count) => sum + count, 0)
    let documents = 0
    for (const count of this.#documents.values()) documents += count
    return {
      scripts: byCount(this.#letters.entries(), ([, count]) => count).map(([script, count]) => ({
        script: scriptNames[script] as string,
        letters: count,
        share: count / letters,
      })),
      languages: byCount(this.#documents, ([, count]) => count).map(([looksLike, count]) => ({
        looksLike,
        documents: count,
        share: count / documents,
      })),
    }
  }
}
