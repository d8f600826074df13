/** AdamW in both forms, schedules, layer-wise rates, and small trainings that converge. */
import t from 'tap'
import { initializeParameters, Linear, Module, Parameter, ParameterArena } from '../../dist/nn/index.js'
import {
  AdamW,
  decaysByDefault,
  layerwiseDecay,
  linearSchedule,
  originalSchedule,
} from '../../dist/optim/index.js'
import * as v from '../../dist/tensor/index.js'
import { close, device, randomNumbers } from '../tensor/gradient-check.js'

function parameter(values: readonly number[]): Parameter {
  const result = new Parameter([values.length], { device })
  result.assign(Float32Array.from(values))
  return result
}

function setGradient(of: Parameter, values: readonly number[]): void {
  of.zeroGrad()
  of.value.backward(v.tensor([...values], { device }))
}

for (const [form, expected] of [
  ['original', [0.9682872202, 0.9837460964, 0.9666579168]],
  ['pytorch', [0.9899001, 0.9934621221, 0.989930381]],
] as const) {
  t.test(`AdamW in the ${form} form reproduces the specification's vector`, async (t) => {
    const p = parameter([1])
    // The vectors take epsilon 1e-6 in both forms.
    const optimizer = new AdamW([p], { form, weightDecay: 0.01, epsilon: 1e-6 })
    const found = [0.1, -0.2, 0.3].map((gradient) => {
      setGradient(p, [gradient])
      optimizer.step({ learningRate: 0.01 })
      return p.value.item()
    })
    t.equal(optimizer.steps, 3)
    close(t, found, expected, 3e-7, 'three steps, to float32 rounding')
  })
}

/** The update in double precision, from the papers' formulas. */
class Reference {
  m: number[]
  v: number[]
  constructor(
    readonly p: number[],
    readonly options: {
      corrects: boolean
      epsilon: number
      decay: readonly number[]
      multiplier: readonly number[]
      maxNorm: number
    },
  ) {
    this.m = p.map(() => 0)
    this.v = p.map(() => 0)
  }

  step(count: number, rate: number, gradient: readonly number[], scale: number): number {
    const { corrects, epsilon, decay, multiplier, maxNorm } = this.options
    const norm = Math.hypot(...gradient.map((g) => g * scale))
    const clip = maxNorm > 0 ? Math.min(1, maxNorm / norm) : 1
    gradient.forEach((raw, i) => {
      if (multiplier[i] === 0) return
      const g = raw * scale * clip
      this.m[i] = 0.9 * this.m[i]! + 0.1 * g
      this.v[i] = 0.999 * this.v[i]! + 0.001 * g * g
      const first = corrects ? this.m[i]! / (1 - 0.9 ** count) : this.m[i]!
      const second = corrects ? this.v[i]! / (1 - 0.999 ** count) : this.v[i]!
      this.p[i]! -= rate * multiplier[i]! * (first / (Math.sqrt(second) + epsilon) + decay[i]! * this.p[i]!)
    })
    return norm
  }
}

for (const form of ['original', 'pytorch'] as const) {
  t.test(
    `AdamW (${form}) follows a double-precision reference: clipping, scale, decay, multipliers`,
    async (t) => {
      const next = randomNumbers(21)
      const sizes = [5, 17, 3, 40]
      const parameters = sizes.map((size) => parameter(Array.from({ length: size }, next)))
      const [decayed, plain, frozen, slow] = parameters
      const optimizer = new AdamW(parameters, {
        form,
        maxGradientNorm: 1,
        weightDecay: 0.1,
        decays: (names) => names[0] !== 'parameter.1',
        multiplier: (_, each) => (each === frozen ? 0 : each === slow ? 0.25 : 1),
      })
      const each = <T>(values: readonly T[]): T[] =>
        sizes.flatMap((size, i) => Array.from({ length: size }, () => values[i]!))
      const start = parameters.flatMap((p) => [...p.value.dataSync()])
      const reference = new Reference([...start], {
        corrects: form === 'pytorch',
        epsilon: form === 'pytorch' ? 1e-8 : 1e-6,
        decay: each([0.1, 0, 0.1, 0.1]),
        multiplier: each([1, 1, 0, 0.25]),
        maxNorm: 1,
      })
      for (let count = 1; count <= 10; count++) {
        optimizer.zeroGrad()
        const gradients = sizes.map((size) =>
          Array.from({ length: size }, () => next() * (count % 2 ? 0.02 : 2)),
        )
        parameters.forEach((p, i) => {
          setGradient(p, gradients[i]!)
        })
        optimizer.step({ learningRate: 0.01 * count, gradientScale: 0.5 })
        const norm = reference.step(count, 0.01 * count, gradients.flat(), 0.5)
        close(t, optimizer.gradientNorm, [norm], 1e-5 * norm, `norm before clipping, step ${count}`)
      }
      const found = parameters.flatMap((p) => [...p.value.dataSync()])
      close(t, found, reference.p, 2e-5, 'parameters after ten steps (float32 rounding of ten updates)')
      const offset = decayed!.size + plain!.size
      t.same(
        found.slice(offset, offset + 3),
        start.slice(offset, offset + 3),
        'a multiplier of 0 changes nothing',
      )
    },
  )
}

t.test('a checkpointed optimizer goes on bit for bit', async (t) => {
  const run = async (restart: boolean): Promise<number[]> => {
    const next = randomNumbers(4)
    let p = parameter(Array.from({ length: 20 }, next))
    let optimizer = new AdamW([p])
    for (let count = 0; count < 6; count++) {
      if (restart && count === 3) {
        const state = await optimizer.exportState()
        const bytes = await optimizer.arena.export()
        optimizer.dispose()
        p = parameter(new Array(20).fill(0))
        optimizer = new AdamW([p])
        optimizer.arena.import(bytes)
        optimizer.importState(state)
      }
      setGradient(p, Array.from({ length: 20 }, next))
      optimizer.step({ learningRate: 0.1 })
    }
    return [...p.value.dataSync()]
  }
  t.same(await run(true), await run(false))
  const optimizer = new AdamW([parameter([1])])
  const state = await optimizer.exportState()
  t.throws(() => optimizer.importState({ ...state, firstMoment: new Uint8Array(4) }), { code: 'ERR_FORMAT' })
})

t.test('wrong settings are refused', async (t) => {
  const make = (options: ConstructorParameters<typeof AdamW>[1]) => () => new AdamW([parameter([1])], options)
  t.throws(make({ betas: [1, 0.999] }), { code: 'ERR_ARGUMENT', message: /beta1/ })
  t.throws(make({ maxGradientNorm: -1 }), { code: 'ERR_ARGUMENT' })
  t.throws(make({ multiplier: () => Number.NaN }), {
    code: 'ERR_ARGUMENT',
    message: /multiplier of parameter.0/,
  })
  t.throws(() => new AdamW([parameter([1])]).step({ learningRate: Number.NaN }), { code: 'ERR_ARGUMENT' })
  t.throws(() => linearSchedule({ learningRate: 1, totalSteps: 0 }), { code: 'ERR_ARGUMENT' })
  t.throws(() => layerwiseDecay({ layers: 2, decay: 0 }), { code: 'ERR_ARGUMENT' })
})

t.test('schedules reproduce the specification', async (t) => {
  const options = { learningRate: 5e-4, totalSteps: 1e6, warmupSteps: 1e4 }
  const steps = [1, 5000, 10000, 500000, 999999, 1e6]
  // Vectors are printed to seven digits.
  const agree = (found: number[], expected: number[], name: string): void => {
    t.ok(
      found.every((each, i) => Math.abs(each - expected[i]!) <= 1e-6 * expected[i]! + 1e-18),
      name,
      { found },
    )
  }
  agree(steps.map(originalSchedule(options)), [4.999995e-8, 2.4875e-4, 4.95e-4, 2.5e-4, 5e-10, 0], 'original')
  agree(steps.map(linearSchedule(options)), [5e-8, 2.5e-4, 5e-4, 2.525253e-4, 5.050505e-10, 0], 'linear')
  t.equal(originalSchedule(options)(0), 0, 'the first update of the original has rate 0')
  t.equal(linearSchedule({ learningRate: 1, totalSteps: 10 })(0), 1, 'no warmup starts at the base rate')
  t.equal(linearSchedule(options)(2e6), 0, 'after the end it stays 0')
})

t.test('layer-wise multipliers reproduce the specification', async (t) => {
  const base = layerwiseDecay({ layers: 12, decay: 0.8 })
  const found = [
    'classifier.out_proj.weight',
    'electra.encoder.layer.11.output.dense.weight',
    'electra.encoder.layer.5.output.dense.weight',
    'electra.encoder.layer.0.attention.self.query.weight',
    'electra.embeddings.word_embeddings.weight',
    'electra.embeddings_project.weight',
  ].map((name) => base([name]))
  close(t, found, [1, 0.64, 0.167772, 0.0549756, 0.0439805, 0.0439805], 5e-8 * 10, 'L = 12, decay 0.8')
  const large = layerwiseDecay({ layers: 24, decay: 0.9 })
  close(
    t,
    ['encoder.layer.23.x', 'encoder.layer.0.x', 'embeddings.LayerNorm.bias'].map((name) => large([name])),
    [0.81, 0.0717898, 0.0646108],
    5e-7,
    'L = 24, decay 0.9',
  )
  const paper = layerwiseDecay({ layers: 12, decay: 0.8, variant: 'paper' })
  close(t, [paper(['encoder.layer.11.x'])], [0.8], 1e-12, "the paper's variant gives the last layer one step")
})

t.test('LayerNorm and biases do not decay, embeddings do', async (t) => {
  t.ok(decaysByDefault(['electra.embeddings.word_embeddings.weight']))
  t.notOk(decaysByDefault(['electra.embeddings.LayerNorm.weight']))
  t.notOk(decaysByDefault(['generator_lm_head.bias']))
})

t.test('linear regression finds its line', async (t) => {
  const layer = new Linear({ inputs: 2, outputs: 1, device })
  initializeParameters(layer, { seed: 2 })
  const optimizer = new AdamW(layer, { weightDecay: 0 })
  const x = v.normal([64, 2], { device, from: new v.Generator(1) })
  const y = x.matmul(v.tensor([[2], [-3]], { device })).add(0.5)
  for (let step = 0; step < 400; step++) {
    v.scope(() => {
      optimizer.zeroGrad()
      v.meanSquaredError(layer.forward(x), y).backward()
      optimizer.step({ learningRate: 0.05 * (1 - step / 400) })
    })
  }
  close(t, layer.weight.value, [2, -3], 1e-3, 'slopes')
  close(t, layer.bias!.value, [0.5], 1e-3, 'offset')
})

class Xor extends Module {
  readonly hidden = new Linear({ inputs: 2, outputs: 16, activation: 'gelu', device })
  readonly out = new Linear({ inputs: 16, outputs: 2, device })

  forward(x: v.Tensor): v.Tensor {
    return this.out.forward(this.hidden.forward(x), { outputDtype: 'float32' })
  }
}

for (const dtype of ['float32', 'bfloat16'] as const) {
  t.test(`a small network learns exclusive or in ${dtype}, the same bits each time`, async (t) => {
    const train = (): { final: number; predictions: unknown; weights: number[] } => {
      const model = new Xor()
      initializeParameters(model, { seed: 7 })
      const arena = new ParameterArena(model, { workingCopy: dtype === 'bfloat16' })
      const optimizer = new AdamW(arena, { form: 'original', maxGradientNorm: 1 })
      const x = v.tensor(
        [
          [0, 0],
          [0, 1],
          [1, 0],
          [1, 1],
        ],
        { device, dtype },
      )
      const targets = v.tensor([0, 1, 1, 0], { device, dtype: 'int32' })
      const schedule = originalSchedule({ learningRate: 0.02, totalSteps: 300, warmupSteps: 20 })
      let final = Number.NaN
      for (let step = 0; step < 300; step++) {
        final = v.scope(() => {
          optimizer.zeroGrad()
          const loss = v.crossEntropy(model.forward(x), targets)
          loss.backward()
          optimizer.step({ learningRate: schedule(step) })
          return loss.item()
        })
      }
      const predictions = model.forward(x).argmax().toArray()
      return { final, predictions, weights: [...arena.values.dataSync()] }
    }
    const first = train()
    t.ok(first.final < 0.05, `loss ${first.final}`)
    t.same(first.predictions, [0, 1, 1, 0])
    t.same(train().weights, first.weights)
  })
}
