/** AdamW in both forms, schedules in both forms, layer-wise learning rates. */
export { AdamW, type AdamWOptions, type AdamWState, decaysByDefault, type StepOptions } from './adamw.js'
export { type LayerwiseDecayOptions, layerwiseDecay } from './layerwise-decay.js'
export { linearSchedule, originalSchedule, type Schedule, type ScheduleOptions } from './schedules.js'
