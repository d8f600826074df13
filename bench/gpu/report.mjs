// The results of npm run gpu:bench as JSON and as one readable table, written anew after every row.
import { renameSync, writeFileSync } from 'node:fs'

const number = (value, digits) => (Number.isFinite(value) ? value.toFixed(digits) : '')
const microseconds = (seconds) => {
  const us = seconds * 1e6
  return number(us, us < 10 ? 2 : us < 1000 ? 1 : 0)
}
const spread = ({ median, least, most }) =>
  `-${number(100 * (1 - least / median), 1)} +${number(100 * (most / median - 1), 1)}%`
const ratio = (theirs, ours) =>
  theirs > 0 && theirs < Infinity && ours > 0 ? `${(theirs / ours).toFixed(2)}x` : ''
const giga = (bytes) => (bytes > 0 ? `${(bytes / 2 ** 30).toFixed(1)} GB` : '')

/** Why there is no time, in a few words. */
const reason = ({ error = '', code } = {}) => (code === 'ERR_UNSUPPORTED' ? 'no kernel' : error.slice(0, 60))

function stepLine({ name, ours, peers = {} }) {
  const compiled = [peers.default, peers['reduce-overhead']].filter(Boolean)
  const all = [peers.eager, ...compiled].filter((peer) => peer?.median > 0)
  const milliseconds = (peer, way) =>
    peer ? `${peer.median > 0 ? number(peer.median * 1000, 2) : reason(peer)} (${way})` : ''
  const best = Math.min(...all.map(({ median }) => median))
  const theirs = [
    milliseconds(peers.eager, peers.eager?.precision),
    compiled.map((peer) => milliseconds(peer, peer.mode)).join('; '),
  ]
  if (!ours.median) return [name, reason(ours), '', '', '', '', '', ...theirs, '', '']
  return [
    name,
    number(ours.median * 1000, 2),
    number(ours.sequencesPerSecond, 0),
    number(ours.tokensPerSecond, 0),
    `${number(ours.gflops / 1000, 1)}`,
    ours.percent ? `${number(ours.percent, 1)}%` : '',
    `${giga(ours.peakBytes)}${peers.eager?.peakBytes ? ` / ${giga(peers.eager.peakBytes)}` : ''}`,
    ...theirs,
    ratio(best, ours.median),
    spread(ours),
  ]
}

function kernelLine({ id, ours, peer, short }) {
  const theirs = peer?.median ? `${microseconds(peer.median)} (${peer.way})` : reason(peer)
  if (!ours.median) return [id, reason(ours), '', '', '', theirs, '', '']
  return [
    id,
    `${microseconds(ours.median)}${short ? ' *' : ''}`,
    number(ours.gigabytes, 0),
    number(ours.gflops / 1000, ours.gflops < 10_000 ? 2 : 0),
    ours.percent ? `${number(ours.percent, 0)}% ${ours.ceiling}` : '',
    theirs,
    ratio(peer?.median, ours.median),
    spread(ours),
  ]
}

function table(head, lines) {
  const cells = [head, ...lines].map((line) => line.map((cell) => String(cell).replaceAll('|', '/')))
  const widths = head.map((_, i) => Math.max(3, ...cells.map((line) => line[i].length)))
  const text = (line) => `| ${line.map((cell, i) => cell.padEnd(widths[i])).join(' | ')} |`
  const rule = `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`
  return [text(cells[0]), rule, ...cells.slice(1).map(text)].join('\n')
}

/** The table as Markdown. */
export function markdown(results) {
  const { device, ceilings, rows, notes } = results
  const steps = rows.filter(({ kind }) => kind === 'step')
  const kernels = rows.filter(({ kind }) => kind === 'row')
  const parts = [
    `# ${device.name}, ${results.when}`,
    [
      ...notes,
      results.card
        ? `Card: ${results.card.name}, driver ${results.card.driver}, ${results.card.memory}.`
        : '',
      `Voltaic ${results.version}: ${device.instructionSet}, ${device.buildInfo}${device.matmulLibrary ? `; products: ${device.matmulLibrary}` : ''}.`,
      results.torch
        ? `PyTorch ${results.torch.torch}, CUDA ${results.torch.cuda}.`
        : 'No Python with PyTorch: nothing to compare with.',
      ceilings
        ? `Ceilings of this run: copy ${number(ceilings.copyBytesPerSecond / 1e9, 0)} GB/s (Voltaic ${number(ceilings.own.copyBytesPerSecond / 1e9, 0)}` +
          `, PyTorch ${number(ceilings.torch.copyBytesPerSecond / 1e9, 0) || 'none'}), product ${number(ceilings.productFlops / 1e12, 1)} TFLOP/s ` +
          `(Voltaic ${number(ceilings.own.productFlops / 1e12, 1)}, PyTorch ${number(ceilings.torch.productFlops / 1e12, 1) || 'none'}); ` +
          `${ceilings.what}. A kernel that does nothing takes ${microseconds(ceilings.launchSeconds)} us in a graph, ${microseconds(ceilings.queueSeconds)} us queued alone.`
        : '',
    ]
      .filter(Boolean)
      .join('\n\n'),
  ]
  if (steps.length > 0)
    parts.push(
      `## Whole pre-training steps\n\n${table(
        [
          'step',
          'ms',
          'sequences/s',
          'tokens/s',
          'TFLOP/s',
          '% of product',
          'memory, ours / PyTorch',
          'PyTorch eager, ms',
          'compiled, ms',
          "PyTorch's best / ours",
          'spread',
        ],
        steps.map(stepLine),
      )}`,
    )
  if (kernels.length > 0)
    parts.push(
      `## Kernels\n\nTimes in microseconds, medians of rounds; * says how fast kernels are launched rather than how fast they run.\n\n${table(
        ['kernel', 'us', 'GB/s', 'TFLOP/s', '% of ceiling', 'PyTorch, us', 'PyTorch / ours', 'spread'],
        kernels.map(kernelLine),
      )}`,
    )
  if (results.leftOut.length > 0) parts.push(`Left out for lack of time: ${results.leftOut.join('; ')}.`)
  return `${parts.join('\n\n')}\n`
}

function write(file, text) {
  writeFileSync(`${file}.part`, text)
  renameSync(`${file}.part`, file)
}

/** Writes both files: whole ones at every moment. */
export function writeReport(base, results) {
  write(`${base}.json`, `${JSON.stringify(results, null, 1)}\n`)
  write(`${base}.md`, markdown(results))
}
