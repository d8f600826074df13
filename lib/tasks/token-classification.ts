/**
 * A label for each word of a sentence: entities as BIO or BIOES, parts of speech, or any tags. A word is labelled, and predicted, at
 * its first piece. A sentence that is too long is cut into windows that overlap; each word counts in the window where it has most
 * context, so none is lost and none is learned from twice.
 */
import { ElectraForTokenClassification, type ElectraPreTrainedModel } from '../electra/index.js'
import type { ElectraConfig } from '../formats/electra-config.js'
import { VoltaicError } from '../runtime/errors.js'
import type { Tokenizer } from '../text/index.js'
import { bestClass } from './class-scores.js'
import { type TaggedSentence, tagNamesOf } from './conll.js'
import { tagParts } from './entities.js'
import { featureRows } from './feature-rows.js'
import { classificationReport } from './metrics-classification.js'
import { entityReport, tokenAccuracy } from './metrics-entities.js'
import { scoreTable } from './report-table.js'
import { readTagged } from './tagged-examples.js'
import type { Feature, FeatureOptions, Outputs, Task, TaskKind } from './task.js'
import { requireArchitecture } from './text-sequences.js'
import { windowWithMostContext } from './windows.js'

export interface TokenClassificationOptions {
  /**
   * Learn from all pieces of a word: those behind the first have its label, an I- where the first has a B-. Default false: from the
   * first alone, as the original and Hugging Face's examples do.
   */
  readonly labelAllPieces?: boolean | undefined
}

/** A window of a sentence. */
export interface TaggedFeature extends Feature {
  /** The words that this window decides about, by their numbers in the sentence. */
  readonly words: Int32Array
  /** Where the first piece of each of them stands in `inputIds`. */
  readonly places: Int32Array
  /** In training: a label a token, -100 where none is learned. */
  readonly labels?: Int32Array
}

type SentenceTask = Task<TaggedSentence, TaggedFeature, readonly string[]>

const ignored = -100
const className = 'ElectraForTokenClassification'

/** A sentence as windows. */
function sentenceWindows(
  words: readonly string[],
  tokenizer: Tokenizer,
  { maxLength, stride }: FeatureOptions,
): (Omit<TaggedFeature, 'example'> & { readonly wordIds: Int32Array })[] {
  const { single } = tokenizer.specification.template
  const room = maxLength - single.filter((piece) => 'token' in piece).length
  if (room < 1) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `maxLength is ${maxLength}, which the special tokens fill; expected room for words`,
    )
  }
  const shared = Math.min(stride ?? Math.floor(room / 4), Math.floor(room / 2))
  const { inputIds, tokenTypeIds, wordIds } = tokenizer([words], {
    isSplitIntoWords: true,
    maxLength,
    stride: shared,
    returnOverflowingTokens: true,
    returnWordIds: true,
  })
  const first = single.findIndex((piece) => 'sequence' in piece)
  const rows = inputIds.map((ids, row) => {
    const begin = row * (room - shared)
    const count = ids.length - (single.length - 1)
    return { begin, end: begin + count, wordIds: (wordIds as Int32Array[])[row] as Int32Array }
  })
  // Windows come in order and leave no token out: where a word is seen first, there is its first piece.
  const firstPieces = new Map<number, number>()
  for (const { begin, end, wordIds } of rows) {
    for (let token = begin; token < end; token++) {
      const word = wordIds[first + token - begin] as number
      if (!firstPieces.has(word)) firstPieces.set(word, token)
    }
  }
  const owned: [word: number, place: number][][] = rows.map(() => [])
  for (const [word, token] of firstPieces) {
    const row = windowWithMostContext(rows, token)
    owned[row]?.push([word, first + token - (rows[row]?.begin as number)])
  }
  return rows.map(({ wordIds }, row) => ({
    inputIds: inputIds[row] as Int32Array,
    tokenTypeIds: tokenTypeIds[row] as Int32Array,
    words: Int32Array.from(owned[row] ?? [], ([word]) => word),
    places: Int32Array.from(owned[row] ?? [], ([, place]) => place),
    wordIds,
  }))
}

/** The label of a word's later pieces: of B-X that of I-X, if there is one. */
function innerLabels(labels: readonly string[]): number[] {
  return labels.map((label, id) => {
    const { prefix, type } = tagParts(label)
    const inner = prefix === 'B' ? labels.indexOf(`I-${type}`) : -1
    return inner < 0 ? id : inner
  })
}

class TokenClassification implements SentenceTask {
  readonly name = 'token-classification'
  readonly model = ElectraForTokenClassification
  readonly config: Partial<ElectraConfig>
  readonly metric: 'f1' | 'accuracy'
  readonly #labels: readonly string[]
  readonly #ids: ReadonlyMap<string, number>
  readonly #inner: readonly number[] | undefined
  /** What a word without a piece gets. */
  readonly #outside: string

  constructor(labels: readonly string[], { labelAllPieces = false }: TokenClassificationOptions) {
    this.#labels = labels
    this.#ids = new Map(labels.map((label, id) => [label, id]))
    this.#inner = labelAllPieces ? innerLabels(labels) : undefined
    this.#outside = this.#ids.has('O') ? 'O' : '_'
    this.config = {
      architectures: [className],
      id2label: Object.fromEntries(labels.entries()),
      label2id: Object.fromEntries(this.#ids),
    }
    const isEntities = labels.some((label) => label !== 'O')
    this.metric =
      isEntities && labels.every((label) => label === 'O' || tagParts(label).prefix !== '')
        ? 'f1'
        : 'accuracy'
  }

  #idOf(tag: string | undefined, { line }: TaggedSentence): number {
    const id = tag === undefined ? undefined : this.#ids.get(tag)
    if (id !== undefined) return id
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `the sentence on line ${line} has ${tag === undefined ? 'no tags' : `the tag '${tag}'`}; the task's ${this.#labels.length} labels ` +
        `are ${this.#labels.slice(0, 20).join(', ')}`,
    )
  }

  features(
    examples: readonly TaggedSentence[],
    tokenizer: Tokenizer,
    options: FeatureOptions,
  ): TaggedFeature[] {
    return examples.flatMap((sentence, example) => {
      const windows = sentenceWindows(sentence.words, tokenizer, options)
      return windows.flatMap(({ wordIds, ...window }): TaggedFeature[] => {
        if (!options.training) return [{ example, ...window }]
        if (window.words.length === 0) return []
        return [{ example, ...window, labels: this.#labelled(sentence, window, wordIds) }]
      })
    })
  }

  #labelled(
    sentence: TaggedSentence,
    { words, places }: Pick<TaggedFeature, 'words' | 'places'>,
    wordIds: Int32Array,
  ): Int32Array {
    const labels = new Int32Array(wordIds.length).fill(ignored)
    for (const [at, word] of words.entries()) {
      const place = places[at] as number
      const id = this.#idOf(sentence.tags[word], sentence)
      labels[place] = id
      if (this.#inner === undefined) continue
      for (let next = place + 1; wordIds[next] === word; next++) labels[next] = this.#inner[id] as number
    }
    return labels
  }

  loss(model: ElectraPreTrainedModel, batch: readonly TaggedFeature[]) {
    const labels = batch.map(({ labels }) => {
      if (labels !== undefined) return labels
      throw new VoltaicError(
        'ERR_ARGUMENT',
        'loss: a feature without labels; expected features made with training: true',
      )
    })
    const { loss, logits, offsets } = taggerOf(model).forward({ ...featureRows(batch), labels })
    logits.dispose()
    offsets.dispose()
    return loss
  }

  async outputs(model: ElectraPreTrainedModel, batch: readonly TaggedFeature[]): Promise<Outputs[]> {
    const { logits, offsets } = taggerOf(model).forward(featureRows(batch))
    offsets.dispose()
    const width = logits.shape[1] as number
    const data = (await logits.data()) as Float32Array
    logits.dispose()
    let end = 0
    return batch.map(({ inputIds }) => {
      const start = end
      end += inputIds.length * width
      return { logits: data.subarray(start, end) }
    })
  }

  decode(
    examples: readonly TaggedSentence[],
    features: readonly TaggedFeature[],
    outputs: readonly Outputs[],
  ): string[][] {
    const width = this.#labels.length
    const predictions = examples.map(({ words }) => new Array<string>(words.length).fill(this.#outside))
    for (const [index, { example, inputIds, words, places }] of features.entries()) {
      const logits = outputs[index]?.logits
      if (logits?.length !== inputIds.length * width) {
        throw new VoltaicError(
          'ERR_ARGUMENT',
          `outputs: ${logits?.length ?? 'no'} logits for feature ${index} of ${inputIds.length} tokens; expected ${width} a token`,
        )
      }
      for (const [at, word] of words.entries()) {
        const place = places[at] as number
        const best = bestClass(logits.subarray(place * width, (place + 1) * width))
        const tags = predictions[example] as string[]
        tags[word] = this.#labels[best] as string
      }
    }
    return predictions
  }

  metrics(
    examples: readonly TaggedSentence[],
    predictions: readonly (readonly string[])[],
  ): Record<string, number> {
    const tags = examples.map((example) => example.tags)
    const accuracy = tokenAccuracy(tags, predictions)
    if (this.metric === 'accuracy') return { accuracy }
    const { precision, recall, f1 } = entityReport(tags, predictions)
    return { f1, precision, recall, accuracy }
  }

  report(examples: readonly TaggedSentence[], predictions: readonly (readonly string[])[]): string {
    const tags = examples.map((example) => example.tags)
    if (this.metric === 'f1') {
      const { byType, macro, weighted, ...micro } = entityReport(tags, predictions)
      return scoreTable(byType, [
        { label: 'micro average', ...micro },
        { label: 'macro average', ...macro },
        { label: 'weighted average', ...weighted },
      ])
    }
    const names = [...new Set([...this.#labels, ...tags.flat(), ...predictions.flat()])]
    const ids = new Map(names.map((name, id) => [name, id]))
    const classes = (rows: readonly (readonly string[])[]) => rows.flat().map((tag) => ids.get(tag) as number)
    const { byLabel, macro, weighted } = classificationReport(classes(tags), classes(predictions), names)
    return scoreTable(byLabel, [
      { label: 'macro average', ...macro },
      { label: 'weighted average', ...weighted },
    ])
  }

  record({ words, tags }: TaggedSentence, prediction: readonly string[]): Record<string, unknown> {
    return { words, tags: prediction, ...(tags.length > 0 && { labels: tags }) }
  }
}

function taggerOf(model: ElectraPreTrainedModel): ElectraForTokenClassification {
  if (model instanceof ElectraForTokenClassification) return model
  throw new VoltaicError(
    'ERR_ARGUMENT',
    `the model is an ${model.architecture}; expected an ElectraForTokenClassification`,
  )
}

/** Tagging, from files of CoNLL columns, CoNLL-U or JSON lines (`readTagged`). */
export function tokenClassification(
  options: TokenClassificationOptions = {},
): TaskKind<TaggedSentence, TaggedFeature, readonly string[]> {
  return {
    name: 'token-classification',
    defaults: { epochs: 3, maxLength: 128 },
    read: readTagged,
    learn(sentences) {
      const labels = tagNamesOf(sentences)
      if (labels.length > 0) return new TokenClassification(labels, options)
      throw new VoltaicError('ERR_ARGUMENT', 'token-classification: no sentence with tags to learn from')
    },
    restore(config) {
      requireArchitecture(config, className, 'token-classification')
      const labels = Array.from({ length: config.numLabels }, (_, id) => config.id2label[id] as string)
      return new TokenClassification(labels, options)
    },
  }
}
