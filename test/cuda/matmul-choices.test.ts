/** The choices among a matmul library's algorithms where a run begins: the default, or a checkpoint's. */
import { spawnSync } from 'node:child_process'
import t from 'tap'
import { deviceSetting, resolveDevice, setDeviceSetting } from 'voltaic'
import type { CheckpointState } from '../../dist/training/checkpoint.js'
import { restoreMatmulChoices } from '../../dist/training/hardware.js'
import { needsCuda } from '../helpers/cuda.js'

const restore = async (matmul?: string): Promise<string[]> => {
  const notes: string[] = []
  await restoreMatmulChoices(resolveDevice('cuda'), false, { matmul } as CheckpointState, notes)
  return notes
}

t.test('choices of another library are a note, damaged ones an error', needsCuda, async (t) => {
  t.same(await restore(), [])
  t.match(await restore('cublaslt 9.9.9 sm_10\n'), [
    /^the run's choices of matmul algorithms cannot be used.*the bits may differ$/,
  ])
  await t.rejects(restore('nonsense'), { code: 'ERR_ARGUMENT' })
})

t.test('a run does not inherit what was chosen before it in the process', needsCuda, async (t) => {
  const device = resolveDevice('cuda')
  const fresh = await deviceSetting(device, 'matmul')
  await setDeviceSetting(device, 'matmul', 'off')
  t.same(await restore(), [])
  t.equal(await deviceSetting(device, 'matmul'), fresh)
})

// In a process of its own: the library is looked for once in each.
t.test('a library that was named and is not used is a note', needsCuda, async (t) => {
  const notesWith = (named: string): string[] => {
    const run = spawnSync(
      process.execPath,
      [
        '--input-type=module',
        '-e',
        `import { resolveDevice } from 'voltaic'
         import { restoreMatmulChoices } from ${JSON.stringify(new URL('../../dist/training/hardware.js', import.meta.url))}
         const notes = []
         await restoreMatmulChoices(resolveDevice('cuda'), false, undefined, notes)
         console.log(JSON.stringify(notes))`,
      ],
      { encoding: 'utf8', env: { ...process.env, VOLTAIC_CUBLASLT: named } },
    )
    t.equal(run.stderr, '', 'nothing is printed')
    return JSON.parse(run.stdout)
  }
  t.match(notesWith('/nowhere/libcublasLt.so'), [
    /^VOLTAIC_CUBLASLT=\/nowhere\/libcublasLt\.so has no effect; the matmul library is not usable: own kernels/,
  ])
  t.same(notesWith('off'), [])
})
