/** Tests that want a CUDA device: a card, or the emulator with VOLTAIC_CUDA=emulated. */
import { cudaReport } from 'voltaic'

const report = cudaReport()

/** tap options for a test that needs a CUDA device. */
export const needsCuda: { skip?: string } =
  report.devices > 0 ? {} : { skip: `no CUDA device: ${report.reason}` }
