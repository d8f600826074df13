// One row of bench:peers: several entrants do the same work, in turns, so that all meet the same machine.
//
// In each round every entrant gives one sample, a run of calls; odd rounds go backwards. Samples during which the machine was not
// quiet are set aside; where fewer than three of an entrant's are left, all count and the result says so. Ratios pair the samples of a
// round.

const sorted = (values) => [...values].sort((a, b) => a - b)
const quantile = (values, q) => {
  const order = sorted(values)
  return order[Math.min(order.length - 1, Math.floor(q * order.length))]
}
const spread = (values) => ({
  median: quantile(values, 0.5),
  least: Math.min(...values),
  most: Math.max(...values),
})

/** How far logits may be from Voltaic's in float32, as a share of the largest. Measured, base at most: 2e-6, 0.024, 0.031. */
const bounds = { fp32: 1e-5, bf16: 0.06, int8: 0.1 }

/** The largest difference as a share of the largest value. */
function distance(found, expected) {
  if (found.length !== expected.length) return Number.POSITIVE_INFINITY
  const largest = Math.max(...expected.map(Math.abs))
  return Math.max(...expected.map((value, i) => Math.abs(value - found[i]))) / largest
}

/** Refuses entrants that compute something else; gives what was compared. */
function disagreement({ precision }, about, reference) {
  if (about.logits && reference.logits) {
    const far = distance(about.logits, reference.logits)
    return far <= bounds[precision]
      ? { distance: far }
      : { distance: far, error: `logits differ by ${far.toFixed(3)}` }
  }
  // The first step's loss, before anything is learnt: other first values and masks move it by a few percent, a tiny batch by ten.
  if (about.loss && Math.abs(about.loss / reference.loss - 1) > 0.15)
    return { error: `first loss is ${about.loss.toFixed(2)}, ours ${reference.loss.toFixed(2)}` }
  // Two tokenizers may differ in a few characters that one of them knows as unassigned.
  if (about.tokens && Math.abs(about.tokens / reference.tokens - 1) > 1e-3)
    return { error: `${about.tokens} tokens, ours ${reference.tokens}` }
  return {}
}

const longestBlock = 400

async function prepare(entrants, { blockSeconds }) {
  let reference
  for (const entrant of entrants) {
    const about = await entrant.side.ask({ do: 'prepare', ...entrant.request })
    if (about.error) {
      entrant.result = { error: about.error.message, code: about.error.code }
      continue
    }
    reference ??= about
    const found = disagreement(entrant, about, reference)
    entrant.result = { ...found, ...(about.loss ? { loss: about.loss } : {}) }
    entrant.calls = Math.max(1, Math.min(longestBlock, Math.round(blockSeconds / about.seconds)))
    entrant.samples = []
  }
  return entrants.filter(({ result }) => !result.error)
}

/** Times entrants in turns until each has `samples` quiet ones or the time is spent. */
async function race(entrants, guard, { samples, leastRounds, seconds }) {
  const end = performance.now() + 1000 * seconds
  const enough = ({ samples: taken }) => taken.filter(({ quiet }) => quiet).length >= samples
  for (let round = 0; round < leastRounds || (performance.now() < end && !entrants.every(enough)); round++) {
    for (const entrant of round % 2 ? [...entrants].reverse() : entrants) {
      await guard.waitForQuiet(300)
      const { side, calls } = entrant
      const { value, quiet, others } = await guard.watch(side, () => side.ask({ do: 'sample', calls }))
      if (value.error) {
        entrant.result = { error: value.error.message }
        return race(
          entrants.filter((one) => one !== entrant),
          guard,
          { samples, leastRounds, seconds: (end - performance.now()) / 1000 },
        )
      }
      entrant.samples.push({
        round,
        seconds: value.seconds,
        each: quantile(value.seconds, 0.5),
        quiet,
        others,
      })
    }
  }
}

const leastQuiet = 3
const quietOf = (samples) => samples.filter(({ quiet }) => quiet)

function summarize({ samples, side, result }, { tokens, flops, bytes }) {
  const quiet = quietOf(samples)
  const chosen = quiet.length >= Math.min(leastQuiet, samples.length) ? quiet : samples
  const each = spread(chosen.map(({ each }) => each))
  const calls = chosen.flatMap(({ seconds }) => seconds)
  const rate = (work) => work / each.median
  return {
    ...result,
    seconds: each,
    n: chosen.length,
    setAside: samples.length - quiet.length,
    quiet: chosen === quiet,
    // A quantile of fewer calls is their largest.
    ...(calls.length >= 100 ? { p99: quantile(calls, 0.99) } : {}),
    ...(tokens ? { tokensPerSecond: rate(tokens) } : {}),
    ...(flops ? { gflops: rate(flops) / 1e9 } : {}),
    ...(bytes ? { megabytesPerSecond: rate(bytes) / 1e6 } : {}),
    peakMegabytes: side.peakBytes / 2 ** 20,
    samples: samples.map(({ round, each: median, quiet, others }) => ({
      round,
      seconds: median,
      quiet,
      others,
    })),
  }
}

/** How many times faster ours is: median, least and most over the rounds; quiet rounds alone where there are three. */
function ratio(ours, theirs) {
  const pairs = ours.samples.flatMap((a) => {
    const b = theirs.samples.find(({ round }) => round === a.round)
    return b ? [{ times: b.each / a.each, quiet: a.quiet && b.quiet }] : []
  })
  const quiet = quietOf(pairs)
  const chosen = quiet.length >= Math.min(leastQuiet, pairs.length) ? quiet : pairs
  return { ours: ours.name, peer: theirs.name, ...spread(chosen.map(({ times }) => times)), n: chosen.length }
}

/**
 * Holds a contest: { name, group, work: { tokens, flops, bytes } }, entrants { name, ours, precision, side, request }.
 * The first entrant is the one that others must agree with. `options`: samples, leastRounds, seconds, blockSeconds.
 */
export async function hold(contest, entrants, guard, options) {
  const ready = await prepare(entrants, options)
  await race(ready, guard, options)
  const timed = ready.filter(({ samples, result }) => samples.length > 0 && !result.error)
  const results = entrants.map((entrant) => ({
    name: entrant.name,
    ours: entrant.ours,
    precision: entrant.precision,
    ...(timed.includes(entrant) ? summarize(entrant, contest.work) : entrant.result),
  }))
  const ratios = timed
    .filter(({ ours }) => ours)
    .flatMap((ours) => timed.filter((one) => !one.ours).map((theirs) => ratio(ours, theirs)))
  return { ...contest, results, ratios }
}
