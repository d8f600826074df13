/** Where a run computes: what was asked for, or what the checkpoint says. */
import { VoltaicError } from '../runtime/errors.js'
import {
  type Device,
  type DeviceName,
  deviceInfo,
  deviceOf,
  deviceSetting,
  resolveDevice,
  setDeviceSetting,
} from '../runtime/index.js'
import type { TrainingState } from './checkpoint.js'
import type { DecidedPrecision, PretrainSettings } from './options.js'

type Wanted = Pick<PretrainSettings, 'device' | 'precision' | 'output'>

/** Device, precision and instruction set: those of the checkpoint, so that the bits repeat; else what was asked for. */
export function resolveHardware(
  settings: Wanted,
  state: TrainingState | undefined,
  notes: string[],
): { device: Device; precision: DecidedPrecision; instructionSet: string } {
  const wanted =
    state === undefined || settings.device !== 'auto' ? settings.device : (state.device as DeviceName)
  let device: Device
  try {
    device = resolveDevice(wanted)
  } catch (error) {
    if (state === undefined || settings.device !== 'auto') throw error
    device = deviceOf('cpu')
    notes.push(
      `the run was on ${state.device}, which cannot be used here (${(error as Error).message}); it goes on on the CPU, with other rounding`,
    )
  }
  const info = deviceInfo(device)
  const automatic: DecidedPrecision = info.bfloat16IsFast ? 'bf16' : 'fp32'
  if (state === undefined) {
    return {
      device,
      precision: settings.precision === 'auto' ? automatic : settings.precision,
      instructionSet: info.instructionSet,
    }
  }
  if (settings.precision !== 'auto' && settings.precision !== state.precision)
    throw new VoltaicError(
      'ERR_CONFIG',
      `${settings.output} holds a run in ${state.precision}, ${settings.precision} was asked for; leave --precision away ` +
        'to go on, or use another folder',
    )
  if (device.name !== state.device)
    notes.push(`the run was on ${state.device} and goes on on ${device.name}: the bits will differ`)
  else if (info.instructionSet !== state.instructionSet)
    notes.push(
      `the run used the ${state.instructionSet} kernels and goes on with ${info.instructionSet}: the bits will differ from a run on one machine`,
    )
  return { device, precision: state.precision, instructionSet: info.instructionSet }
}

/**
 * The choices among a matmul library's algorithms, before the first step: the checkpoint's, so that the bits repeat, and with `tune`
 * new ones for products that have none yet. Never those of an earlier run of the process. Notes what was asked for and is not so.
 */
export async function restoreMatmulChoices(
  device: Device,
  tune: boolean,
  state: TrainingState | undefined,
  notes: string[],
): Promise<void> {
  const set = async (text: string, whenRefused: (reason: string) => string): Promise<void> => {
    try {
      await setDeviceSetting(device, 'matmul', text)
    } catch (error) {
      if (!(error instanceof VoltaicError) || error.code !== 'ERR_UNSUPPORTED') throw error
      notes.push(whenRefused(error.message))
    }
  }
  if (device.kind !== 'cpu') {
    await setDeviceSetting(device, 'matmul', '')
    // It is looked for when a device is first used, and our own kernels take its place without a word.
    const named = process.env.VOLTAIC_CUBLASLT
    const { matmulLibrary } = deviceInfo(device)
    if (named && named !== 'off' && !matmulLibrary.startsWith('cuBLASLt '))
      notes.push(`VOLTAIC_CUBLASLT=${named} has no effect; the matmul library is ${matmulLibrary}`)
  }
  // On another kind of device than the run's, a note has said that the bits will differ.
  if (state?.matmul !== undefined && device.kind !== 'cpu')
    await set(
      state.matmul,
      (reason) => `the run's choices of matmul algorithms cannot be used (${reason}): the bits may differ`,
    )
  if (tune) await set('tune', (reason) => `tune has no effect: ${reason}`)
}

/** The choices as a checkpoint keeps them; undefined where there are none. */
export async function matmulChoices(device: Device): Promise<string | undefined> {
  return (await deviceSetting(device, 'matmul')) || undefined
}
