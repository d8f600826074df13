/** What `voltaic inspect` found, as text. */
import { relative } from 'node:path'
import type {
  CorpusInspection,
  LengthSummary,
  NearDuplicateSummary,
  Oddity,
  OddityKind,
  RepeatSummary,
  VocabularyCoverage,
} from '../data/index.js'
import { formatBytes, formatCount } from './format.js'

const barWidth = 40

const oddityNames: Readonly<Record<OddityKind, string>> = {
  replacement: 'replacement characters: bytes that were not UTF-8, here or earlier',
  control: 'control characters',
  'private-use': 'private-use characters: no meaning outside one font or program',
  unassigned: 'code points that Unicode does not assign',
  invisible: 'invisible characters: soft hyphens, zero-width spaces, fillers',
  'direction-mark': 'direction marks',
  'unusual-space': 'spaces other than U+0020',
  mojibake: 'mojibake: UTF-8 that was read as Latin-1 or Windows-1252',
  tag: 'tags of HTML or XML',
  entity: 'entities of HTML',
}

function percent(share: number): string {
  const value = 100 * share
  if (value === 0) return '0 %'
  if (value < 0.01) return '< 0.01 %'
  return `${value < 1 ? value.toFixed(2) : value.toFixed(1)} %`
}

function placeName({ file, line }: { readonly file: string; readonly line: number }): string {
  const near = relative('', file)
  return `${near.startsWith('..') ? file : near}:${line}`
}

function lengthRow(name: string, lengths: LengthSummary): string {
  const { minimum, p5, p25, median, p75, p95, p99, maximum, mean } = lengths
  const numbers = [minimum, p5, p25, median, p75, p95, p99, maximum, mean]
  return `  ${name.padEnd(22)}${numbers.map((value) => formatCount(value).padStart(8)).join('')}`
}

function histogram(name: string, { histogram: bins, count }: LengthSummary): string[] {
  const most = Math.max(...bins.map((bin) => bin.count))
  return [
    '',
    `  ${name}`,
    ...bins.map((bin) => {
      const range = `${formatCount(bin.from)} to ${formatCount(bin.to - 1)}`
      const length = (bin.count / most) * barWidth
      const bar = bin.count > 0 && length < 0.5 ? '.' : '#'.repeat(Math.round(length))
      return `  ${range.padStart(18)} ${bar.padEnd(barWidth)} ${percent(bin.count / count)}`
    }),
  ]
}

function repeats(name: string, summary: RepeatSummary, total: number, characters: number): string[] {
  const { repeats: count, repeatedCharacters, sampled, frequent } = summary
  const about = sampled < 1 ? `about (1 of ${1 / sampled} counted) ` : ''
  const lines = [
    `  ${name}: ${about}${formatCount(count)} of ${formatCount(total)} repeat an earlier one (${percent(count / total)}; ${percent(repeatedCharacters / characters)} of the text)`,
  ]
  for (const text of frequent)
    lines.push(`    ${formatCount(text.count)} x  ${text.text}  (${placeName(text)})`)
  return lines
}

function nearDuplicates(summary: NearDuplicateSummary, documents: number, characters: number): string[] {
  const lines = [
    `  near-duplicate documents: ${formatCount(summary.documents)} (${percent(summary.documents / documents)}; ${percent(summary.characters / characters)} of the text)` +
      (summary.tooShort > 0 ? `; ${formatCount(summary.tooShort)} too short to compare` : ''),
  ]
  for (const example of summary.examples)
    lines.push(`    ${placeName(example)} is like ${placeName(example.of)}: ${percent(example.similarity)}`)
  return lines
}

function oddity({ kind, count, documents, frequent, examples }: Oddity): string[] {
  const lines = [
    `  ${oddityNames[kind]}: ${formatCount(count)} in ${formatCount(documents)} document${documents === 1 ? '' : 's'}`,
    `    ${frequent.map((item) => `${item.form} (${formatCount(item.count)})`).join(', ')}`,
  ]
  for (const example of examples) lines.push(`    ${placeName(example)}: ${example.text}`)
  return lines
}

/** Scripts with a letter in ten thousand or more by name, the others by number. */
function scriptMix(scripts: CorpusInspection['scripts']): string {
  if (scripts.length === 0) return 'none'
  const named = scripts.filter(({ share }, at) => at === 0 || share >= 1e-4)
  const texts = named.map(({ script, share }) => `${script} ${percent(share)}`)
  const others = scripts.length - named.length
  return `${texts.join(', ')}${others > 0 ? `, traces of ${others} more` : ''}`
}

function coverage(vocabulary: VocabularyCoverage): string[] {
  const words = vocabulary.unknownWords.map(({ word, count }) => `${word} (${formatCount(count)})`)
  return [
    '',
    `Vocabulary of ${formatCount(vocabulary.vocabularySize)}`,
    `  tokens            ${formatCount(vocabulary.tokens)}`,
    `  unknown           ${percent(vocabulary.unknownShare)}${words.length > 0 ? `: ${words.join(', ')}` : ''}`,
    `  pieces a word     ${vocabulary.piecesPerWord.toFixed(2)}`,
    `  single letters    ${percent(vocabulary.singleLetterShare)} of the tokens`,
    `  never used        ${formatCount(vocabulary.unusedEntries)} of ${formatCount(vocabulary.vocabularySize)} entries${vocabulary.unusedExamples.length > 0 ? `, such as ${vocabulary.unusedExamples.join(', ')}` : ''}`,
  ]
}

/** A report for people; `--json` has the same numbers, unrounded. */
export function inspectionReport(found: CorpusInspection): string {
  const { lengths, documents, characters } = found
  const heads = ['min', '5 %', '25 %', 'median', '75 %', '95 %', '99 %', 'max', 'mean']
  const lines = [
    `${formatCount(found.files)} ${found.files === 1 ? 'file' : 'files'}, ${formatBytes(found.storedBytes)}: ` +
      `${formatCount(documents)} documents, ${formatCount(found.lines)} lines, ${formatCount(found.words)} words, ` +
      `${formatCount(characters)} characters, ${formatBytes(found.bytes)} of text`,
    '',
    `Lengths${' '.repeat(17)}${heads.map((head) => head.padStart(8)).join('')}`,
    lengthRow('document, characters', lengths.documentCharacters),
    lengthRow('document, words', lengths.documentWords),
    ...(lengths.documentTokens ? [lengthRow('document, tokens', lengths.documentTokens)] : []),
    lengthRow('line, characters', lengths.lineCharacters),
    ...histogram('characters of a document', lengths.documentCharacters),
    ...histogram('characters of a line', lengths.lineCharacters),
    '',
    'Duplicates',
    ...repeats('documents', found.duplicateDocuments, documents, characters),
    ...nearDuplicates(found.nearDuplicates, documents, characters),
    ...repeats('lines', found.duplicateLines, found.lines, characters),
    '',
    'Languages',
    `  letters by script: ${scriptMix(found.scripts)}`,
    `  documents that look like: ${found.languages.map(({ looksLike, share }) => `${looksLike} ${percent(share)}`).join(', ')}`,
    '',
    'Odd characters and remains',
    ...(found.oddities.length > 0 ? found.oddities.flatMap(oddity) : ['  none found']),
  ]
  for (const { file, malformed, firstMalformedLine, cuts } of found.warnings) {
    if (malformed > 0)
      lines.push(
        `  ${placeName({ file, line: firstMalformedLine })}: ${formatCount(malformed)} malformed UTF-8 sequences, the first near this line`,
      )
    if (cuts > 0)
      lines.push(`  ${relative('', file)}: ${formatCount(cuts)} cuts of documents longer than 1 MiB`)
  }
  if (found.vocabulary) lines.push(...coverage(found.vocabulary))
  return `${lines.join('\n')}\n`
}
