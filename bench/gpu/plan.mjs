// What npm run gpu:bench runs, the most telling first: a run that is cut short has measured what matters.
const dropoutLast = (a, b) => Number(b.name.includes('dropout 0.1')) - Number(a.name.includes('dropout 0.1'))

/** Whole steps: the same tokens at both lengths. */
export function stepsOf(scale) {
  if (scale !== 'gpu') {
    const model = {
      numHiddenLayers: 1,
      hiddenSize: 32,
      numAttentionHeads: 2,
      intermediateSize: 64,
      embeddingSize: 16,
    }
    return [{ size: 'tiny', model, batchSize: 2, sequenceLength: 16, vocabulary: 60 }]
  }
  const sequences = { small: 512, base: 128, large: 64 }
  return [128, 512].flatMap((sequenceLength) =>
    Object.entries(sequences).map(([size, count]) => ({
      size,
      batchSize: (count * 128) / sequenceLength,
      sequenceLength,
    })),
  )
}

export const stepName = ({ size, batchSize, sequenceLength }) =>
  `${size}, ${batchSize} sequences of ${sequenceLength}, bf16, dropout 0.1`

/**
 * The run's items in order. kind 'step': both sides' whole step, PyTorch eager; 'compiled': PyTorch's alone, added to the step's row;
 * 'row': a kernel, `own` with the matmul library turned off.
 */
export function planOf(rows, scale, { withoutLibrary }) {
  // The same objects for a step and its compiled form: they share a row.
  const all = stepsOf(scale)
  const step = (wanted) =>
    all.filter(wanted).map((entry) => ({ kind: 'step', id: `step: ${stepName(entry)}`, step: entry }))
  const compiled = (mode, wanted) =>
    step(wanted).map((item) => ({ ...item, kind: 'compiled', mode, id: `${item.id}, torch.compile ${mode}` }))
  const family = (...names) =>
    names.flatMap((name) =>
      rows
        .filter((row) => row.family === name)
        .sort(dropoutLast)
        .map((row) => ({ kind: 'row', id: `${name}: ${row.name}`, row })),
    )
  const own = family('gemm').map((item) => ({
    ...item,
    own: true,
    id: `${item.id}, own kernel`,
    row: { ...item.row, peer: undefined },
  }))
  const is = (name) => (entry) => entry.size === name && entry.sequenceLength === 128
  const [first, second] = scale === 'gpu' ? [is('base'), is('small')] : [() => true, () => false]
  const others = (entry) => !first(entry) && !second(entry)
  return [
    ...step(first),
    ...step(second),
    ...family('attention'),
    ...compiled('default', first),
    ...family('layer_norm', 'activation', 'vocabulary_head', 'optimizer', 'discriminator_head', 'embedding'),
    ...family('gemm'),
    ...compiled('default', second),
    ...step(others),
    ...compiled('reduce-overhead', second),
    ...(withoutLibrary ? own : []),
    ...family('corruption', 'rows', 'softmax', 'elementwise', 'reduction', 'random'),
    ...compiled('default', others),
  ]
}

/** Ops whose eager form is several kernels: there PyTorch's compiler is timed too. */
const severalKernels = new Set([
  'dropout_residual_layer_norm',
  'embedding',
  'cross_entropy',
  'discriminator_head',
])

/** The ways of a peer's op that are not worth the seconds they take. */
export const leaveOut = ({ op, epilogue = 0 }) =>
  severalKernels.has(op) || epilogue >= 2 ? [] : ['compiled']
