/** Folders of tokenizers as earlier versions wrote them, and folders whose files contradict each other. */
import t, { type Test } from 'tap'
import { createTokenizer, loadTokenizer, type Tokenizer } from '../../dist/text/index.js'
import { tokenizerFiles } from '../../dist/text/tokenizer-files.js'

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
  '<s>',
  '</s>',
]
const text = `${vocabulary.join('\n')}\n`
const json = (value: object): string => JSON.stringify(value)
/** A tokenizer.json of a cased tokenizer. */
const cased = tokenizerFiles(createTokenizer({ vocabulary, lowercase: false }).specification)[
  'tokenizer.json'
] as string
const changed = (change: (document: { added_tokens: object[] }) => void): string => {
  const document = JSON.parse(cased)
  change(document)
  return JSON.stringify(document)
}

/** Loads a folder of these files, and gives the warnings that came. */
async function load(
  t: Test,
  files: Record<string, string>,
): Promise<{ tokenizer: Tokenizer; warnings: string[] }> {
  const warnings: string[] = []
  const listen = (warning: Error): void => void warnings.push(warning.message)
  process.on('warning', listen)
  try {
    const tokenizer = await loadTokenizer(t.testdir(files))
    // Warnings are emitted in the next turn.
    await new Promise(setImmediate)
    return { tokenizer, warnings }
  } finally {
    process.off('warning', listen)
  }
}

t.test('special_tokens_map.json names the special tokens', async (t) => {
  const map = json({ cls_token: '<s>', sep_token: { content: '</s>', lstrip: false }, mask_token: '[MASK]' })
  const files = { 'vocab.txt': text, 'special_tokens_map.json': map }
  const { tokenizer } = await load(t, files)
  t.same([tokenizer.clsTokenId, tokenizer.sepTokenId], [10, 11])
  t.same(Array.from(tokenizer('a').inputIds[0] ?? []), [10, 5, 11])
  const config = { cls_token: '[CLS]', sep_token: '[SEP]' }
  const both = await load(t, { ...files, 'tokenizer_config.json': json(config) })
  t.equal(both.tokenizer.clsTokenId, 10, 'it counts more than a tokenizer_config.json of its time')
  const now = { ...config, added_tokens_decoder: { 2: { content: '[CLS]', special: true } } }
  const later = await load(t, { ...files, 'tokenizer_config.json': json(now) })
  t.equal(later.tokenizer.clsTokenId, 2, 'and nothing where that lists all tokens')
  const withJson = await load(t, { 'tokenizer.json': cased, 'special_tokens_map.json': map })
  t.equal(withJson.tokenizer.clsTokenId, 10)
  const template = withJson.tokenizer('a').inputIds[0]
  t.same(Array.from(template ?? []), [2, 5, 3], 'the template is the one of tokenizer.json')
})

t.test('added_tokens.json, and additional special tokens', async (t) => {
  const files = {
    'vocab.txt': text,
    'added_tokens.json': json({ '[E1]': 12, newword: 14, b: 7 }),
    'special_tokens_map.json': json({ additional_special_tokens: ['[E1]', { content: '[E2]' }] }),
  }
  const { tokenizer } = await load(t, files)
  t.same(Array.from(tokenizer.encode('a[E1]newword[E2]')), [5, 12, 14, 15])
  t.equal(tokenizer.vocabularySize, 16)
  t.ok(tokenizer.specialTokenIds.includes(12), 'special, for its name is in the other file')
  t.notOk(tokenizer.specialTokenIds.includes(14))
  t.equal(tokenizer.decode([5, 12, 14], { skipSpecialTokens: true }), 'a newword')
  const inConfig = { ...files, 'tokenizer_config.json': json({ additional_special_tokens: ['<s>'] }) }
  t.ok(
    (await load(t, inConfig)).tokenizer.specialTokenIds.includes(10),
    'tokenizer_config.json may list some too',
  )
})

t.test('old forms of tokenizer_config.json', async (t) => {
  const of = async (config: object): Promise<Tokenizer> =>
    (await load(t, { 'vocab.txt': text, 'tokenizer_config.json': json(config) })).tokenizer
  t.same(
    (await of({ do_lower_case: 'False' })).tokenize('B café'),
    ['B', 'café'],
    'quoted, as Python writes it',
  )
  t.same((await of({ do_lower_case: 'true', strip_accents: 'false' })).tokenize('B café'), ['b', 'café'])
  t.same((await of({ do_lower_case: false, strip_accents: null })).tokenize('café'), ['café'])
  t.equal((await of({ tokenize_chinese_chars: 'false' })).specification.handleChineseChars, false)
  t.equal((await of({ max_len: 512 })).modelMaxLength, 512)
  t.equal((await of({ max_len: 256, model_max_length: 512 })).modelMaxLength, 512)
  t.equal((await of({ model_max_length: '512' })).modelMaxLength, 512)
  t.equal((await of({ model_max_length: 1e30 })).modelMaxLength, null)
  t.equal((await of({ model_max_length: '' })).modelMaxLength, null)
  t.equal(
    (await of({ do_basic_tokenize: true, never_split: null, name_or_path: 'x', init_inputs: [] }))
      .modelMaxLength,
    null,
  )
})

t.test('every combination of files gives the same tokenizer', async (t) => {
  const files = tokenizerFiles(createTokenizer({ vocabulary, modelMaxLength: 512 }).specification)
  const older = {
    'vocab.txt': text,
    'tokenizer_config.json': json({ do_lower_case: true, model_max_length: 512 }),
    'special_tokens_map.json': json({ unk_token: '[UNK]', sep_token: '[SEP]', pad_token: '[PAD]' }),
    'added_tokens.json': '{}',
  }
  const pick = (from: Record<string, string>, ...names: string[]): Record<string, string> =>
    Object.fromEntries(names.map((name) => [name, from[name] as string]))
  const expected = (await load(t, files)).tokenizer.specification
  const unlimited = { ...expected, modelMaxLength: null }
  for (const [folder, specification] of [
    [pick(files, 'tokenizer.json', 'tokenizer_config.json'), expected],
    [pick(files, 'vocab.txt', 'tokenizer_config.json'), expected],
    [pick(files, 'vocab.txt', 'tokenizer.json'), unlimited],
    [pick(files, 'tokenizer.json'), unlimited],
    [pick(files, 'vocab.txt'), unlimited],
    [older, expected],
    [{ ...older, ...pick(files, 'tokenizer.json') }, expected],
    [pick(older, 'vocab.txt', 'special_tokens_map.json'), unlimited],
    [pick(older, 'vocab.txt', 'added_tokens.json'), unlimited],
  ] as const) {
    const { tokenizer, warnings } = await load(t, folder)
    t.same(tokenizer.specification, specification, Object.keys(folder).join(', '))
    t.same(warnings, [], 'nothing contradicts')
  }
})

t.test('contradictions are said', async (t) => {
  const longer = await load(t, { 'tokenizer.json': cased, 'vocab.txt': `${text}more\n` })
  t.match(longer.warnings, [/tokenizer\.json has none for id 12, vocab\.txt "more"; tokenizer\.json counts/])
  const other = await load(t, { 'tokenizer.json': cased, 'vocab.txt': text.replace('\na\n', '\nz\n') })
  t.match(other.warnings, [/tokenizer\.json has "a" for id 5, vocab\.txt "z"; tokenizer\.json counts/])
  t.equal(other.tokenizer.tokenToId('a'), 5)
  const shorter = await load(t, { 'tokenizer.json': cased, 'vocab.txt': text.replace('</s>\n', '') })
  t.match(shorter.warnings, [/tokenizer\.json has "<\/s>" for id 11, vocab\.txt none/])
  const lower = await load(t, { 'tokenizer.json': cased, 'tokenizer_config.json': '{}' })
  t.match(lower.warnings, [
    /lowercase is false in tokenizer\.json and true by tokenizer_config\.json.*tokenizer_config\.json counts/,
  ])
  t.equal(lower.tokenizer.specification.lowercase, true)
  const fast = {
    'tokenizer.json': cased,
    'tokenizer_config.json': '{"tokenizer_class":"PreTrainedTokenizerFast"}',
  }
  const follows = await load(t, fast)
  t.same(follows.warnings, [], 'its class says nothing of case')
  t.equal(follows.tokenizer.specification.lowercase, false)
})

t.test('damaged ones are clear errors', async (t) => {
  const twoForOne = changed((document) => document.added_tokens.push({ id: 5, content: 'x', special: false }))
  for (const [files, message] of [
    [{ 'special_tokens_map.json': '[' }, /special_tokens_map\.json: not JSON/],
    [{ 'special_tokens_map.json': '{"cls_token":3}' }, /special_tokens_map\.json: cls_token is 3/],
    [{ 'special_tokens_map.json': '{"cls_token":"[X]"}' }, /has no \[X\] \(clsToken\)/],
    [{ 'special_tokens_map.json': '{"additional_special_tokens":"x"}' }, /is not a list/],
    [{ 'added_tokens.json': '["x"]' }, /added_tokens\.json: expected a JSON object/],
    [{ 'added_tokens.json': '{"x":"12"}' }, /added_tokens\.json: the token "x" has the id "12"/],
    [{ 'added_tokens.json': '{"x":4000000000}' }, /has the id 4000000000, expected 0 to/],
    [{ 'added_tokens.json': '{"x":5}' }, /the added token "x" has the id 5, which is that of "a"/],
    [{ 'added_tokens.json': '{"x":12,"y":12}' }, /the added token "y" has the id 12, which is that of "x"/],
    [{ 'tokenizer.json': twoForOne }, /the added token "x" has the id 5/],
    [{ 'tokenizer_config.json': '{"do_lower_case":"yes"}' }, /do_lower_case is "yes"/],
  ] as const) {
    await t.rejects(loadTokenizer(t.testdir({ 'vocab.txt': text, ...files })), {
      code: 'ERR_FORMAT',
      message,
    })
  }
})
