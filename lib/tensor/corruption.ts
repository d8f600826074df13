/** Corruption of the input, on the device: choose positions and mask them, put samples in and label. No gradients here. */
import type { RandomSite } from './dropout-site.js'
import { checkDType } from './operands.js'
import { type Tensor, tensorValue, wrap } from './tensor.js'
import { newValue, produceAll, type Value } from './value.js'

export interface CorruptMaskOptions extends RandomSite {
  /** Slots for positions: at most so many are chosen in all. */
  readonly capacity: number
  /** Share of each sequence that is chosen. Default 0.15. */
  readonly probability?: number | undefined
  /** How often a chosen position is replaced by `mask`. Default 0.85. */
  readonly replaceProbability?: number | undefined
  /** Most positions of a sequence. Default `capacity`. */
  readonly limit?: number | undefined
  /** Token numbers that are never chosen, and the one put in. */
  readonly cls: number
  readonly sep: number
  readonly mask: number
}

export interface CorruptMaskOutput {
  /** int32 [tokens] */
  readonly masked: Tensor
  /** int32 [capacity], ascending; unused slots are 0. */
  readonly positions: Tensor
  /** int32 [capacity]: the original tokens there; unused slots are -100. */
  readonly targets: Tensor
  /** int32 [1]: slots used. */
  readonly count: Tensor
}

/**
 * Chooses distinct positions in each sequence and masks them (ELECTRA, sections 3.2 and 3.3 of the original code's rules).
 * The site after `site` is used too. @param ids int32 [tokens]. @param offsets int32 [sequences + 1].
 */
export function corruptMask(ids: Tensor, offsets: Tensor, options: CorruptMaskOptions): CorruptMaskOutput {
  const {
    capacity,
    probability = 0.15,
    replaceProbability = 0.85,
    limit = capacity,
    cls,
    sep,
    mask,
    site,
  } = options
  checkDType('corruptMask', 'ids', ids, 'int32')
  checkDType('corruptMask', 'offsets', offsets, 'int32')
  const input = tensorValue(ids)
  const { device } = input
  const masked = newValue(device, 'int32', input.shape)
  const positions = newValue(device, 'int32', [capacity])
  const targets = newValue(device, 'int32', [capacity])
  const count = newValue(device, 'int32', [1])
  const outputs = [masked, positions, targets, count] as const
  produceAll(
    outputs,
    'corruption_mask',
    [input.handle, tensorValue(offsets).handle, tensorValue(options.state).handle, ...handles(outputs)],
    [probability, replaceProbability, limit, cls, sep, mask, site],
  )
  return { masked: wrap(masked), positions: wrap(positions), targets: wrap(targets), count: wrap(count) }
}

export interface CorruptReplaceOutput {
  /** int32 [tokens] */
  readonly replaced: Tensor
  /** int32 [tokens]: 1 where `replaced` differs from the original, else 0. */
  readonly labels: Tensor
}

/** Puts `samples` at the first `count` of `positions` and labels the tokens that changed. */
export function corruptReplace(
  ids: Tensor,
  positions: Tensor,
  samples: Tensor,
  count: Tensor,
): CorruptReplaceOutput {
  const inputs = { ids, positions, samples, count }
  for (const [name, tensor] of Object.entries(inputs)) checkDType('corruptReplace', name, tensor, 'int32')
  const input = tensorValue(ids)
  const replaced = newValue(input.device, 'int32', input.shape)
  const labels = newValue(input.device, 'int32', input.shape)
  const outputs = [replaced, labels] as const
  produceAll(outputs, 'corruption_replace', [
    input.handle,
    tensorValue(positions).handle,
    tensorValue(samples).handle,
    tensorValue(count).handle,
    ...handles(outputs),
  ])
  return { replaced: wrap(replaced), labels: wrap(labels) }
}

function handles(values: readonly Value[]): number[] {
  return values.map((value) => value.handle)
}
