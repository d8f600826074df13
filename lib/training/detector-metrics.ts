/**
 * The discriminator's metrics from the counts that its head gathers on the device (discriminator_head in the kernel table):
 * accuracy, precision, recall and the area under the ROC curve, over real tokens alone (there is no padding to count).
 */

/** Counts of one or more batches, in the layout of the kernel: 4 counts, then 2048 bins of positives, 2048 of negatives. */
const bins = 2048
export const detectorCounts: number = 4 + 2 * bins

export interface DetectorMetrics {
  readonly disc_accuracy: number
  /** Area under the ROC curve; null when one class is missing. */
  readonly disc_auc: number | null
  /** Of the tokens called replaced, the part that was; null when none was called so. */
  readonly disc_precision: number | null
  /** Of the replaced tokens, the part that was found; null when there was none. */
  readonly disc_recall: number | null
}

const ratio = (part: number, whole: number): number | null => (whole > 0 ? part / whole : null)

/**
 * Area under the ROC curve from histograms of the two classes' logits: the chance that a replaced token's logit is above
 * an original one's, ties (the same bin) counting half.
 */
function areaUnderCurve(counts: Int32Array): number | null {
  let positives = 0
  let negatives = 0
  let wins = 0
  for (let bin = 0; bin < bins; bin++) {
    const positive = counts[4 + bin] as number
    const negative = counts[4 + bins + bin] as number
    wins += positive * (negatives + negative / 2)
    positives += positive
    negatives += negative
  }
  return ratio(wins, positives * negatives)
}

export function detectorMetrics(counts: Int32Array): DetectorMetrics {
  const [truePositive, falsePositive, trueNegative, falseNegative] = counts as unknown as [
    number,
    number,
    number,
    number,
  ]
  const all = truePositive + falsePositive + trueNegative + falseNegative
  return {
    disc_accuracy: ratio(truePositive + trueNegative, all) ?? 0,
    disc_auc: areaUnderCurve(counts),
    disc_precision: ratio(truePositive, truePositive + falsePositive),
    disc_recall: ratio(truePositive, truePositive + falseNegative),
  }
}
