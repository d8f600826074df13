/** Learning-rate schedules: the rate of an update as a function of the updates taken before it. */
import { VoltaicError } from '../runtime/index.js'

export interface ScheduleOptions {
  /** The base rate. */
  readonly learningRate: number
  /** Updates in all; the rate is 0 from there on. */
  readonly totalSteps: number
  /** Updates over which the rate rises. Default 0. */
  readonly warmupSteps?: number | undefined
}

/** The rate of the update that follows `step` updates. */
export type Schedule = (step: number) => number

function checked(options: ScheduleOptions): Required<{ [Key in keyof ScheduleOptions]: number }> {
  const { learningRate, totalSteps, warmupSteps = 0 } = options
  if (!(Number.isFinite(learningRate) && totalSteps > 0 && warmupSteps >= 0)) {
    throw new VoltaicError(
      'ERR_ARGUMENT',
      `schedule: learning rate ${learningRate}, ${totalSteps} steps, ${warmupSteps} of them warmup; expected a finite ` +
        'rate, at least one step and no negative warmup',
    )
  }
  return { learningRate, totalSteps, warmupSteps }
}

/**
 * The original ELECTRA's: linear warmup times polynomial decay that starts at step 0,
 * rate · min(1, t / warmup) · (1 - t / total)^power. The peak stays a little below the base rate.
 */
export function originalSchedule(
  options: ScheduleOptions & { readonly power?: number | undefined },
): Schedule {
  const { learningRate, totalSteps, warmupSteps } = checked(options)
  const power = options.power ?? 1
  return (step) => {
    const warmup = warmupSteps > 0 ? Math.min(1, step / warmupSteps) : 1
    return learningRate * warmup * Math.max(0, 1 - step / totalSteps) ** power
  }
}

/** Hugging Face's linear schedule: up to the base rate over the warmup, then down to 0 at the last step. */
export function linearSchedule(options: ScheduleOptions): Schedule {
  const { learningRate, totalSteps, warmupSteps } = checked(options)
  return (step) => {
    if (step < warmupSteps) return (learningRate * step) / warmupSteps
    return learningRate * Math.max(0, (totalSteps - step) / Math.max(1, totalSteps - warmupSteps))
  }
}
