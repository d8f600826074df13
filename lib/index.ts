/** Voltaic: pre-train, fine-tune and run ELECTRA models inside Node, on a tensor engine written for this model family. */
export {
  type CorpusInspection,
  type DataStatistics,
  type InspectOptions,
  inspectCorpus,
  openCorpus,
  type PrepareDataOptions,
  type PreparedData,
  prepareData,
} from './data/index.js'
export * from './electra/index.js'
export {
  type ConvertOptions,
  type ConvertReport,
  type ConvertTarget,
  convertModel,
} from './formats/convert.js'
export { defineElectraConfig, type ElectraConfig, parseElectraConfig } from './formats/electra-config.js'
export { type HubOptions, type HubProgress, type ModelFiles, resolveModelFolder } from './formats/hub.js'
export { readModelFolder, writeModelFolder } from './formats/model-folder.js'
export { type ModelSource, type ModelSourceOptions, openModelSource } from './formats/model-source.js'
export { extendPositions, type PositionOptions, withPositions } from './formats/positions.js'
export { readPytorchCheckpoint } from './formats/pytorch-checkpoint.js'
export { readSafetensors, writeSafetensors } from './formats/safetensors.js'
export type { TensorInfo, TensorSource } from './formats/tensor-source.js'
export { readTensorflowCheckpoint } from './formats/tensorflow-checkpoint.js'
export type { LeftOut } from './formats/tensorflow-leftovers.js'
export type { ElectraPart } from './formats/tensorflow-names.js'
export * from './nn/index.js'
export * from './optim/index.js'
export * from './pipelines/index.js'
export {
  CapturedGraph,
  type CaptureOptions,
  canCapture,
  capture,
  cudaReport,
  type Device,
  type DeviceName,
  type DType,
  deviceInfo,
  deviceSetting,
  type ErrorCode,
  emptyCache,
  instructionSets,
  type KernelDescription,
  type KernelProfile,
  kernelTable,
  type MemoryStats,
  memoryStats,
  type Profile,
  profile,
  resolveDevice,
  type Shape,
  setDeviceSetting,
  setMemoryLimit,
  setThreads,
  synchronize,
  threads,
  VoltaicError,
} from './runtime/index.js'
export * from './tasks/index.js'
export * from './tensor/index.js'
export * from './text/index.js'
export * from './training/index.js'
export { packageVersion as version } from './version.js'
