/** Tables for people: scores by label, and which labels are taken for which. */
import type { LabelScores } from './metrics-classification.js'

/** What a terminal shows without breaking lines. */
const terminalWidth = 80
const widestLabel = 36

/** Cut to so many characters. */
function short(text: string, width: number): string {
  const characters = [...text.replace(/\s+/g, ' ')]
  return characters.length <= width ? characters.join('') : `${characters.slice(0, width - 1).join('')}…`
}

const lengthOf = (text: string): number => [...text].length
const padLeft = (text: string, width: number): string =>
  ' '.repeat(Math.max(0, width - lengthOf(text))) + text
const padRight = (text: string, width: number): string =>
  text + ' '.repeat(Math.max(0, width - lengthOf(text)))

/** Columns as wide as their widest cell; the first is aligned to the left, the others to the right. */
export function textTable(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => lengthOf(row[column] ?? ''))),
  )
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => (column === 0 ? padRight : padLeft)(cell, widths[column] as number))
      .join('  ')
      .trimEnd()
  return rows.map(line).join('\n')
}

function scoreRow({ label, precision, recall, f1, support }: LabelScores): string[] {
  const scores = [precision, recall, f1].map((score) => score.toFixed(3))
  return [short(label, widestLabel), ...scores, String(support)]
}

/** Precision, recall, F1 and examples, a line each; the averages stand below a blank line. */
export function scoreTable(labels: readonly LabelScores[], averages: readonly LabelScores[]): string {
  const header = ['', 'precision', 'recall', 'F1', 'examples']
  const lines = textTable([header, ...labels.map(scoreRow), ...averages.map(scoreRow)]).split('\n')
  return [...lines.slice(0, labels.length + 1), '', ...lines.slice(labels.length + 1)].join('\n')
}

type Matrix = readonly (readonly number[])[]

/** The whole matrix, columns by number. */
function matrixTable(names: readonly string[], matrix: Matrix): string {
  const numbered = names.map((name, label) => `${label + 1} ${short(name, 24)}`)
  const header = ['', ...names.map((_, label) => String(label + 1))]
  return textTable([header, ...matrix.map((row, label) => [numbered[label] as string, ...row.map(String)])])
}

/** The pairs that are confused most often, at most 20 of them. */
function confusionList(names: readonly string[], matrix: Matrix): string {
  const pairs = matrix.flatMap((row, label) =>
    row.flatMap((count, prediction) =>
      count > 0 && label !== prediction ? [{ count, label, prediction }] : [],
    ),
  )
  const most = pairs.sort((a, b) => b.count - a.count).slice(0, 20)
  const name = (label: number): string => short(names[label] as string, 32)
  const rows = most.map(({ count, label, prediction }) => [name(label), name(prediction), String(count)])
  return rows.length === 0 ? '' : textTable([['label', 'predicted', 'examples'], ...rows])
}

/** Which labels were predicted for which: the matrix where it fits a terminal, else its largest entries. */
export function confusionTable(names: readonly string[], matrix: Matrix): string {
  const whole = names.length <= terminalWidth / 3 ? matrixTable(names, matrix) : undefined
  if (whole?.split('\n').every((line) => lengthOf(line) <= terminalWidth)) {
    return `rows: labels; columns: predictions\n${whole}`
  }
  return confusionList(names, matrix)
}
