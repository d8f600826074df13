/** A resumed run's choices among a matmul library's algorithms, where the library is another one. */
import t from 'tap'
import { resolveDevice } from 'voltaic'
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
