/** The schedule that a run's settings ask for. */
import { linearSchedule, originalSchedule, type Schedule } from '../optim/index.js'

export interface ScheduleSettings {
  readonly learningRate: number
  readonly warmupSteps: number
  readonly schedule: 'original' | 'linear'
}

export function scheduleOf(settings: ScheduleSettings, steps: number): Schedule {
  const options = {
    learningRate: settings.learningRate,
    totalSteps: Math.max(1, steps),
    warmupSteps: Math.min(settings.warmupSteps, steps),
  }
  return settings.schedule === 'original' ? originalSchedule(options) : linearSchedule(options)
}
