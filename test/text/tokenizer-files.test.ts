/** Tokenizers from files and back: what is read from where, round trips, worker threads, damaged files. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import t from 'tap'
import {
  AutoTokenizer,
  createTokenizer,
  ElectraTokenizer,
  loadTokenizer,
  loadVocabulary,
  type TokenizerOptions,
} from '../../dist/text/index.js'

const vocabulary = [
  '[PAD]',
  '[UNK]',
  '[CLS]',
  '[SEP]',
  '[MASK]',
  'a',
  'B',
  'b',
  'café',
  'cafe',
  '##x',
  '12',
  '__proto__',
  '_',
]
const read = (folder: string, name: string): string => readFileSync(join(folder, name), 'utf8')

t.test('what is saved and loaded again is the same tokenizer, in every setting', async (t) => {
  const settings: Omit<TokenizerOptions, 'vocabulary'>[] = [
    {},
    { lowercase: false },
    { lowercase: true, stripAccents: false },
    { lowercase: false, stripAccents: true, handleChineseChars: false },
    { unicode: 'google' },
    {
      unicode: 'google',
      splitSpecialTokens: false,
      truncationOrder: 'huggingface',
      maxInputCharsPerWord: 50,
    },
    { modelMaxLength: 512, cleanUpTokenizationSpaces: false, cleanText: false },
    {
      addedTokens: [
        { content: 'new word', special: true, leftStrip: true },
        { content: 'b', singleWord: true },
      ],
    },
    {
      template: {
        single: [{ sequence: 'A', type: 0 }],
        pair: [
          { sequence: 'A', type: 0 },
          { sequence: 'B', type: 1 },
        ],
      },
    },
  ]
  for (const setting of settings) {
    const folder = t.testdir()
    const tokenizer = createTokenizer({ ...setting, vocabulary })
    await tokenizer.save(join(folder, 'deep', 'folder'))
    const again = await AutoTokenizer.fromPretrained(join(folder, 'deep', 'folder'))
    t.same(again.specification, tokenizer.specification, JSON.stringify(setting))
    t.same(again.vocabulary, tokenizer.vocabulary)
    await again.save(folder)
    for (const name of ['vocab.txt', 'tokenizer.json', 'tokenizer_config.json']) {
      t.equal(read(folder, name), read(join(folder, 'deep', 'folder'), name), `${name}: the same bytes`)
    }
  }
})

t.test('the files say what Hugging Face expects of them', async (t) => {
  const folder = t.testdir()
  await createTokenizer({ vocabulary, lowercase: false }).save(folder)
  t.equal(read(folder, 'vocab.txt'), `${vocabulary.join('\n')}\n`)
  const json = JSON.parse(read(folder, 'tokenizer.json'))
  t.equal(json.version, '1.0')
  t.same(json.normalizer, {
    type: 'BertNormalizer',
    clean_text: true,
    handle_chinese_chars: true,
    strip_accents: null,
    lowercase: false,
  })
  t.same(json.model.vocab.café, 8)
  t.equal(Object.keys(json.model.vocab).length, vocabulary.length)
  t.same(json.post_processor.special_tokens['[SEP]'], { id: '[SEP]', ids: [3], tokens: ['[SEP]'] })
  t.equal(json.added_tokens.length, 5)
  const config = JSON.parse(read(folder, 'tokenizer_config.json'))
  t.equal(config.do_lower_case, false)
  t.equal(config.tokenizer_class, 'ElectraTokenizer')
  t.match(read(folder, 'tokenizer_config.json'), '"model_max_length": 1000000000000000019884624838656')
  t.notOk('voltaic' in config, 'nothing of our own where theirs can say it')
})

t.test('tokenizer_config.json decides, tokenizer.json when asked or when there is no other', async (t) => {
  const folder = t.testdir()
  await createTokenizer({ vocabulary, lowercase: false, maxInputCharsPerWord: 7 }).save(folder)
  const config = join(folder, 'tokenizer_config.json')
  writeFileSync(config, JSON.stringify({ do_lower_case: true, model_max_length: 512 }))
  const usual = await loadTokenizer(folder)
  const raw = await loadTokenizer(folder, { reading: 'tokenizer_json' })
  t.same(usual.tokenize('CAFÉ'), ['cafe'])
  t.same(raw.tokenize('B café'), ['B', 'café'])
  t.equal(usual.modelMaxLength, 512)
  t.equal(usual.specification.maxInputCharsPerWord, 100)
  t.equal(raw.specification.maxInputCharsPerWord, 7)
  writeFileSync(config, JSON.stringify({ tokenizer_class: 'PreTrainedTokenizerFast' }))
  t.equal((await loadTokenizer(folder)).specification.lowercase, false, 'a class that follows tokenizer.json')
  writeFileSync(config, '{}')
  t.equal((await loadTokenizer(folder)).specification.lowercase, true, "a missing key is the class's default")
  t.equal(
    (await loadTokenizer(folder, { cased: true })).specification.stripAccents,
    false,
    'an option beats the files',
  )
  const alone = t.testdir({ 'tokenizer.json': read(folder, 'tokenizer.json') })
  t.equal((await loadTokenizer(alone)).specification.lowercase, false)
  t.equal((await loadVocabulary(join(alone, 'tokenizer.json'))).specification.maxInputCharsPerWord, 7)
})

t.test('vocab.txt: line ends, a last line with or without one, a token twice', async (t) => {
  const folder = t.testdir({
    'unix.txt': vocabulary.join('\n'),
    'windows.txt': `\ufeff${vocabulary.join('\r\n')}\r\n`,
    'twice.txt': `${vocabulary.join('\n')}\na\n`,
  })
  const unix = await loadVocabulary(join(folder, 'unix.txt'))
  t.same(unix.vocabulary, vocabulary)
  t.same((await loadVocabulary(join(folder, 'windows.txt'))).specification, unix.specification)
  const twice = await ElectraTokenizer.fromFile(join(folder, 'twice.txt'))
  t.equal(twice.tokenToId('a'), vocabulary.length, 'the later id counts')
  t.same(Array.from(twice.encode('a')), [vocabulary.length])
  t.equal(twice.vocabularySize, vocabulary.length + 1)
  t.same(ElectraTokenizer.fromVocabulary(vocabulary).specification, unix.specification)
  t.same(ElectraTokenizer.fromSpecification(unix.specification).specification, unix.specification)
})

t.test('a worker thread makes the same tokenizer of the specification', async (t) => {
  const tokenizer = createTokenizer({ vocabulary, lowercase: false, addedTokens: [{ content: 'added' }] })
  const url = new URL('../../dist/text/index.js', import.meta.url).href
  const source = `
    const { parentPort, workerData } = require('node:worker_threads')
    import(${JSON.stringify(url)}).then(({ createTokenizer }) => {
      const tokenizer = createTokenizer(workerData)
      let ids
      for (let i = 0; i < 2000; i++) ids = tokenizer.encode('a B café added axx')
      parentPort.postMessage(Array.from(ids))
    })`
  const workers = Array.from(
    { length: 3 },
    () =>
      new Promise((resolve, reject) => {
        const worker = new Worker(source, { eval: true, workerData: tokenizer.specification })
        worker.once('message', resolve).once('error', reject)
      }),
  )
  const expected = Array.from(tokenizer.encode('a B café added axx'))
  t.same(await Promise.all(workers), [expected, expected, expected])
})

t.test('files that are missing, damaged or of another kind are clear errors', async (t) => {
  const good = t.testdir()
  await createTokenizer({ vocabulary }).save(good)
  const json = JSON.parse(read(good, 'tokenizer.json'))
  const changed = (change: object): string => JSON.stringify({ ...json, ...change })
  const folder = t.testdir({
    empty: {},
    truncated: { 'tokenizer.json': read(good, 'tokenizer.json').slice(0, 500) },
    list: { 'tokenizer.json': '[]' },
    bpe: { 'tokenizer.json': changed({ model: { type: 'BPE', vocab: {}, merges: [] } }) },
    noVocabulary: { 'tokenizer.json': changed({ model: { type: 'WordPiece' } }) },
    hugeId: { 'tokenizer.json': changed({ model: { ...json.model, vocab: { a: 4e9 } } }) },
    normalizer: { 'tokenizer.json': changed({ normalizer: { type: 'NFC' } }) },
    processor: { 'tokenizer.json': changed({ post_processor: { type: 'RobertaProcessing' } }) },
    noMask: { 'vocab.txt': '[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n' },
    config: { 'vocab.txt': vocabulary.join('\n'), 'tokenizer_config.json': '{"do_lower_case": "yes"}' },
    binary: {},
  })
  writeFileSync(join(folder, 'binary', 'vocab.txt'), Uint8Array.from([0xff, 0xfe, 0]))
  const expected: readonly (readonly [string, string, RegExp])[] = [
    ['absent', 'ERR_IO', /absent/],
    ['empty', 'ERR_FORMAT', /tokenizer.json or vocab.txt/],
    ['truncated', 'ERR_FORMAT', /not JSON/],
    ['list', 'ERR_FORMAT', /JSON object/],
    ['bpe', 'ERR_UNSUPPORTED', /BPE/],
    ['noVocabulary', 'ERR_FORMAT', /model.vocab/],
    ['hugeId', 'ERR_FORMAT', /4000000000/],
    ['normalizer', 'ERR_UNSUPPORTED', /NFC/],
    ['processor', 'ERR_UNSUPPORTED', /RobertaProcessing/],
    ['noMask', 'ERR_FORMAT', /\[MASK\]/],
    ['config', 'ERR_FORMAT', /do_lower_case/],
    ['binary', 'ERR_FORMAT', /UTF-8/],
  ]
  for (const [name, code, message] of expected) {
    await t.rejects(loadTokenizer(join(folder, name)), { code, message }, name)
  }
  await t.rejects(loadVocabulary(join(folder, 'none.txt')), { code: 'ERR_IO' })
})
