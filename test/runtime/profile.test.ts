import t from 'tap'
import {
  allocate,
  profile,
  release,
  resolveDevice,
  run,
  synchronize,
  upload,
} from '../../dist/runtime/index.js'

const device = resolveDevice('cpu')

t.test('a profile counts and times the kernels that its body queues, and no others', async (t) => {
  const x = allocate(device, 'float32', [2, 3])
  const y = allocate(device, 'float32', [2, 3])
  upload(x, Float32Array.from([1, 2, 3, 4, 5, 6]))
  run('negate', [x, y])
  const { result, kernels, seconds } = await profile(device, () => {
    for (let i = 0; i < 3; i++) run('exp', [x, y])
    run('add', [x, x, y])
    return 'done'
  })
  run('negate', [x, y])
  await synchronize(device)
  t.equal(result, 'done')
  const counts = kernels.map(({ op, tensors, calls }) => [op, tensors.join(' '), calls]).sort()
  t.strictSame(counts, [
    ['add', 'f32[2,3] f32[2,3] f32[2,3]', 1],
    ['exp', 'f32[2,3] f32[2,3]', 3],
  ])
  const sum = kernels.reduce((total, kernel) => total + kernel.seconds, 0)
  t.ok(sum > 0 && sum <= seconds, 'kernels run one after the other, within the profile')
  release(x)
  release(y)
})

t.test('arguments that were left out are shown as such', async (t) => {
  const [a, b, c] = [
    allocate(device, 'float32', [2, 3]),
    allocate(device, 'float32', [4, 3]),
    allocate(device, 'float32', [2, 4]),
  ]
  for (const handle of [a, b]) run('fill', [handle], [1])
  const { kernels } = await profile(device, () =>
    run('gemm', [a, b, null, null, null, c], [2, 4, 3, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0]),
  )
  t.strictSame(kernels[0]?.tensors, ['f32[2,3]', 'f32[4,3]', '-', '-', '-', 'f32[2,4]'])
  for (const handle of [a, b, c]) release(handle)
})

t.test('what the body throws ends the profile', async (t) => {
  const failure = new Error('the body failed')
  await t.rejects(
    profile(device, () => {
      throw failure
    }),
    failure,
  )
  const { kernels } = await profile(device, async () => undefined)
  t.strictSame(kernels, [])
})
