// The vocabulary head's loss, from what is known of the rows after the last tile: a block takes up
// to 4096 rows, 16 bytes and three numbers each, and where there are several, a second kernel adds
// their parts. So the order of additions follows from the number of rows alone.
#pragma once
#include "loss_mean.cuh"

namespace voltaic {
namespace {

constexpr int kLossThreads = 512;
constexpr int64_t kLossRows = 4096;

struct HeadLoss {
  float* loss;
  int32_t* counts;
  __device__ __forceinline__ void set(const LossPart& sum) const {
    *loss = mean_loss(sum.sum, sum.counts[0]);
    counts[0] = sum.counts[0];
    counts[1] = sum.counts[1];
  }
};

__global__ void __launch_bounds__(kLossThreads)
    vocabulary_loss(const float* statistics, const int32_t* targets, const int32_t* predictions,
                    int64_t rows, float* log_sum_exp, LossPart* parts, HeadLoss output) {
  __shared__ LossPart room[kLossThreads / 32];
  const int64_t begin = blockIdx.x * kLossRows;
  const int64_t end = begin + kLossRows < rows ? begin + kLossRows : rows;
  LossPart part = {};
  for (int64_t row = begin + threadIdx.x; row < end; row += kLossThreads) {
    const float* const known = statistics + 4 * row;
    const float max = known[0], log_sum = logf(known[1]);
    log_sum_exp[row] = max + log_sum;
    if (targets[row] == kIgnored) continue;
    // Not log_sum_exp - logit: when the target is nearly sure, that difference would lose the loss.
    part.sum += log_sum + (max - known[2]);
    part.counts[0]++;
    part.counts[1] += predictions[row] == targets[row];
  }
  part = block_loss(part, room);
  if (threadIdx.x != 0) return;
  if (gridDim.x == 1) {
    output.set(part);
  } else {
    parts[blockIdx.x] = part;
  }
}

__global__ void __launch_bounds__(kLossThreads)
    vocabulary_loss_sum(const LossPart* parts, int64_t count, HeadLoss output) {
  __shared__ LossPart room[kLossThreads / 32];
  const LossPart sum = sum_of_parts(parts, count, room);
  if (threadIdx.x == 0) output.set(sum);
}

}  // namespace
}  // namespace voltaic
