// The kernels of the cross-entropy over the tokens of ragged sequences: a block a sequence, whose
// length and target are checked here, on the card. What is out of range is reported and then taken
// as a sequence without tokens, or as one that is not counted.
#pragma once
#include "loss_mean.cuh"
#include "softmax_rows.cuh"

namespace voltaic {
namespace {

constexpr int kSequenceThreads = 128;
constexpr int kSequenceUnroll = 4;

struct RaggedChecks {
  IndexCheck offsets, targets;
};
struct RaggedBatch {
  const float* logits;
  const int32_t *offsets, *targets;
  int64_t tokens, sequences;
};

// Offsets begin at 0 and end at the number of tokens. One thread calls it.
__device__ __forceinline__ void check_ends(const RaggedBatch& batch, const RaggedChecks& checks) {
  const int64_t last = batch.sequences;
  in_range(checks.offsets, 0, batch.offsets[0], 0, 0);
  in_range(checks.offsets, last, batch.offsets[last], batch.tokens, batch.tokens);
}

struct Sequence {
  int64_t begin;
  int32_t length, target;  // target: kIgnored, or a token of it
};
__device__ __forceinline__ Sequence sequence_of(const RaggedBatch& batch,
                                                const RaggedChecks& checks, int64_t s) {
  const int64_t begin = batch.offsets[s], end = batch.offsets[s + 1];
  Sequence sequence = {begin, 0, batch.targets[s]};
  if (begin >= 0 && begin <= batch.tokens) {  // else reported as the end of the one before
    if (end >= begin && end <= batch.tokens) {
      sequence.length = static_cast<int32_t>(end - begin);
    } else if (threadIdx.x == 0) {
      in_range(checks.offsets, s + 1, end, begin, batch.tokens);
    }
  }
  const int32_t target = sequence.target;
  if (target != kIgnored && (target < 0 || target >= sequence.length)) {
    if (threadIdx.x == 0) in_range(checks.targets, s, target, 0, sequence.length - 1);
    sequence.target = kIgnored;
  }
  return sequence;
}

__global__ void __launch_bounds__(kSequenceThreads)
    ragged_cross_entropy(RaggedBatch batch, RaggedChecks checks, float* log_sum_exp,
                         LossPart* parts) {
  __shared__ float maxima[kSequenceThreads / 32], sums[kSequenceThreads / 32];
  const Sequence sequence = sequence_of(batch, checks, blockIdx.x);
  const float* const row = batch.logits + sequence.begin;
  OnlineSum total;
  for (int64_t begin = threadIdx.x; begin < sequence.length;
       begin += kSequenceUnroll * kSequenceThreads) {
    float values[kSequenceUnroll];
#pragma unroll
    for (int i = 0; i < kSequenceUnroll; i++) {
      const int64_t t = begin + i * kSequenceThreads;
      values[i] = t < sequence.length ? row[t] : -INFINITY;
    }
    total.add(values);
  }
  total.combine<kSequenceThreads>(maxima, sums);
  if (threadIdx.x != 0) return;
  const float log_sum = logf(total.sum);
  log_sum_exp[blockIdx.x] = total.max + log_sum;
  LossPart part = {};
  if (sequence.target != kIgnored) {
    // Not log_sum_exp - logit: when the target is nearly sure, that difference would lose the loss.
    part.sum = log_sum + (total.max - row[sequence.target]);
    part.counts[0] = 1;
  }
  parts[blockIdx.x] = part;
}

__global__ void __launch_bounds__(256)
    ragged_cross_entropy_mean(RaggedBatch batch, RaggedChecks checks, const LossPart* parts,
                              float* loss, int32_t* valid) {
  __shared__ LossPart room[256 / 32];
  const LossPart total = sum_of_parts(parts, batch.sequences, room);
  if (threadIdx.x != 0) return;
  check_ends(batch, checks);
  *loss = mean_loss(total.sum, total.counts[0]);
  *valid = total.counts[0];
}

__global__ void __launch_bounds__(kSequenceThreads)
    ragged_cross_entropy_gradient(RaggedBatch batch, RaggedChecks checks,
                                  const float* loss_gradient, const float* log_sum_exp,
                                  const int32_t* valid, float* logits_gradient) {
  if (blockIdx.x == 0 && threadIdx.x == 0) check_ends(batch, checks);
  if (blockIdx.x >= batch.sequences) return;
  const Sequence sequence = sequence_of(batch, checks, blockIdx.x);
  const float* const row = batch.logits + sequence.begin;
  float* const to = logits_gradient + sequence.begin;
  const float scale = *valid > 0 ? *loss_gradient / static_cast<float>(*valid) : 0.0f;
  const float shift = log_sum_exp[blockIdx.x];
  for (int64_t t = threadIdx.x; t < sequence.length; t += kSequenceThreads) {
    if (sequence.target == kIgnored) {
      to[t] = 0.0f;
      continue;
    }
    const float probability = expf(row[t] - shift);
    to[t] = (t == sequence.target ? probability - 1.0f : probability) * scale;
  }
}

}  // namespace
}  // namespace voltaic
