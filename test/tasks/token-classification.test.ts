/** Tagging: features, windows, labels, decoding, metrics, files; and a model that learns it. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { ElectraForTokenClassification, ElectraModel } from '../../dist/electra/index.js'
import { defineElectraConfig } from '../../dist/formats/electra-config.js'
import {
  type Outputs,
  type TaggedFeature,
  type TaggedSentence,
  type Task,
  taskKind,
} from '../../dist/tasks/index.js'
import { loadVocabulary } from '../../dist/text/index.js'
import { needsSharedData, sharedData } from '../helpers/shared.js'
import { learn } from './learning.js'
import { letterTokenizer } from './letters.js'

type SentenceTask = Task<TaggedSentence, TaggedFeature, readonly string[]>

const tokenizer = letterTokenizer()
const kind = taskKind('token-classification')
const sentence = (words: string, tags: string, line = 1): TaggedSentence => ({
  words: words.split(' '),
  tags: tags.split(' '),
  line,
})
const taskOf = (...sentences: TaggedSentence[]) => kind.learn(sentences) as SentenceTask
const piecesOf = ({ inputIds }: TaggedFeature) => tokenizer.convertIdsToTokens(inputIds).join(' ')

const people = [sentence('ann saw bo', 'B-PER O B-PER'), sentence('new york', 'B-LOC I-LOC', 4)]

t.test(
  'labels are those that occur, sorted; entities are scored by F1, other tags by accuracy',
  async (t) => {
    const task = taskOf(...people)
    t.same(task.config.architectures, ['ElectraForTokenClassification'])
    t.same(task.config.id2label, { 0: 'B-LOC', 1: 'B-PER', 2: 'I-LOC', 3: 'O' })
    t.same(task.config.label2id, { 'B-LOC': 0, 'B-PER': 1, 'I-LOC': 2, O: 3 })
    t.equal(task.metric, 'f1')
    t.equal(task.model, ElectraForTokenClassification)
    t.equal(taskOf(sentence('a b', 'NOUN VERB')).metric, 'accuracy')
    t.equal(taskOf(sentence('a b', 'B-X person')).metric, 'accuracy')
    t.same(kind.defaults, { epochs: 3, maxLength: 128 })
  },
)

t.test('the first piece of each word has its label', async (t) => {
  const task = taskOf(...people)
  const [feature, ...rest] = task.features(people.slice(0, 1), tokenizer, { maxLength: 20, training: true })
  t.same(rest, [])
  t.equal(piecesOf(feature!), '[CLS] a ##n ##n s ##a ##w b ##o [SEP]')
  t.same(Array.from(feature!.labels!), [-100, 1, -100, -100, 3, -100, -100, 1, -100, -100])
  t.same(Array.from(feature!.places), [1, 4, 7])
  const [plain] = task.features(people.slice(0, 1), tokenizer, { maxLength: 20, training: false })
  t.equal(plain!.labels, undefined)
})

t.test('labelAllPieces: the later pieces too, as inside', async (t) => {
  const task = taskKind('token-classification', { labelAllPieces: true }).learn(people) as SentenceTask
  const features = task.features(people, tokenizer, { maxLength: 20, training: true })
  t.same(Array.from(features[0]!.labels!), [-100, 1, 1, 1, 3, 3, 3, 1, 1, -100], 'no I-PER is known')
  t.same(Array.from(features[1]!.labels!), [-100, 0, 2, 2, 2, 2, 2, 2, -100])
})

t.test('a word without a piece shifts nothing and is O', async (t) => {
  const odd = sentence('ann \u200b bo', 'B-PER O B-PER')
  const task = taskOf(odd)
  const [feature] = task.features([odd], tokenizer, { maxLength: 20, training: true })
  t.equal(piecesOf(feature!), '[CLS] a ##n ##n b ##o [SEP]')
  t.same(Array.from(feature!.labels!), [-100, 0, -100, -100, 0, -100, -100])
  // The label B-PER everywhere.
  const logits = Float32Array.from({ length: 14 }, (_, i) => (i % 2 === 0 ? 1 : 0))
  t.same(task.decode([odd], [feature!], [{ logits }]), [['B-PER', 'O', 'B-PER']])
  const nothing = sentence('\u200b \u200c', 'O O')
  t.same(task.features([nothing], tokenizer, { maxLength: 20, training: true }), [], 'nothing to learn')
  const empty = task.features([nothing], tokenizer, { maxLength: 20, training: false })
  t.same(task.decode([nothing], empty, [{ logits: new Float32Array(4) }]), [['O', 'O']])
  const nouns = taskOf(sentence('a b', 'NOUN VERB'))
  t.same(nouns.decode([nothing], [], []), [['_', '_']], 'where O is no label')
})

t.test(
  'law: whatever the windows, each word is in one of them, with most context, and keeps its label',
  async () => {
    const word = fc.constantFrom('a', 'abc', 'abcdefghijkl', '\u200b', '東', '😀b', 'e\u0301')
    fc.assert(
      fc.property(
        fc.array(word, { minLength: 1, maxLength: 25 }),
        fc.integer({ min: 3, max: 16 }),
        fc.option(fc.nat({ max: 20 }), { nil: undefined }),
        (words, maxLength, stride) => {
          const tags = words.map((_, at) => `T${at % 3}`)
          const example = { words, tags, line: 1 }
          const task = taskOf(example, sentence('a b c', 'T0 T1 T2'))
          const features = task.features([example], tokenizer, { maxLength, stride, training: true })
          const evaluated = task.features([example], tokenizer, { maxLength, stride, training: false })
          if ([...features, ...evaluated].some(({ inputIds }) => inputIds.length > maxLength)) return false
          // Logits that say the learned label.
          const outputs = evaluated.map(({ inputIds, words, places }): Outputs => {
            const logits = new Float32Array(3 * inputIds.length)
            words.forEach((word, at) => {
              logits[3 * places[at]! + (word % 3)] = 1
            })
            return { logits }
          })
          const wanted = words.map((word, at) => (word === '\u200b' ? '_' : tags[at]))
          const [predicted] = task.decode([example], evaluated, outputs)
          const learned = features.flatMap(({ labels }) => Array.from(labels!).filter((label) => label >= 0))
          const pieces = words.filter((word) => word !== '\u200b').length
          return JSON.stringify(predicted) === JSON.stringify(wanted) && learned.length === pieces
        },
      ),
    )
  },
)

t.test('of real tweets, whole and in windows, no word is lost or shifted', needsSharedData, async (t) => {
  const real = await loadVocabulary(join(sharedData!, 'vocab/bert-uncased-vocab.txt'))
  const { examples } = await kind.read(join(sharedData!, 'ner/wnut17/dev.conll'), {})
  const sentences = examples as TaggedSentence[]
  const task = taskOf(...sentences)
  const labels = Object.values(task.config.id2label!)
  for (const maxLength of [128, 24]) {
    const features = task.features(sentences, real, { maxLength, training: false })
    const outputs = features.map(({ example, inputIds, words, places }): Outputs => {
      const logits = new Float32Array(labels.length * inputIds.length)
      words.forEach((word, at) => {
        logits[places[at]! * labels.length + labels.indexOf(sentences[example]!.tags[word]!)] = 1
      })
      return { logits }
    })
    const predicted = task.decode(sentences, features, outputs)
    t.same(
      predicted,
      sentences.map(({ tags }) => tags),
      `${features.length} windows of ${maxLength}`,
    )
  }
})

t.test('windows of a long sentence: a word counts where it has most context', async (t) => {
  const long = sentence('a b c d e f g h', 'T T T T T T T T')
  const task = taskOf(long)
  const features = task.features([long], tokenizer, { maxLength: 6, stride: 2, training: true })
  t.same(features.map(piecesOf), ['[CLS] a b c d [SEP]', '[CLS] c d e f [SEP]', '[CLS] e f g h [SEP]'])
  t.same(
    features.map(({ words }) => Array.from(words)),
    [
      [0, 1, 2],
      [3, 4],
      [5, 6, 7],
    ],
  )
  t.throws(() => task.features([long], tokenizer, { maxLength: 2, training: false }), {
    code: 'ERR_ARGUMENT',
    message: /maxLength is 2/,
  })
})

t.test('metrics, report and record', async (t) => {
  const task = taskOf(...people)
  const predictions = [
    ['B-PER', 'O', 'O'],
    ['B-LOC', 'I-LOC'],
  ]
  const { f1, precision, recall, accuracy } = task.metrics(people, predictions)
  t.same({ f1, precision, recall, accuracy }, { f1: 0.8, precision: 1, recall: 2 / 3, accuracy: 0.8 })
  t.match(
    task.report(people, predictions),
    /^ +precision +recall +F1 +examples\nLOC +1\.000 .*\nPER +1\.000 +0\.500/,
  )
  t.match(task.report(people, predictions), /micro average +1\.000 +0\.667 +0\.800 +3/)
  t.same(task.record(people[0]!, predictions[0]!), {
    words: ['ann', 'saw', 'bo'],
    tags: ['B-PER', 'O', 'O'],
    labels: ['B-PER', 'O', 'B-PER'],
  })
  const nouns = [sentence('a b c', 'NOUN VERB NOUN')]
  const tagger = taskOf(...nouns)
  t.same(tagger.metrics(nouns, [['NOUN', 'NOUN', 'NOUN']]), { accuracy: 2 / 3 })
  t.match(tagger.report(nouns, [['NOUN', '_', 'NOUN']]), /NOUN +1\.000 +1\.000 +1\.000 +2\nVERB +0\.000/)
})

t.test('tags and models that do not match are refused', async (t) => {
  const task = taskOf(...people)
  const strange = [sentence('x', 'B-ORG', 7)]
  t.throws(() => task.features(strange, tokenizer, { maxLength: 9, training: true }), {
    code: 'ERR_ARGUMENT',
    message: /the sentence on line 7 has the tag 'B-ORG'; the task's 4 labels are B-LOC, B-PER, I-LOC, O/,
  })
  const untagged = [{ words: ['x'], tags: [], line: 3 }]
  t.throws(() => task.features(untagged, tokenizer, { maxLength: 9, training: true }), {
    message: /line 3 has no tags/,
  })
  t.throws(() => kind.learn(untagged), { code: 'ERR_ARGUMENT', message: /no sentence with tags/ })
  t.throws(() => kind.restore(defineElectraConfig({ architectures: ['ElectraForQuestionAnswering'] })), {
    code: 'ERR_CONFIG',
    message: /ElectraForQuestionAnswering; token-classification needs an ElectraForTokenClassification/,
  })
  const config = defineElectraConfig(task.config)
  t.same(kind.restore(config).config, task.config)
  const [feature] = task.features(people, tokenizer, { maxLength: 9, training: false })
  t.throws(() => task.decode(people, [feature!], [{ logits: new Float32Array(3) }]), {
    message: /3 logits for feature 0/,
  })
  const tiny = {
    vocabSize: 100,
    hiddenSize: 8,
    numHiddenLayers: 1,
    numAttentionHeads: 1,
    intermediateSize: 8,
  }
  const body = new ElectraModel(defineElectraConfig(tiny))
  t.throws(() => task.loss(body, [feature!]), { message: /a feature without labels/ })
  await t.rejects(task.outputs(body, [feature!]), {
    message: /the model is an ElectraModel; expected an ElectraForToken/,
  })
})

const folder = await mkdtemp(join(tmpdir(), 'voltaic-tagged-'))
t.teardown(() => rm(folder, { recursive: true }))
async function fileOf(name: string, content: string): Promise<string> {
  const file = join(folder, name)
  await writeFile(file, content)
  return file
}
const readWords = async (file: string, options: Parameters<typeof kind.read>[1] = {}) => {
  const { examples, skipped } = await kind.read(file, options)
  const line = ({ words, tags }: TaggedSentence) =>
    words.map((word, at) => `${word}/${tags[at] ?? ''}`).join(' ')
  return { read: (examples as TaggedSentence[]).map(line), skipped }
}

t.test('files of CoNLL columns', async (t) => {
  const file = await fileOf('a.conll', 'Ann NNP B-PER\nran VBD O\n\nBo NNP Bper\n\n')
  t.same(await readWords(file), {
    read: ['Ann/B-PER ran/O'],
    skipped: [{ place: 'line 4', problem: "the tag 'Bper' is neither O nor B-, I-, E- or S- with a type" }],
  })
  t.same((await readWords(file, { labelColumn: '1' })).read, ['Ann/NNP ran/VBD', 'Bo/NNP'])
  const known = await readWords(file, { labelNames: ['B-PER', 'I-PER', 'O'] })
  t.same(known.skipped, [
    { place: 'line 4', problem: "the tag 'Bper' is none of the 3 labels: B-PER, I-PER, O" },
  ])
  await t.rejects(kind.read(file, { strict: true }), {
    code: 'ERR_FORMAT',
    message: /a\.conll:4: the tag 'Bper'/,
  })
  await t.rejects(kind.read(file, { labelColumn: 'tag' }), {
    code: 'ERR_CONFIG',
    message: /labelColumn is 'tag'/,
  })
  await t.rejects(kind.read(file, { labelNames: ['X'] }), {
    code: 'ERR_FORMAT',
    message: /none of its 2 sentences/,
  })
  const plain = await fileOf('plain.txt', 'Ann person\nran O\n\n')
  t.same((await readWords(plain)).read, ['Ann/person ran/O'], 'types without a prefix are tags, too')
  const words = await fileOf('words.txt', 'Ann\nran\n\nBo O\n')
  t.same((await readWords(words, { unlabelled: true })).read, ['Ann/ ran/', 'Bo/O'])
  t.same((await readWords(words)).skipped.length, 1)
  await t.rejects(kind.read(await fileOf('none.conll', '\n\n'), {}), {
    code: 'ERR_FORMAT',
    message: /holds no sentences/,
  })
})

t.test('files of CoNLL-U', async (t) => {
  const row = (id: string, word: string, upos: string, xpos: string) =>
    `${[id, word, '_', upos, xpos, '_', '_', '_', '_', '_'].join('\t')}\n`
  const content = `# text\n${row('1-2', 'im', '_', '_')}${row('1', 'i', 'ADP', 'IN')}${row('2', 'm', 'DET', '_')}\n`
  const file = await fileOf('a.conllu', content)
  t.same((await readWords(file)).read, ['i/ADP m/DET'])
  await t.rejects(kind.read(file, { labelColumn: 'xpos' }), { code: 'ERR_FORMAT', message: /has no xpos/ })
  t.same((await readWords(file, { labelColumn: 'xpos', unlabelled: true })).read, ['i/ m/'])
  await t.rejects(kind.read(file, { labelColumn: '3' }), {
    code: 'ERR_CONFIG',
    message: /expected upos or xpos/,
  })
})

t.test('files of JSON lines', async (t) => {
  const file = await fileOf(
    'a.jsonl',
    [
      '{"words":["Ann","ran"],"tags":["B-PER","O"]}',
      '{"words":["Bo"],"tags":["O","O"]}',
      '{"words":["Bo",3],"tags":["O","O"]}',
      '{"words":["Bo"],"tags":["B-X"]}',
    ].join('\n'),
  )
  const { read, skipped } = await readWords(file, { labelNames: ['B-PER', 'O'] })
  t.same(read, ['Ann/B-PER ran/O'])
  t.same(skipped, [
    { place: 'line 2', problem: 'the tags are a list of 2, expected 1 strings, one a word' },
    { place: 'line 3', problem: 'the words are not a list of strings' },
    { place: 'line 4', problem: "the tag 'B-X' is none of the labels" },
  ])
  const named = await fileOf('b.jsonl', '{"w":["a"],"pos":["X"],"tokens":["b"]}')
  t.same((await readWords(named, { textColumn: 'w', labelColumn: 'pos' })).read, ['a/X'])
  t.same((await readWords(named, { unlabelled: true })).read, ['b/'])
  await t.rejects(kind.read(named, {}), { code: 'ERR_CONFIG', message: /no column 'tags' \(labelColumn\)/ })
})

t.test('a model learns which words are names', async (t) => {
  const names = ['ann', 'bo', 'cy', 'dee']
  const others = ['x', 'yes', 'zoo', 'was']
  const sentences = Array.from({ length: 16 }, (_, i): TaggedSentence => {
    const words = Array.from({ length: 4 }, (_, at) => (at % 2 === i % 2 ? names : others)[(i + at * 3) % 4]!)
    return { words, tags: words.map((word) => (names.includes(word) ? 'B-PER' : 'O')), line: i + 1 }
  })
  const task = taskOf(...sentences)
  const { losses, predictions } = await learn(task, sentences, tokenizer, { steps: 40, maxLength: 32 })
  t.ok(losses.at(-1)! < 0.2 * losses[0]!, `the loss goes from ${losses[0]} to ${losses.at(-1)}`)
  t.equal(task.metrics(sentences, predictions).f1, 1)
})
