/** What a run does with a matmul library's choices: asked for, kept in checkpoints, taken back. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { type Device, type PretrainEvent, resolveDevice } from 'voltaic'
import type { CheckpointState } from '../../dist/training/checkpoint.js'
import { matmulChoices, restoreMatmulChoices } from '../../dist/training/hardware.js'
import { corpusText, smallRun, train } from '../helpers/training.js'

const folder = t.testdir({ 'corpus.txt': corpusText(30) })
const restore = async (
  device: Device,
  tune: boolean,
  state?: Pick<CheckpointState, 'matmul'>,
): Promise<string[]> => {
  const notes: string[] = []
  await restoreMatmulChoices(device, tune, state as CheckpointState | undefined, notes)
  return notes
}

t.test('the CPU has no such choices: said where they were asked for, nothing kept', async (t) => {
  const cpu = resolveDevice('cpu')
  t.same(await restore(cpu, false), [])
  t.same(await restore(cpu, false, { matmul: 'cublaslt 13.1.0 sm_90\n' }), [], 'of a run on a card')
  t.match(await restore(cpu, true), [/^tune has no effect: the cpu backend/])
  t.equal(await matmulChoices(cpu), undefined)

  const events: PretrainEvent[] = []
  const output = join(folder, 'run')
  const run = {
    ...smallRun,
    corpus: [join(folder, 'corpus.txt')],
    output,
    steps: 2,
    saveEvery: 2,
    tune: true,
  }
  await train({ ...run, onEvent: (event) => events.push(event) })
  t.match(
    events.filter(({ kind }) => kind === 'note'),
    [{ kind: 'note', text: /^tune has no effect/ }],
  )
  const state = JSON.parse(readFileSync(join(output, 'checkpoints', 'step-000000002', 'state.json'), 'utf8'))
  t.notOk('matmul' in state)
})
