/** Modules, parameters, their arena, and first values. */
export { DropoutSites } from './dropout-sites.js'
export { initializeParameters } from './initialize.js'
export {
  glorotUniformInitializer,
  type Initializer,
  normalInitializer,
  onesInitializer,
  sinusoidalInitializer,
  truncatedNormalInitializer,
  zerosInitializer,
} from './initializers.js'
export {
  Embedding,
  type EmbeddingLayerOptions,
  LayerNorm,
  type LayerNormLayerOptions,
  Linear,
  type LinearLayerOptions,
  SelfAttention,
  type SelfAttentionOptions,
} from './layers.js'
export { Module, type ParameterEntry, parameterNames } from './module.js'
export { type NamedParameter, Parameter, type ParameterOptions, ParameterPart } from './parameter.js'
export { type ArenaSegment, ParameterArena, type ParameterArenaOptions } from './parameter-arena.js'
