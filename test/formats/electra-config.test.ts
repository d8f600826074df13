import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  defineElectraConfig,
  electraConfigToJson,
  formatElectraConfig,
  parseElectraConfig,
} from '../../dist/formats/electra-config.js'
import { pythonFloat, pythonJson } from '../../dist/formats/python-json.js'
import { needsSharedData, sharedData } from '../helpers/shared.js'

const parse = (json: unknown): ReturnType<typeof parseElectraConfig> =>
  parseElectraConfig(json, 'model/config.json')

t.test('an empty configuration is the released small discriminator', async (t) => {
  t.strictSame(parse({}), {
    architectures: [],
    vocabSize: 30522,
    embeddingSize: 128,
    hiddenSize: 256,
    numHiddenLayers: 12,
    numAttentionHeads: 4,
    intermediateSize: 1024,
    hiddenAct: 'gelu',
    hiddenDropoutProb: 0.1,
    attentionProbsDropoutProb: 0.1,
    maxPositionEmbeddings: 512,
    typeVocabSize: 2,
    initializerRange: 0.02,
    layerNormEps: 1e-12,
    padTokenId: 0,
    summaryType: 'first',
    summaryUseProj: true,
    summaryActivation: 'gelu',
    summaryLastDropout: 0.1,
    classifierDropout: null,
    tieWordEmbeddings: true,
    problemType: null,
    numLabels: 2,
    id2label: { 0: 'LABEL_0', 1: 'LABEL_1' },
    label2id: { LABEL_0: 0, LABEL_1: 1 },
    extra: {},
  })
  t.strictSame(defineElectraConfig(), parse({}))
})

t.test('files as they are found', async (t) => {
  t.test('quoted numbers and booleans count as what they say', async (t) => {
    const config = parse({
      hidden_size: '512',
      layer_norm_eps: '1e-12',
      hidden_dropout_prob: '.0',
      summary_use_proj: 'false',
    })
    t.equal(config.hiddenSize, 512)
    t.equal(config.layerNormEps, 1e-12)
    t.equal(config.hiddenDropoutProb, 0)
    t.equal(config.summaryUseProj, false)
  })

  t.test('null is the default, but no activation for the summary', async (t) => {
    const config = parse({
      pad_token_id: null,
      summary_activation: null,
      position_embedding_type: null,
      problem_type: null,
    })
    t.equal(config.padTokenId, 0)
    t.equal(config.summaryActivation, null)
  })

  t.test('unknown keys are kept for the way back', async (t) => {
    const json = {
      generator_size: '0.25',
      directionality: 'bidi',
      is_decoder: false,
      nested: { a: [1, null] },
    }
    const config = parse(json)
    t.strictSame(config.extra, json)
    t.match(electraConfigToJson(config), json)
  })

  t.test('labels come from id2label, or from num_labels', async (t) => {
    const named = parse({
      id2label: { 0: 'no', 1: 'maybe', 2: 'yes' },
      label2id: { no: '0', maybe: 1, yes: 2 },
    })
    t.equal(named.numLabels, 3)
    t.strictSame(named.label2id, { no: 0, maybe: 1, yes: 2 })
    t.strictSame(parse({ id2label: { 0: 'a', 1: 'b' } }).label2id, { a: 0, b: 1 })
    t.strictSame(parse({ num_labels: 1 }).id2label, { 0: 'LABEL_0' })
    t.equal(parse({ num_labels: 5, id2label: { 0: 'a' } }).numLabels, 1)
    t.equal(
      parse({ id2label: Object.fromEntries(Array.from({ length: 12 }, (_, i) => [i, `L${i}`])) })
        .id2label[11],
      'L11',
    )
  })
})

t.test(
  'values that do not fit are ERR_CONFIG with the file, the key, the value and what is expected',
  async (t) => {
    const rows: [json: unknown, message: RegExp][] = [
      [null, /expected a JSON object/],
      [[], /expected a JSON object/],
      ['text', /expected a JSON object/],
      [{ model_type: 'bert' }, /model_type is "bert"; expected "electra"/],
      [
        { position_embedding_type: 'relative_key' },
        /position_embedding_type is "relative_key"; expected "absolute"/,
      ],
      [{ is_decoder: true }, /is_decoder is true; expected false/],
      [{ hidden_size: 0 }, /hidden_size is 0; expected a whole number from 1/],
      [{ hidden_size: -256 }, /hidden_size is -256/],
      [{ hidden_size: 256.5 }, /hidden_size is 256\.5/],
      [{ hidden_size: 'wide' }, /hidden_size is "wide"/],
      [{ hidden_size: '' }, /hidden_size is ""/],
      [{ hidden_size: [256] }, /hidden_size is \[256\]/],
      [{ hidden_size: 2 ** 40 }, /hidden_size is 1099511627776/],
      [{ hidden_size: 250 }, /hidden_size is 250; expected a multiple of num_attention_heads, which is 4/],
      [
        { num_attention_heads: 3 },
        /hidden_size is 256; expected a multiple of num_attention_heads, which is 3/,
      ],
      [
        { vocab_size: 10, pad_token_id: 10 },
        /pad_token_id is 10; expected a number below vocab_size, which is 10/,
      ],
      [{ pad_token_id: -1 }, /pad_token_id is -1/],
      [{ hidden_act: 'swish' }, /hidden_act is "swish"; expected one of gelu, gelu_new/],
      [{ hidden_act: 'constructor' }, /hidden_act/],
      [{ hidden_dropout_prob: 1 }, /hidden_dropout_prob is 1; expected a probability/],
      [{ attention_probs_dropout_prob: -0.1 }, /attention_probs_dropout_prob is -0\.1/],
      [{ classifier_dropout: 'some' }, /classifier_dropout is "some"; expected a probability: .*, or null/],
      [{ layer_norm_eps: 0 }, /layer_norm_eps is 0; expected a finite number above 0/],
      [{ initializer_range: '1e999' }, /initializer_range is "1e999"/],
      [{ summary_use_proj: 1 }, /summary_use_proj is 1; expected true or false/],
      [{ summary_type: 'attn' }, /summary_type is "attn"; expected one of first/],
      [{ problem_type: 'guess' }, /problem_type is "guess"; expected one of regression/],
      [{ architectures: 'ElectraModel' }, /architectures is "ElectraModel"; expected a list/],
      [{ architectures: [1] }, /architectures is \[1\]/],
      [{ id2label: {} }, /id2label is \{\}; expected an object from "0"/],
      [{ id2label: ['a', 'b'] }, /id2label/],
      [{ id2label: { 0: 'a', 2: 'b' } }, /id2label/],
      [{ id2label: { 0: null } }, /id2label/],
      [{ id2label: { 0: 'a' }, label2id: { a: 1 } }, /label2id is \{"a":1\}; expected .* from 0 to 0/],
      [{ num_labels: 0 }, /num_labels is 0/],
      [{ num_labels: 1e9 }, /num_labels is 1000000000; expected a whole number from 1 to 1000000/],
    ]
    for (const [json, message] of rows) {
      t.throws(() => parse(json), { code: 'ERR_CONFIG', message }, JSON.stringify(json))
      t.throws(() => parse(json), { message: /^model\/config\.json: / })
    }
    t.throws(() => defineElectraConfig({ hiddenSize: 10 }), {
      code: 'ERR_CONFIG',
      message: /multiple of num_attention_heads/,
    })
    t.throws(() => defineElectraConfig({ numLabels: 3, id2label: { 0: 'a' } }), {
      code: 'ERR_CONFIG',
      message: /numLabels is 3/,
    })
    t.throws(
      () => parse({ hidden_act: 'x'.repeat(100_000) }),
      { message: /^.{0,600}$/ },
      'a long value is cut',
    )
  },
)

t.test('what is defined, written and read again is the same', async (t) => {
  const options = {
    architectures: ['ElectraForSequenceClassification'],
    hiddenSize: 64,
    numAttentionHeads: 1,
    classifierDropout: 0.25,
    summaryActivation: null,
    numLabels: 3,
    tieWordEmbeddings: false,
    problemType: 'multi_label_classification',
    extra: { transformers_version: '4.27.1' },
  } as const
  const config = defineElectraConfig(options)
  t.match(config, options)
  t.strictSame(parse(JSON.parse(formatElectraConfig(config))), config)
  t.strictSame(parse(electraConfigToJson(config)), config)
  const keys = Object.keys(electraConfigToJson(config))
  t.strictSame(keys, [...keys].sort(), 'in a stable order')
  t.notOk('id2label' in electraConfigToJson(defineElectraConfig()), 'default labels are left out')
})

t.test(
  'golden configurations, read and written again, are byte for byte the same',
  needsSharedData,
  async (t) => {
    const golden = join(sharedData ?? '', 'golden')
    const names = [
      'pretraining/config.json',
      'masked_lm/config.json',
      'sequence_classification/config.json',
      'sequence_regression/config.json',
      'token_classification/config.json',
      'question_answering/config.json',
      'no_embedding_projection/config.json',
      'joint_training/generator.config.json',
      'joint_training/discriminator.config.json',
    ]
    for (const name of names) {
      const text = readFileSync(join(golden, name), 'utf8')
      t.equal(formatElectraConfig(parseElectraConfig(JSON.parse(text), name)).trimEnd(), text.trimEnd(), name)
    }
  },
)

t.test('numbers and text print as Python prints them', async (t) => {
  const rows: [value: number, text: string][] = [
    [0, '0.0'],
    [-0, '-0.0'],
    [1, '1.0'],
    [0.1, '0.1'],
    [0.0001, '0.0001'],
    [0.00001, '1e-05'],
    [1e-12, '1e-12'],
    [1.5e-7, '1.5e-07'],
    [123456789012345, '123456789012345.0'],
    [1e16, '1e+16'],
    [1.7976931348623157e308, '1.7976931348623157e+308'],
    [5e-324, '5e-324'],
    [1 / 3, '0.3333333333333333'],
  ]
  for (const [value, text] of rows) t.equal(pythonFloat(value), text)
  t.equal(
    pythonJson({ b: [], a: {}, é: '😀\n\u007f"', n: null, t: true }),
    '{\n  "a": {},\n  "b": [],\n  "n": null,\n  "t": true,\n  "\\u00e9": "\\ud83d\\ude00\\n\\u007f\\""\n}',
  )
  t.equal(pythonJson({ 10: 'x', 9: 'y' }), '{\n  "9": "y",\n  "10": "x"\n}')
  t.equal(pythonJson({ L_9: 1, L_10: 2 }, new Set(['L_9'])), '{\n  "L_10": 2,\n  "L_9": 1.0\n}')
})
