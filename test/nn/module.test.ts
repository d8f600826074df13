/** Modules find their parameters, name them as checkpoints do, and start from values that follow from the seed. */
import t from 'tap'
import {
  DropoutSites,
  Embedding,
  glorotUniformInitializer,
  initializeParameters,
  LayerNorm,
  Linear,
  Module,
  normalInitializer,
  Parameter,
  ParameterArena,
  parameterNames,
  SelfAttention,
} from '../../dist/nn/index.js'
import * as v from '../../dist/tensor/index.js'
import { close, device } from '../tensor/gradient-check.js'

class Layer extends Module {
  readonly selfAttention = new SelfAttention({ width: 8, heads: 2, device })
  readonly layerNorm = new LayerNorm({ width: 8, device })
  protected override get checkpointNames(): Readonly<Record<string, string>> {
    return { selfAttention: 'attention.self', layerNorm: 'attention.output.LayerNorm' }
  }
}

class Model extends Module {
  readonly wordEmbeddings = new Embedding({ rows: 5, width: 8, device })
  readonly layer = [new Layer(), new Layer()]
  readonly head: Linear
  readonly tiedWeight: Parameter

  constructor() {
    super()
    this.head = new Linear({ inputs: 8, outputs: 2, device })
    this.tiedWeight = this.wordEmbeddings.weight
  }

  protected override get checkpointNames(): Readonly<Record<string, string>> {
    return { tiedWeight: 'lm_head.weight' }
  }
}

const layerNames = (index: number): string[] =>
  ['weight', 'bias']
    .flatMap((what) => ['query', 'key', 'value'].map((part) => `attention.self.${part}.${what}`))
    .concat('attention.output.LayerNorm.weight', 'attention.output.LayerNorm.bias')
    .map((name) => `layer.${index}.${name}`)

t.test('parameters come under checkpoint names in order of definition, shared ones once', async (t) => {
  const model = new Model()
  const names = [...model.namedParameters()].map(([name]) => name)
  t.same(names, ['word_embeddings.weight', ...layerNames(0), ...layerNames(1), 'head.weight', 'head.bias'])
  const all = [...model.namedParameters({ duplicates: true })].map(([name]) => name)
  t.same(all, [...names, 'lm_head.weight'])
  t.equal(model.parameters().length, 11, 'packed parameters count once')
  const named = parameterNames([model])
  t.same(named.get(model.tiedWeight), ['word_embeddings.weight', 'lm_head.weight'])
  t.same(named.get(model.layer[0]!.selfAttention.bias)?.length, 3)
})

t.test('train and eval reach every module', async (t) => {
  const model = new Model().eval()
  t.notOk(model.training || model.layer[1]!.selfAttention.training)
  model.train()
  t.ok(model.training && model.layer[1]!.selfAttention.training)
})

t.test('first values follow from seed and position, not from what was made before', async (t) => {
  const read = async (seed: number): Promise<number[][]> => {
    const model = new Model()
    initializeParameters(model, { seed })
    return Promise.all(model.parameters().map(async (parameter) => [...(await parameter.data())]))
  }
  const first = await read(3)
  new Linear({ inputs: 3, outputs: 3, device })
  t.same(await read(3), first)
  t.notSame(await read(4), first)
  const [words, query] = first as [number[], number[]]
  t.ok(words.every((each) => Math.abs(each) <= 0.04) && words.some((each) => Math.abs(each) > 0.01))
  t.notSame(words.slice(0, 20), query.slice(0, 20), 'parameters differ from each other')
  const alone = new Parameter([40, 50], { device, initializer: glorotUniformInitializer })
  const limit = Math.sqrt(6 / 90)
  const values = await alone.data()
  t.ok(
    values.every((each) => Math.abs(each) <= limit) && values.some((each) => Math.abs(each) > 0.95 * limit),
  )
  const spread = await new Parameter([5000], {
    device,
    initializer: normalInitializer({ mean: 1, std: 2 }),
  }).data()
  const mean = spread.reduce((sum, each) => sum + each, 0) / 5000
  // Four standard errors of the mean: 4 · 2 / √5000.
  t.ok(Math.abs(mean - 1) < 0.114)
})

t.test('packed self-attention is read and written as query, key and value', async (t) => {
  const attention = new SelfAttention({ width: 4, heads: 2, device })
  const parts = new Map(attention.namedParameters())
  const key = parts.get('key.weight')!
  t.same(key.shape, [4, 4])
  key.assign(Float32Array.from({ length: 16 }, (_, i) => i))
  t.same(
    [...(await attention.weight.data())].slice(16, 32),
    Array.from({ length: 16 }, (_, i) => i),
  )
  t.same([...(await key.data())].slice(0, 3), [0, 1, 2])
  t.throws(() => key.assign(new Float32Array(3)), { code: 'ERR_SHAPE' })
  t.throws(() => key.grad, { code: 'ERR_GRADIENT' })
  const offsets = v.tensor([0, 3], { device, dtype: 'int32' })
  const x = v.normal([3, 4], { device })
  attention.forward(x, offsets).mul(x).sum().backward()
  t.same(parts.get('value.weight')!.grad.toArray(), (attention.weight.grad.toArray() as number[][]).slice(8))
  t.ok(
    Math.max(...(parts.get('key.bias')!.grad.toArray() as number[]).map(Math.abs)) < 1e-6,
    'a key bias has no effect',
  )
})

t.test('dropout sites have numbers of their own and follow the random state', async (t) => {
  const random = new v.RandomState(v.zeros([1], { device }).device, { seed: 1 })
  const sites = new DropoutSites(random, 16)
  const attention = sites.next(0.5)
  const first = sites.reserve(2)
  const other = sites.next(0.5)
  t.same([attention.site, first, other.site], [16, 17, 19])
  const x = v.ones([64], { device })
  const before = v.dropout(x, attention).toArray()
  t.same(v.dropout(x, attention).toArray(), before, 'the same state gives the same mask')
  t.notSame(v.dropout(x, other).toArray(), before)
  const leaf = v.ones([64], { device, requiresGrad: true })
  const pending = v.dropout(leaf, attention)
  random.set({ seed: 1, step: 1 })
  t.notSame(v.dropout(x, attention).toArray(), before, 'the next step another')
  pending.sum().backward()
  t.same(leaf.grad.toArray(), before, 'a tape keeps the state it was recorded with')
  const layer = new SelfAttention({ width: 8, heads: 2, device, dropout: attention })
  const offsets = v.tensor([0, 5], { device, dtype: 'int32' })
  const tokens = v.normal([5, 8], { device })
  const dropped = layer.forward(tokens, offsets).toArray()
  t.notSame(layer.eval().forward(tokens, offsets).toArray(), dropped, 'evaluation drops nothing')
})

t.test('an arena holds each parameter once, aligned, with gradients in the same layout', async (t) => {
  const model = new Model()
  initializeParameters(model, { seed: 1 })
  const before = await Promise.all(model.parameters().map((parameter) => parameter.data()))
  const words = model.wordEmbeddings.weight.value
  const arena = new ParameterArena(model)
  t.equal(model.wordEmbeddings.weight.value, words, 'tensors held before stay valid')
  t.equal(arena.segments.length, 11)
  t.ok(arena.segments.every((segment) => segment.offset % 16 === 0))
  t.equal(arena.parameter('lm_head.weight'), model.wordEmbeddings.weight)
  t.equal(arena.segment('layer.1.attention.self.key.bias').parameter, model.layer[1]!.selfAttention.bias)
  t.throws(() => arena.segment('nothing'), { code: 'ERR_ARGUMENT' })
  const after = await Promise.all(model.parameters().map((parameter) => parameter.data()))
  t.same(after, before, 'values are kept')
  const whole = await arena.values.data()
  const { offset, size } = arena.segment('head.weight')
  t.same([...whole.slice(offset, offset + size)], [...(await model.head.weight.data())])

  const ids = v.tensor([1, 2], { device, dtype: 'int32' })
  const hidden = model.wordEmbeddings.forward(ids)
  model.head.forward(hidden).sum().backward()
  v.linear(hidden.detach(), model.tiedWeight).sum().backward()
  const gradients = await arena.gradients.data()
  t.same([...gradients.slice(offset, offset + size)], [...(await model.head.weight.grad.data())])
  t.ok(
    (await model.tiedWeight.grad.data()).every((each) => each !== 0),
    'a shared parameter gathers from both uses',
  )
  arena.zeroGradients()
  t.ok((await model.tiedWeight.grad.data()).every((each) => each === 0))
  t.throws(() => new ParameterArena(model.head), { code: 'ERR_ARGUMENT', message: /another arena/ })
  t.throws(() => new ParameterArena([]), { code: 'ERR_ARGUMENT' })

  const bytes = await arena.export()
  model.head.weight.assign(new Float32Array(16))
  arena.import(bytes)
  t.same([...(await arena.values.data())], [...whole])
  t.throws(() => arena.import(bytes.subarray(4)), { code: 'ERR_FORMAT' })
})

t.test('a working copy follows its master', async (t) => {
  const layer = new Linear({ inputs: 4, outputs: 4, device })
  const arena = new ParameterArena(layer, { workingCopy: true })
  layer.weight.assign(Float32Array.from({ length: 16 }, (_, i) => i + 0.001))
  t.same(
    [...layer.weight.working!.dataSync()],
    Array.from({ length: 16 }, (_, i) => (i === 0 ? Math.fround(0.00099945068359375) : i)),
  )
  arena.import(new Uint8Array(arena.length * 4))
  t.ok(layer.weight.working!.dataSync().every((each) => each === 0))
  const y = layer.forward(v.ones([1, 4], { device, dtype: 'bfloat16' }))
  t.equal(y.dtype, 'bfloat16')
  close(t, y, [0, 0, 0, 0], 0, 'products read the copy')
})

t.test('a frozen parameter gets no gradient', async (t) => {
  const layer = new Linear({ inputs: 2, outputs: 2, device })
  layer.weight.requiresGrad = false
  layer
    .forward(v.ones([1, 2], { device }))
    .sum()
    .backward()
  t.throws(() => layer.weight.grad, { code: 'ERR_GRADIENT' })
  t.same(layer.bias!.grad.toArray(), [1, 1])
  layer.weight.requiresGrad = true
  layer
    .forward(v.ones([1, 2], { device }))
    .sum()
    .backward()
  t.same(layer.weight.grad.toArray(), [
    [1, 1],
    [1, 1],
  ])
})
