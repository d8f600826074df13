// Voltaic's side of npm run gpu:bench: answers each line of standard input (line-server.mjs). What it measures is chosen by the
// request; shapes come from scales.mjs, rows from families/.
import { createInterface } from 'node:readline'
import { cudaReport, deviceInfo, memoryStats, run, setDeviceSetting } from '../../dist/runtime/index.js'
import { modelConfigs } from '../../dist/training/model-configs.js'
import { resolvePretrainOptions } from '../../dist/training/options.js'
import { families, rowsOf } from '../rows.mjs'
import { scales } from '../scales.mjs'

// These open the device; when it does not open, the first answer says why.
const opened = await Promise.all([import('../harness.mjs'), import('../steps.mjs')]).catch((error) => error)
const [{ device, measureCeilings, timeRow }, { timeSteps }] = opened instanceof Error ? [{}, {}] : opened

const answers = {
  info: () => ({ ...deviceInfo(device), ...(device.kind === 'cuda' ? { library: cudaReport() } : {}) }),

  /** Every row without its function. */
  async list({ scale }) {
    const all = await Promise.all(
      families.map(async (family) =>
        (await rowsOf(family, scales[scale])).map(({ name, work, peer }) => ({ family, name, work, peer })),
      ),
    )
    return all.flat()
  },

  async ceilings({ scale, ...options }) {
    const tiny = {
      make(memory) {
        const [x, y] = [0, 1].map(() => memory.tensor('float32', [8]))
        return () => run('activation_forward', [x, y], [0])
      },
    }
    return {
      ...(await measureCeilings(scales[scale], options)),
      // A kernel that does nothing to speak of: shorter times than this few say how fast calls are queued.
      launchSeconds: (await timeRow(tiny, options)).median,
      // The same, queued call by call.
      queueSeconds: (await timeRow(tiny, { graph: false, ...options })).median,
    }
  },

  async row({ scale, family, name, ...options }) {
    const row = (await rowsOf(family, scales[scale])).find((entry) => entry.name === name)
    return timeRow(row, options)
  },

  /** The sizes of a step's models, for PyTorch to build the same. */
  configs({ step: { size, model, batchSize, sequenceLength, vocabulary = 30522 } }) {
    const settings = resolvePretrainOptions({
      output: '-',
      corpus: ['-'],
      size,
      model,
      batchSize,
      sequenceLength,
    })
    const { discriminator, generator } = modelConfigs(settings, vocabulary, 0)
    return { discriminator, generator, maskProbability: settings.maskProbability }
  },

  async step({ step, seconds, ...options }) {
    const end = performance.now() + 1000 * seconds
    const timing = await timeSteps(step, { ...options, spent: () => performance.now() > end })
    return { ...timing, peakBytes: memoryStats(device).peakReservedBytes }
  },
}

if (device && process.env.VOLTAIC_BENCH_TUNE)
  await setDeviceSetting(device, 'matmul', 'tune').catch((error) => console.error(error.message))

const reply = (answer) => process.stdout.write(`@${JSON.stringify(answer)}\n`)

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line)
  try {
    if (opened instanceof Error) throw opened
    reply({ result: await answers[request.do](request) })
  } catch (error) {
    reply({ error: { code: error.code ?? 'ERR_FAILED', message: error.message } })
    if (!error.code) console.error(error.stack)
  }
}
process.exit(0)
