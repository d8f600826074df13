/**
 * The golden models through their classes and back: loaded and saved, the tensors are byte-identical to those of the reference, the
 * configuration says the same, and saved once more both files are the same bytes. Equal weights give equal logits, so golden.test.ts
 * holds for what is saved too.
 */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  ElectraForMaskedLM,
  ElectraForPreTraining,
  ElectraForQuestionAnswering,
  ElectraForSequenceClassification,
  ElectraForTokenClassification,
  ElectraModel,
  type ElectraPreTrainedModel,
  type FromPretrainedOptions,
} from '../../dist/electra/index.js'
import { readSafetensors, type SafetensorsFile } from '../../dist/formats/safetensors.js'
import { type DeviceName, resolveDevice } from '../../dist/runtime/index.js'
import { needsSharedData, sharedData } from '../helpers/shared.js'
import { golden } from './golden-data.js'

const device = resolveDevice((process.env.VOLTAIC_TEST_DEVICE ?? 'cpu') as DeviceName)

interface Loads {
  fromPretrained(folder: string, options: FromPretrainedOptions): Promise<ElectraPreTrainedModel>
}
const classes: Readonly<Record<string, Loads>> = {
  ElectraForMaskedLM,
  ElectraForPreTraining,
  ElectraForQuestionAnswering,
  ElectraForSequenceClassification,
  ElectraForTokenClassification,
}

const open = (folder: string): SafetensorsFile => readSafetensors(join(folder, 'model.safetensors'))
const configOf = (folder: string): Record<string, unknown> =>
  JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'))

function sameTensors(t: Test, found: string, expected: string, what: string): void {
  using a = open(found)
  using b = open(expected)
  t.strictSame([...a.names].sort(), [...b.names].sort(), `${what}: names`)
  const different = b.names.filter(
    (name) =>
      JSON.stringify(a.info(name)) !== JSON.stringify(b.info(name)) ||
      Buffer.compare(a.bytes(name), b.bytes(name)) !== 0,
  )
  t.strictSame(different, [], `${what}: every byte`)
}

t.test('every golden model', needsSharedData, async (t) => {
  const folders = readdirSync(join(sharedData as string, 'golden'), { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && entry.name !== 'joint_training')
    .map(({ name }) => name)
  t.ok(folders.length >= 7)
  const tried = new Set<string>()
  for (const name of folders) {
    const original = golden(name)
    const [architecture = ''] = configOf(original).architectures as string[]
    tried.add(architecture)
    const Model = classes[architecture]
    if (Model === undefined) throw new Error(`${name}: no class ${architecture}`)
    const saved = join(t.testdir(), 'saved')
    const model = await Model.fromPretrained(original, { device })
    await model.savePretrained(saved)
    model.dispose()
    sameTensors(t, saved, original, name)
    const { transformers_version: _, ...rest } = configOf(original)
    t.match(configOf(saved), rest, `${name}: the configuration`)
    const again = await Model.fromPretrained(saved, { device })
    t.same(again.loadReport, { missing: [], unexpected: [] })
    mkdirSync(join(saved, 'again'))
    await again.savePretrained(join(saved, 'again'))
    again.dispose()
    for (const file of ['model.safetensors', 'config.json']) {
      t.same(
        readFileSync(join(saved, 'again', file)),
        readFileSync(join(saved, file)),
        `${name}: ${file} again`,
      )
    }
    const body = await ElectraModel.fromPretrained(original, { device })
    await body.savePretrained(join(saved, 'body'))
    body.dispose()
    using whole = open(original)
    using alone = open(join(saved, 'body'))
    const bare = (name: string): string => name.replace(/^electra\./, '')
    const bodies = whole.names.filter((name) => name.startsWith('electra.'))
    t.strictSame(alone.names.map(bare).sort(), bodies.map(bare).sort(), `${name}: the body alone`)
    for (const tensor of bodies) {
      const there = alone.has(tensor) ? tensor : bare(tensor)
      if (Buffer.compare(alone.bytes(there), whole.bytes(tensor)) !== 0) t.fail(`${name}: ${tensor} differs`)
    }
  }
  t.same([...tried].sort(), Object.keys(classes), 'every class that has golden data')
})
