/** Floor 2, the only code that touches the addon: devices, tensor handles, mapped files, errors. */
export {
  cudaReport,
  type Device,
  type DeviceName,
  deviceInfo,
  deviceOf,
  instructionSets,
  processors,
  resolveDevice,
} from './devices.js'
export { type ErrorCode, VoltaicError } from './errors.js'
export {
  CapturedGraph,
  type CaptureOptions,
  canCapture,
  capture,
  deviceSetting,
  setDeviceSetting,
} from './graphs.js'
export { type KernelProfile, type Profile, profile } from './profile.js'
export {
  allocate,
  bytesPerElement,
  contentVersion,
  type DType,
  download,
  downloadSync,
  emptyCache,
  type Handle,
  type KernelDescription,
  kernelTable,
  type LibraryReport,
  type MemoryStats,
  memoryStats,
  type NativeDeviceInfo,
  release,
  run,
  type Shape,
  setMemoryLimit,
  setThreads,
  synchronize,
  type TypedArray,
  threads,
  typedArray,
  upload,
  view,
} from './tensors.js'
