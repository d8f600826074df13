// How large the benchmarks' shapes are: on a processor, on a card, and as small as they go (for the emulator, where only
// whether a row runs counts). Widths are those of lib/electra/sizes.ts.
const models = {
  small: { name: 'small', hidden: 256, heads: 4, intermediate: 1024, embedding: 128 },
  base: { name: 'base', hidden: 768, heads: 12, intermediate: 3072, embedding: 768 },
  smallest: { name: 'smallest', hidden: 32, heads: 1, intermediate: 64, embedding: 16 },
}

export const scales = {
  // 32 sequences of 128 tokens, as a laptop trains small.
  cpu: {
    tokens: 4096,
    lengths: [128],
    models: [models.small],
    // Rows of a product when few sequences are classified at a time.
    serving: [128, 32],
    dtypes: ['float32', 'bfloat16'],
    vocabulary: 30522,
    masked: 640,
    parameters: 14_000_000,
    plain: [4096, 1024],
    copy: 48 << 20,
    product: 2048,
  },
  // 32,768 tokens: every activation is several times the second-level cache, or is rotated past it.
  gpu: {
    tokens: 32768,
    lengths: [128, 512],
    models: [models.base, models.small],
    dtypes: ['bfloat16'],
    vocabulary: 30522,
    masked: 4992,
    // ELECTRA-base with its generator.
    parameters: 133_000_000,
    plain: [32768, 1024],
    copy: 512 << 20,
    product: 8192,
  },
  tiny: {
    tokens: 32,
    lengths: [16],
    models: [models.smallest],
    dtypes: ['bfloat16'],
    vocabulary: 100,
    masked: 5,
    parameters: 1600,
    plain: [16, 32],
    copy: 4096,
    product: 32,
  },
}

/** A model's dtype and shape in a row's name: "base 32768x768 bfloat16". */
export const label = (model, shape, dtype) => `${model.name} ${shape.join('x')} ${dtype}`

export const bytesOf = { float32: 4, bfloat16: 2 }
