/** Twenty steps of joint pre-training against Hugging Face's models and PyTorch's AdamW (shared/data/golden/joint_training). */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  ElectraForJointPreTraining,
  ElectraForMaskedLM,
  ElectraForPreTraining,
  type ElectraPreTrainedModel,
} from '../../dist/electra/index.js'
import { parseElectraConfig } from '../../dist/formats/electra-config.js'
import { readSafetensors, type SafetensorsFile } from '../../dist/formats/safetensors.js'
import { AdamW } from '../../dist/optim/index.js'
import { type DeviceName, resolveDevice } from '../../dist/runtime/index.js'
import { scope } from '../../dist/tensor/index.js'
import { needsSharedData, sharedData } from '../helpers/shared.js'

const device = resolveDevice((process.env.VOLTAIC_TEST_DEVICE ?? 'cpu') as DeviceName)
/** float32 over twenty steps, each fed by the one before. */
const relative = 1e-4

interface Row {
  readonly learning_rate: number
  readonly generator_loss: number
  readonly discriminator_loss: number
  readonly loss: number
  readonly gradient_norm: number
}

interface Run {
  readonly discriminator_weight: number
  readonly weight_decay: number
  readonly clip: number
  readonly rows: readonly Row[]
}

const folder = (): string => join(sharedData as string, 'golden', 'joint_training')
const readJson = (name: string): unknown => JSON.parse(readFileSync(join(folder(), name), 'utf8'))

function assign(model: ElectraPreTrainedModel, file: SafetensorsFile): void {
  for (const [name, parameter] of model.namedParameters()) parameter.assign(file.float32(name))
}

function load(): { generator: ElectraForMaskedLM; discriminator: ElectraForPreTraining } {
  const config = (name: string) => parseElectraConfig(readJson(`${name}.config.json`), name)
  const generator = new ElectraForMaskedLM(config('generator'), { device })
  const discriminator = new ElectraForPreTraining(config('discriminator'), { device })
  assign(generator, readSafetensors(join(folder(), 'generator.safetensors')))
  assign(discriminator, readSafetensors(join(folder(), 'discriminator.safetensors')))
  return { generator, discriminator }
}

/** A step's padded rows as ragged ones, and the original ids: the labels where the generator predicts, the masked ids elsewhere. */
function stepInput(file: SafetensorsFile, step: number) {
  const [rows, width] = file.info(`${step}.attention_mask`).shape as [number, number]
  const mask = file.int32(`${step}.attention_mask`)
  const ragged = (name: string): Int32Array[] => {
    const flat = file.int32(`${step}.${name}`)
    return Array.from({ length: rows }, (_, row) => {
      const at = row * width
      const length = mask.subarray(at, at + width).reduce((sum, value) => sum + value, 0)
      return flat.slice(at, at + length)
    })
  }
  const maskedIds = ragged('masked_ids')
  const labels = ragged('mlm_labels')
  const inputIds = maskedIds.map((row, r) =>
    row.map((id, i) => (labels[r]?.[i] === -100 ? id : (labels[r]?.[i] as number))),
  )
  return {
    inputIds,
    maskedIds,
    labels,
    tokenTypeIds: ragged('token_type_ids'),
    replacedIds: ragged('corrupted_ids'),
    detectorLabels: ragged('rtd_labels'),
  }
}

function closeNumber(t: Tap, what: string, found: number, expected: number): void {
  t.ok(Math.abs(found - expected) <= relative * Math.abs(expected), `${what}: ${found}, expected ${expected}`)
}
type Tap = Pick<typeof t, 'ok'>

t.test('twenty steps of joint pre-training agree with the reference', needsSharedData, async (t) => {
  const run = readJson('losses.json') as Run
  const batches = readSafetensors(join(folder(), 'batches.safetensors'))
  const { generator, discriminator } = load()
  const joint = new ElectraForJointPreTraining(generator, discriminator, {
    clsTokenId: 2,
    sepTokenId: 3,
    maskTokenId: 4,
    discriminatorWeight: run.discriminator_weight,
  })
  joint.train()
  const optimizer = new AdamW(joint.arena, {
    form: 'pytorch',
    epsilon: 1e-6,
    weightDecay: run.weight_decay,
    maxGradientNorm: run.clip,
  })
  run.rows.forEach((row, step) => {
    scope(() => {
      const { detectorLabels, ...input } = stepInput(batches, step)
      optimizer.zeroGrad()
      const output = joint.forward(input)
      output.loss.backward()
      optimizer.step({ learningRate: row.learning_rate })
      const labels = detectorLabels.flatMap((labels) => Array.from(labels))
      t.same(Array.from(output.discriminator?.labels.dataSync() ?? []), labels, 'labels by comparison')
      closeNumber(t, `generator loss, step ${step}`, output.generatorLoss.item(), row.generator_loss)
      closeNumber(
        t,
        `discriminator loss, step ${step}`,
        output.discriminatorLoss.item(),
        row.discriminator_loss,
      )
      closeNumber(t, `loss, step ${step}`, output.loss.item(), row.loss)
      closeNumber(t, `gradient norm, step ${step}`, optimizer.gradientNorm.item(), row.gradient_norm)
    })
  })
  for (const [name, model] of Object.entries({ generator, discriminator })) {
    const after = readSafetensors(join(folder(), `${name}.after.safetensors`))
    for (const [key, parameter] of model.namedParameters()) {
      const expected = after.float32(key)
      const found = await parameter.data()
      let error = 0
      let size = 0
      expected.forEach((value, i) => {
        error += (value - (found[i] as number)) ** 2
        size += value ** 2
      })
      t.ok(
        Math.sqrt(error / size) <= relative,
        `${name} ${key} after the last step: differs by ${Math.sqrt(error / size)}`,
      )
    }
  }
  optimizer.dispose()
  joint.dispose()
})
