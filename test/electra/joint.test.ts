import t, { type Test } from 'tap'
import {
  ElectraForJointPreTraining,
  ElectraForMaskedLM,
  ElectraForPreTraining,
  generatorConfig,
  type JointForwardOptions,
  type JointOptions,
  maskedCapacity,
} from '../../dist/electra/index.js'
import type { ElectraConfig } from '../../dist/formats/electra-config.js'
import { AdamW } from '../../dist/optim/index.js'
import { setThreads, threads } from '../../dist/runtime/index.js'
import { discriminatorMetricsSize, RandomState, scope, type Tensor, zeros } from '../../dist/tensor/index.js'
import { device, rowsOf, smallConfig, special, typesOf } from './helpers.js'

interface Setup extends Partial<JointOptions> {
  readonly config?: Partial<ElectraConfig>
  readonly fraction?: number
  readonly modelSeed?: number
  readonly precision?: 'fp32' | 'bf16'
}

function build(setup: Setup = {}): ElectraForJointPreTraining {
  const { config, fraction = 1 / 2, modelSeed = 5, precision = 'fp32', ...options } = setup
  const discriminator = smallConfig({ numHiddenLayers: 1, ...config })
  const construct = { device, seed: modelSeed, precision }
  return new ElectraForJointPreTraining(
    new ElectraForMaskedLM(generatorConfig(discriminator, fraction), construct),
    new ElectraForPreTraining(discriminator, construct),
    { ...special, sequenceLength: 48, ...options },
  )
}

const inputIds = rowsOf([48, 5, 30, 48, 3, 17])
const tokenTypeIds = typesOf(inputIds)
const tokens = inputIds.flat().length
const list = (tensor: Tensor | undefined): number[] => Array.from(tensor?.dataSync() ?? [])
const dropout = { hiddenDropoutProb: 0.1, attentionProbsDropoutProb: 0.1 }

/** Loss and every gradient of one pass, as numbers. */
function gradients(
  joint: ElectraForJointPreTraining,
  options: JointForwardOptions = {},
): {
  output: { readonly loss: number; readonly generator: number; readonly discriminator: number }
  gradients: Map<string, number[]>
} {
  joint.zeroGrad()
  const { loss, generatorLoss, discriminatorLoss } = joint.forward({ inputIds, tokenTypeIds }, options)
  loss.backward()
  const found = [...joint.namedParameters()].filter(([, parameter]) => parameter.hasGrad)
  return {
    output: { loss: loss.item(), generator: generatorLoss.item(), discriminator: discriminatorLoss.item() },
    gradients: new Map(found.map(([name, parameter]) => [name, list(parameter.grad)])),
  }
}

t.test(
  'forwardBackward gives the losses and gradients of forward and backward, in less memory',
  async (t) => {
    for (const objective of ['joint', 'generator', 'discriminator'] as const) {
      const apart = gradients(build({ config: dropout }), { objective })
      const joint = build({ config: dropout })
      joint.zeroGrad()
      const output = joint.forwardBackward({ inputIds, tokenTypeIds }, { objective })
      t.equal(output.loss.item(), apart.output.loss, `${objective}: the loss`)
      t.equal(output.loss.requiresGrad, false, 'without a tape')
      const found = new Map([...joint.namedParameters()].filter(([, parameter]) => parameter.hasGrad))
      t.same([...found.keys()].sort(), [...apart.gradients.keys()].sort(), `${objective}: who has a gradient`)
      for (const [name, expected] of apart.gradients) {
        const largest = Math.max(...expected.map(Math.abs))
        const off = Math.max(
          ...list(found.get(name)?.grad).map((x, i) => Math.abs(x - (expected[i] as number))),
        )
        // Two models' parts of a shared gradient add up in the other order: a few roundings.
        t.ok(off <= 1e-5 * largest, `${objective}: ${name} is off by ${off} of ${largest}`)
      }
    }
  },
)

t.test('the loss at the start is near ln V + 50 ln 2', async (t) => {
  const joint = build({ config: { vocabSize: 3000 } })
  const { loss, generatorLoss, discriminatorLoss } = joint.eval().forward({ inputIds, tokenTypeIds })
  // Logits of first weights are small, not zero.
  t.ok(Math.abs(generatorLoss.item() - Math.log(3000)) < 0.1, `generator ${generatorLoss.item()}`)
  t.ok(Math.abs(discriminatorLoss.item() - Math.log(2)) < 0.15, `discriminator ${discriminatorLoss.item()}`)
  const total = generatorLoss.item() + 50 * discriminatorLoss.item()
  t.ok(Math.abs(loss.item() - total) < 1e-4 * total, 'the weighted sum')
  const weighted = build({ generatorWeight: 3, discriminatorWeight: 7 }).eval().forward({ inputIds })
  const sum = 3 * weighted.generatorLoss.item() + 7 * weighted.discriminatorLoss.item()
  t.ok(Math.abs(weighted.loss.item() - sum) < 1e-5 * sum, 'with other weights')
})

t.test(
  'masking follows the rules of the original: counts, eligible tokens, labels by comparison',
  async (t) => {
    const joint = build().eval()
    const output = joint.forward({ inputIds, tokenTypeIds })
    // 48 · 0.15 = 7.2, 5 · 0.15 = 0.75, 30 · 0.15 = 4.5 (to even), 3 · 0.15 = 0.45 (at least 1), 17 · 0.15 = 2.55
    t.equal(list(output.maskedCounts)[0], 7 + 1 + 4 + 7 + 1 + 3)
    const original = inputIds.flat()
    const replaced = list(output.discriminator?.replacedIds)
    const labels = list(output.discriminator?.labels)
    t.same(
      labels,
      original.map((id, i) => (id === replaced[i] ? 0 : 1)),
    )
    t.ok(labels.includes(1))
    t.ok(
      original.every((id, i) => labels[i] === 0 || (id !== special.clsTokenId && id !== special.sepTokenId)),
      '[CLS] and [SEP] stay',
    )
    t.same(list(output.offsets), [0, 48, 53, 83, 131, 134, 151])
    const wrong = build({ disallowCorrect: true }).eval().forward({ inputIds, tokenTypeIds })
    t.equal(
      list(wrong.discriminator?.labels).filter((label) => label === 1).length,
      23,
      'all wrong, when asked for',
    )
    const few = build({ maskedLimit: 2 }).eval().forward({ inputIds, tokenTypeIds })
    t.equal(list(few.maskedCounts)[0], 2 + 1 + 2 + 2 + 1 + 2, 'at most the limit')
  },
)

t.test('the capacity of masked positions is fixed by the token budget', async (t) => {
  t.equal(maskedCapacity(4096, 0.15, 128), 688, 'ceil(0.15 · 4096) = 615, and 2 · 32, to a multiple of 16')
  t.equal(maskedCapacity(1, 0.15, 128), 16)
  const short = rowsOf(Array.from({ length: 100 }, () => 3))
  const output = build({ sequenceLength: 48 }).eval().forward({ inputIds: short })
  // Each of 100 sequences wants one; ceil(45) + 2 · ceil(300 / 48) = 59, to a multiple of 16.
  t.equal(list(output.maskedCounts)[0], 64, 'what does not fit is left out')
})

t.test('the same state gives the same bits, another step, micro-batch or seed others', async (t) => {
  const random = new RandomState(device, { seed: 11 })
  const joint = build({ random, config: dropout })
  joint.train()
  const at = (seed: number, step: number, microBatch = 0) => {
    random.set({ seed, step, microBatch })
    return gradients(joint)
  }
  const first = at(11, 3)
  t.same(at(11, 3), first, 'again')
  for (const [what, other] of [
    ['step', at(11, 4)],
    ['micro-batch', at(11, 3, 1)],
    ['seed', at(12, 3)],
  ] as const) {
    t.not(other.output.loss, first.output.loss, what)
  }
  const before = threads()
  try {
    setThreads(1)
    const one = at(11, 3)
    setThreads(3)
    t.same(at(11, 3), one, '1 thread and 3')
    t.same(one, first)
  } finally {
    setThreads(before)
  }
  joint.eval()
  const validated = joint.forward({ inputIds, tokenTypeIds })
  t.notOk(validated.loss.requiresGrad, 'evaluation keeps no tape')
  t.equal(joint.forward({ inputIds, tokenTypeIds }).loss.item(), validated.loss.item(), 'and drops nothing')
})

t.test('every place with dropout has a number of its own', async (t) => {
  const joint = build({ config: { ...dropout, numHiddenLayers: 2 } })
  const sites = [joint.generator, joint.discriminator].flatMap(({ electra }) => [
    electra.embeddingDropout.site,
    ...electra.encoder.layer.flatMap((layer) => [
      layer.attention.dropout?.site,
      layer.attentionDropout.site,
      layer.outputDropout.site,
    ]),
  ])
  t.equal(sites.length, 14)
  t.equal(new Set(sites).size, 14)
  t.ok(
    sites.every((site) => (site as number) > 2),
    'masking and sampling have others',
  )
  const states = new Set(
    [joint.generator, joint.discriminator].map(({ electra }) => electra.embeddingDropout.state),
  )
  t.equal(states.size, 1, 'one state for both')
})

t.test('tied models have one embedding block, whose gradients add up', async (t) => {
  const joint = build()
  joint.train()
  const { generator, discriminator } = joint
  t.equal(generator.electra.embeddings, discriminator.electra.embeddings)
  const names = [...joint.namedParameters()].map(([name]) => name)
  t.equal(names.filter((name) => name.endsWith('word_embeddings.weight')).length, 1)
  t.ok(names.includes('generator.electra.embeddings_project.weight'), 'the projections are two')
  t.ok(names.includes('discriminator.electra.embeddings_project.weight'))
  const before = list(generator.eval().forward({ inputIds: [[2, 9, 3]] }).logits)
  const table = discriminator.electra.embeddings.wordEmbeddings.weight
  table.assign(Float32Array.from(await table.data(), (x) => x + 0.25))
  const after = list(generator.forward({ inputIds: [[2, 9, 3]] }).logits)
  t.not(after[0], before[0], "a change of the discriminator's table shows in the generator's logits")
  generator.train()

  const part = (generatorWeight: number, discriminatorWeight: number) => {
    const random = new RandomState(device, { seed: 2 })
    const model = build({ generatorWeight, discriminatorWeight, random })
    model.train()
    return gradients(model).gradients.get(
      'discriminator.electra.embeddings.word_embeddings.weight',
    ) as number[]
  }
  const [both, first, second] = [part(1, 50), part(1, 0), part(0, 50)]
  const size = Math.hypot(...both)
  const error = Math.hypot(...both.map((x, i) => x - (first[i] as number) - (second[i] as number)))
  t.ok(Math.hypot(...first) > 1e-3 * size && Math.hypot(...second) > 1e-3 * size)
  t.ok(error < 1e-5 * size, `gradients of both losses: differ by ${error} of ${size}`)
})

t.test('the detector’s loss does not reach the generator', async (t) => {
  const random = new RandomState(device, { seed: 2 })
  const joint = build({ generatorWeight: 0, random })
  joint.train()
  const { gradients: found } = gradients(joint)
  const own = [...found].filter(([name]) => name.startsWith('generator.'))
  t.ok(own.every(([, values]) => values.every((value) => value === 0)))
  const trained = [...found].filter(([name]) =>
    /^discriminator\.(electra\.encoder.*weight|discriminator_pred)/.test(name),
  )
  t.ok(trained.length > 5 && trained.every(([, values]) => values.some((value) => value !== 0)))
})

t.test('the arena holds shared parameters once, the discriminator first', async (t) => {
  const joint = build()
  const names = joint.arena.segments.map((segment) => segment.names)
  t.equal(joint.arena, joint.arena)
  const shared = names.filter(
    (all) => all.length > 1 && all.some((name) => name.startsWith('generator.electra.embeddings.')),
  )
  t.equal(shared.length, 5, 'three tables and a LayerNorm')
  const firstOf = names.map(([name]) => name?.split('.')[0])
  t.same(firstOf, [...firstOf].sort(), 'discriminator, then generator')
  t.equal(joint.arena.working, null)
  t.not(build({ precision: 'bf16' }).arena.working, null, 'bf16 keeps a copy')
  const total = joint.arena.segments.reduce((sum, { size }) => sum + size, 0)
  t.equal(
    total,
    joint.parameters().reduce((sum, { size }) => sum + size, 0),
  )
})

t.test('a metrics tensor collects the counts of every pass', async (t) => {
  const joint = build().eval()
  const metrics = zeros([discriminatorMetricsSize], { dtype: 'int32', device })
  const first = joint.forward({ inputIds, tokenTypeIds }, { metrics })
  joint.forward({ inputIds, tokenTypeIds }, { metrics })
  const counts = list(metrics)
  const sum = (from: number, to: number): number => counts.slice(from, to).reduce((all, x) => all + x, 0)
  const positives = list(first.discriminator?.labels).filter((label) => label === 1).length
  t.equal(sum(0, 4), 2 * tokens)
  t.equal(sum(4, 2052), 2 * positives)
  t.equal(sum(2052, 4100), 2 * (tokens - positives))
})

t.test('given corruption makes a pass a function of its data, in evaluation mode too', async (t) => {
  const joint = build().eval()
  const maskedIds = inputIds.map((row) => row.map((id, i) => (i === 1 ? special.maskTokenId : id)))
  const labels = inputIds.map((row) => row.map((id, i) => (i === 1 ? id : -100)))
  const replacedIds = inputIds.map((row, r) =>
    row.map((id, i) => (i === 1 && r % 2 === 0 ? (id % 190) + 6 : id)),
  )
  const output = joint.forward({ inputIds, tokenTypeIds, maskedIds, labels, replacedIds })
  t.same(list(output.discriminator?.replacedIds), replacedIds.flat())
  t.same(
    list(output.discriminator?.labels),
    replacedIds.flatMap((row, r) => row.map((id, i) => (id === inputIds[r]?.[i] ? 0 : 1))),
  )
  t.equal(list(output.maskedCounts)[0], inputIds.length)
  output.loss.backward()
  t.ok(joint.generator.generatorPredictions.dense.weight.hasGrad)
  const sampled = joint.forward({ inputIds, tokenTypeIds, maskedIds, labels })
  const changed = list(sampled.discriminator?.labels)
    .map((label, i) => [label, i] as const)
    .filter(([label]) => label === 1)
  const starts = list(sampled.offsets)
  t.ok(
    changed.every(([, i]) => starts.includes(i - 1)),
    'samples stand at the labelled positions only',
  )
  const refuses = (what: string, given: object, message: RegExp): void => {
    t.throws(() => joint.forward({ inputIds, ...given }), { message }, what)
  }
  refuses('masked ids alone', { maskedIds }, /maskedIds need labels/)
  refuses(
    'an id out of range',
    { maskedIds, labels, replacedIds: inputIds.map((row) => row.map(() => 200)) },
    /replacedIds: 200/,
  )
  refuses('rows of another length', { maskedIds: maskedIds.slice(1), labels }, /maskedIds has 5 rows/)
})

function untied(setup: Setup = {}): ElectraForJointPreTraining {
  const joint = build({ tie: false, fraction: 1, ...setup })
  joint.train()
  return joint
}

t.test('two-stage training: the generator alone, then the discriminator from its weights', async (t) => {
  const joint = untied({ config: dropout })
  const { generator, discriminator } = joint
  t.not(generator.electra.embeddings, discriminator.electra.embeddings)
  const first = gradients(joint, { objective: 'generator' })
  t.equal(first.output.loss, first.output.generator)
  t.equal(first.output.discriminator, 0)
  t.ok(first.gradients.size > 0 && [...first.gradients.keys()].every((name) => name.startsWith('generator.')))
  t.equal(joint.forward({ inputIds }, { objective: 'generator' }).discriminator, null)

  joint.startDiscriminatorFromGenerator()
  const [from, to] = [generator, discriminator].map(({ electra }) => new Map(electra.namedParameters()))
  for (const [name, parameter] of to as NonNullable<typeof to>) {
    t.same(list(parameter.value), list(from?.get(name)?.value), name)
  }

  const fresh = untied({ config: dropout })
  const second = gradients(fresh, { objective: 'discriminator' })
  t.equal(second.output.loss, second.output.discriminator)
  t.ok(second.output.generator > 0, "the generator's loss is known")
  t.ok(
    second.gradients.size > 0 &&
      [...second.gradients.keys()].every((name) => name.startsWith('discriminator.')),
  )
  t.ok(fresh.generator.training, 'the frozen generator is in training mode afterwards')
  t.throws(() => joint.forward({ inputIds }, { objective: 'both' as never }), {
    message: /objective is "both"/,
  })
})

t.test('two-stage training wants models of equal size', async (t) => {
  const joint = untied({ fraction: 1 / 2 })
  t.throws(() => joint.startDiscriminatorFromGenerator(), {
    code: 'ERR_CONFIG',
    message: /must have the same size; they differ in embeddings_project\.weight/,
  })
})

function refusesOptions(t: Test, options: Partial<JointOptions>, message: RegExp): void {
  t.throws(() => build(options), { code: 'ERR_ARGUMENT', message })
}

t.test('options out of range and models that do not fit are refused by name', async (t) => {
  refusesOptions(t, { maskTokenId: 200 }, /maskTokenId is 200; expected a token id from 0 to 199/)
  refusesOptions(t, { maskProbability: 0 }, /maskProbability is 0/)
  refusesOptions(t, { replaceProbability: 1.1 }, /replaceProbability is 1.1/)
  refusesOptions(t, { sequenceLength: 49 }, /sequenceLength is 49; expected a whole number from 1 to 48/)
  refusesOptions(t, { maskedLimit: 0 }, /maskedLimit is 0/)
  refusesOptions(t, { temperature: 0 }, /temperature is 0/)
  refusesOptions(t, { discriminatorWeight: Number.NaN }, /discriminatorWeight is NaN/)
  const discriminator = new ElectraForPreTraining(smallConfig(), { device })
  const other =
    (config: Partial<ElectraConfig>, precision: 'fp32' | 'bf16' = 'fp32') =>
    () =>
      new ElectraForJointPreTraining(
        new ElectraForMaskedLM(smallConfig(config), { device, precision }),
        discriminator,
        special,
      )
  t.throws(other({ vocabSize: 300 }), {
    code: 'ERR_CONFIG',
    message: /300 tokens in fp32, the discriminator 200/,
  })
  t.throws(other({}, 'bf16'), { code: 'ERR_CONFIG', message: /bf16/ })
  t.throws(other({ embeddingSize: 16 }), {
    code: 'ERR_CONFIG',
    message: /embeddingSize; one has 16, the other 24/,
  })
})

for (const precision of ['fp32', 'bf16'] as const) {
  t.test(`training in ${precision} learns: both losses fall over sixty steps`, async (t) => {
    const random = new RandomState(device, { seed: 1 })
    const joint = build({ precision, random, config: { numHiddenLayers: 1 } })
    joint.train()
    const optimizer = new AdamW(joint.arena, { form: 'original', maxGradientNorm: 1 })
    // Every third token is the sum of the two before: something to predict, and to notice when it is broken.
    const rows = (salt: number): number[][] =>
      Array.from({ length: 8 }, (_, row) => {
        const ids: number[] = [special.clsTokenId]
        for (let i = 0; i < 9; i++) {
          const [a, b] = [(row * 7 + salt * 5 + i * 3) % 6, (row + salt * 11 + i * i) % 6]
          ids.push(10 + a, 20 + b, 30 + a + b)
        }
        return [...ids, special.sepTokenId]
      })
    const losses: number[][] = []
    for (let step = 0; step < 60; step++) {
      losses.push(
        scope(() => {
          random.set({ seed: 1, step })
          optimizer.zeroGrad()
          const output = joint.forward({ inputIds: rows(step) })
          output.loss.backward()
          optimizer.step({ learningRate: 1e-3 * Math.min(1, step / 10) })
          return [output.generatorLoss.item(), output.discriminatorLoss.item()]
        }),
      )
    }
    const mean = (from: number, to: number, column: number): number =>
      losses.slice(from, to).reduce((sum, row) => sum + (row[column] as number), 0) / (to - from)
    t.ok(mean(50, 60, 0) < 0.75 * mean(0, 5, 0), `generator ${mean(0, 5, 0)} to ${mean(50, 60, 0)}`)
    t.ok(mean(50, 60, 1) < 0.75 * mean(0, 5, 1), `discriminator ${mean(0, 5, 1)} to ${mean(50, 60, 1)}`)
    const saved = [...joint.discriminator.namedParameters()].map(([name]) => name)
    t.ok(saved.includes('electra.embeddings.word_embeddings.weight'), 'each model saves the shared block')
    optimizer.dispose()
    joint.dispose()
  })
}
