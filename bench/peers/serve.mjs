// What a process of bench:peers does in JavaScript: answers each line of standard input (../gpu/line-server.mjs).
//
//   { do: 'prepare', kind, … }       makes ready what is to be timed; answers what it is and the seconds of one call
//   { do: 'sample', calls }          times so many calls: { seconds: […] }, one number a call, or their mean where they overlap
//
// makers[kind](request) gives { call, repeat?, about?, dispose? }: call does the work once; repeat(calls) many times with overlap, in
// seconds a call; about is added to the answer.
import { createInterface } from 'node:readline'

const secondsSince = (begin) => (performance.now() - begin) / 1000

async function timeEach(call, calls) {
  const seconds = []
  for (let i = 0; i < calls; i++) {
    const begin = performance.now()
    await call()
    seconds.push(secondsSince(begin))
  }
  return seconds
}

export async function serve(makers, others = {}) {
  let work
  const answers = {
    ...others,
    async prepare(request) {
      await work?.dispose?.()
      work = undefined
      const maker = makers[request.kind]
      if (!maker) throw Object.assign(new Error(`no ${request.kind} here`), { code: 'ERR_UNSUPPORTED' })
      work = await maker(request)
      const sample = async () => (work.repeat ? [await work.repeat(1)] : timeEach(work.call, 1))
      const [first] = await sample()
      // Slow calls are warm after one.
      const [seconds] = first > 2 ? [first] : await sample()
      return { ...(await work.about?.()), seconds }
    },
    async sample({ calls }) {
      if (work.repeat) return { seconds: [await work.repeat(calls)] }
      // Wakes sleeping workers, outside of the clock.
      if (calls > 1) await timeEach(work.call, Math.min(3, calls))
      return { seconds: await timeEach(work.call, calls) }
    },
  }
  const reply = (answer) => process.stdout.write(`@${JSON.stringify(answer)}\n`)
  for await (const line of createInterface({ input: process.stdin })) {
    const request = JSON.parse(line)
    try {
      reply({ result: await answers[request.do](request) })
    } catch (error) {
      reply({ error: { code: error.code ?? 'ERR_FAILED', message: error.message } })
      if (!error.code) console.error(error.stack)
    }
  }
  process.exit(0)
}
