/**
 * The distribution of lengths in constant memory: exact counts below 64, above that 32 bins an octave, so that a quantile is at most
 * 1/32 too small. Smallest, largest and mean are exact.
 */

/** Lengths from `from` up to and without `to`. */
export interface HistogramBin {
  readonly from: number
  readonly to: number
  readonly count: number
}

export interface LengthSummary {
  readonly count: number
  readonly mean: number
  readonly minimum: number
  /** The lengths below which 5, 25, 50, 75, 95 and 99 of 100 lie. */
  readonly p5: number
  readonly p25: number
  readonly median: number
  readonly p75: number
  readonly p95: number
  readonly p99: number
  readonly maximum: number
  /** A bin for each power of two, from the smallest length's to the largest's. */
  readonly histogram: readonly HistogramBin[]
}

const exactBelow = 64
const binsPerOctave = 32

function binOf(length: number): number {
  if (length < exactBelow) return length
  const octave = Math.floor(Math.log2(length))
  return exactBelow + (octave - 6) * binsPerOctave + Math.floor((length / 2 ** octave - 1) * binsPerOctave)
}

/** The smallest length in a bin. */
function lengthOf(bin: number): number {
  if (bin < exactBelow) return bin
  const octave = 6 + Math.floor((bin - exactBelow) / binsPerOctave)
  return 2 ** octave * (1 + ((bin - exactBelow) % binsPerOctave) / binsPerOctave)
}

export class LengthDistribution {
  #bins = new Float64Array(exactBelow + 40 * binsPerOctave)
  #count = 0
  #sum = 0
  #minimum = Number.POSITIVE_INFINITY
  #maximum = 0

  add(length: number): void {
    const bin = binOf(length)
    this.#bins[bin] = (this.#bins[bin] as number) + 1
    this.#count += 1
    this.#sum += length
    if (length < this.#minimum) this.#minimum = length
    if (length > this.#maximum) this.#maximum = length
  }

  /** The length of the item that stands at `fraction` when all are sorted (the nearest rank). */
  #quantile(fraction: number): number {
    let rank = Math.max(1, Math.ceil(fraction * this.#count))
    for (let bin = 0; bin < this.#bins.length; bin++) {
      rank -= this.#bins[bin] as number
      if (rank <= 0) return Math.max(this.#minimum, lengthOf(bin))
    }
    return this.#maximum
  }

  #histogram(): HistogramBin[] {
    const bins: HistogramBin[] = []
    for (let bin = 0, to = 1; bin < this.#bins.length && lengthOf(bin) <= this.#maximum; to *= 2) {
      let count = 0
      for (; bin < this.#bins.length && lengthOf(bin) < to; bin++) count += this.#bins[bin] as number
      if (bins.length > 0 || count > 0) bins.push({ from: to === 1 ? 0 : to / 2, to, count })
    }
    return bins
  }

  summary(): LengthSummary {
    if (this.#count === 0) {
      return {
        count: 0,
        mean: 0,
        minimum: 0,
        p5: 0,
        p25: 0,
        median: 0,
        p75: 0,
        p95: 0,
        p99: 0,
        maximum: 0,
        histogram: [],
      }
    }
    return {
      count: this.#count,
      mean: this.#sum / this.#count,
      minimum: this.#minimum,
      p5: this.#quantile(0.05),
      p25: this.#quantile(0.25),
      median: this.#quantile(0.5),
      p75: this.#quantile(0.75),
      p95: this.#quantile(0.95),
      p99: this.#quantile(0.99),
      maximum: this.#maximum,
      histogram: this.#histogram(),
    }
  }
}
