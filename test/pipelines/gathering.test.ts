/** Which sequences go into which pass, without a model. */
import { setImmediate as turn } from 'node:timers/promises'
import t from 'tap'
import { Gathering, type Sequence } from '../../dist/pipelines/gathering.js'

const sequence = (id: number, tokens = 1): Sequence => ({
  inputIds: new Int32Array(tokens).fill(id),
  tokenTypeIds: new Int32Array(tokens),
})

/** A gathering whose passes give each sequence's id doubled, end when told to, and are written down. */
function watched(budget: number, fails: (ids: number[]) => boolean = () => false) {
  const passes: number[][] = []
  const ends: (() => void)[] = []
  let isHeld = false
  const gathering = new Gathering<number>(async (batch) => {
    const ids = batch.map(({ inputIds }) => inputIds[0] as number)
    passes.push(ids)
    if (isHeld) await new Promise<void>((resolve) => ends.push(resolve))
    if (fails(ids)) throw new Error(`failed with ${ids}`)
    return ids.map((id) => 2 * id)
  }, budget)
  const hold = (held: boolean): void => {
    isHeld = held
    if (!held) for (const end of ends.splice(0)) end()
  }
  return { gathering, passes, hold }
}

t.test('calls of one turn of the event loop go together, and get their own results', async (t) => {
  const { gathering, passes } = watched(1000)
  const results = await Promise.all([
    gathering.submit([sequence(1), sequence(2)]),
    gathering.submit([]),
    gathering.submit([sequence(3)]),
  ])
  t.same(results, [[2, 4], [], [6]])
  t.same(passes, [[1, 2, 3]])
})

t.test('what comes while a pass runs waits and goes together', async (t) => {
  const { gathering, passes, hold } = watched(1000)
  hold(true)
  const first = gathering.submit([sequence(1)])
  await turn()
  t.same(passes, [[1]])
  const later = [gathering.submit([sequence(2)])]
  await turn()
  later.push(gathering.submit([sequence(3)]))
  await turn()
  t.same(passes, [[1]], 'nothing else has begun')
  hold(false)
  t.same(await Promise.all([first, ...later]), [[2], [4], [6]])
  t.same(passes, [[1], [2, 3]])
  await gathering.submit([sequence(4)])
  t.same(passes.at(-1), [4], 'it starts again after it was idle')
})

t.test('a pass takes what fits the budget in order; a longer sequence goes alone', async (t) => {
  const { gathering, passes } = watched(5)
  const lengths = [2, 2, 2, 9, 1, 4, 1]
  const jobs = [lengths.slice(0, 4), lengths.slice(4)]
  let id = 0
  const results = await Promise.all(
    jobs.map((job) => gathering.submit(job.map((tokens) => sequence(++id, tokens)))),
  )
  t.same(passes, [[1, 2], [3], [4], [5, 6], [7]])
  t.same(results, [
    [2, 4, 6, 8],
    [10, 12, 14],
  ])
})

t.test('an error reaches the call it belongs to, not those it shared a pass with', async (t) => {
  const { gathering, passes } = watched(3, (ids) => ids.includes(2))
  const results = await Promise.allSettled([
    gathering.submit([sequence(1)]),
    gathering.submit([sequence(2), sequence(3), sequence(4), sequence(5)]),
    gathering.submit([sequence(6)]),
  ])
  t.match(results, [
    { status: 'fulfilled', value: [2] },
    { status: 'rejected', reason: { message: /failed with/ } },
    { status: 'fulfilled', value: [12] },
  ])
  t.notOk(passes.flat().includes(5), 'the rest of the failed call is not run')
  await gathering.idle()
})

t.test('idle waits for what runs and what waits', async (t) => {
  const { gathering, passes, hold } = watched(1)
  hold(true)
  const jobs = Promise.all([gathering.submit([sequence(1)]), gathering.submit([sequence(2)])])
  let isIdle = false
  const idle = gathering.idle().then(() => {
    isIdle = true
  })
  await turn()
  await turn()
  t.notOk(isIdle)
  hold(false)
  await idle
  t.same(passes, [[1], [2]])
  t.same(await jobs, [[2], [4]])
})
