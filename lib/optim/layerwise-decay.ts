/** Layer-wise learning rates for fine-tuning: lower layers learn more slowly. */
import { VoltaicError } from '../runtime/index.js'

export interface LayerwiseDecayOptions {
  /** Encoder layers. */
  readonly layers: number
  /** Factor from one layer to the one below, such as 0.8. */
  readonly decay: number
  /**
   * 'original' counts the head two above the last encoder layer, as the original code does (a leftover, its author says); 'paper'
   * one above. Default 'original'.
   */
  readonly variant?: 'original' | 'paper' | undefined
}

/**
 * A multiplier by parameter names, for AdamW: decay^(head depth - depth), where embeddings and their projection have depth 0,
 * encoder layer i has i + 1, and everything else is the head.
 */
export function layerwiseDecay(options: LayerwiseDecayOptions): (names: readonly string[]) => number {
  const { layers, decay, variant = 'original' } = options
  if (!(Number.isInteger(layers) && layers >= 0 && decay > 0 && decay <= 1)) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `layerwiseDecay: ${layers} layers and decay ${decay}; expected a whole number from 0, and from above 0 to 1`,
    )
  }
  const head = variant === 'original' ? layers + 2 : layers + 1
  return (names) => {
    const name = names[0] ?? ''
    const layer = /(?:^|\.)encoder\.layer\.(\d+)\./.exec(name)?.[1]
    if (layer !== undefined) return decay ** (head - (Number(layer) + 1))
    return /(?:^|\.)embeddings(?:_project)?\./.test(name) ? decay ** head : 1
  }
}
