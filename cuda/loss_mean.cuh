// The mean of losses and the counts that go with it, added in an order that follows from the shapes
// alone: each block adds its items' and writes a part, one block adds the parts. In double
// precision, as losses of either size stand in one sum.
#pragma once
#include "kernel.cuh"

namespace voltaic {
namespace {

constexpr int32_t kIgnored = -100;  // the target, or label, of an item that does not count

struct LossPart {
  double sum;
  int32_t counts[4];  // what they count is the family's
};

// The sum over the block, a whole number of warps, in thread 0. Every thread must call it. `room`
// is shared memory for a part of each warp.
__device__ __forceinline__ LossPart block_loss(LossPart part, LossPart* room) {
  part.sum = warp_sum(part.sum);
#pragma unroll
  for (int i = 0; i < 4; i++) part.counts[i] = warp_sum(part.counts[i]);
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = part;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (unsigned warp = 1; warp < blockDim.x / 32; warp++) {
      part.sum += room[warp].sum;
#pragma unroll
      for (int i = 0; i < 4; i++) part.counts[i] += room[warp].counts[i];
    }
  }
  return part;
}

// The sum of the parts that blocks have written, in thread 0 of the one block that asks. Part:
// LossPart, or where the writers are blocks of the same kernel, volatile LossPart, which no nearer
// cache answers (and whose loads wait for each other).
template <class Part>
__device__ __forceinline__ LossPart sum_of_parts(const Part* parts, int64_t count, LossPart* room) {
  LossPart sum = {};
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    sum.sum += parts[i].sum;
#pragma unroll
    for (int j = 0; j < 4; j++) sum.counts[j] += parts[i].counts[j];
  }
  return block_loss(sum, room);
}

// 0 when none was counted.
__device__ __forceinline__ float mean_loss(double sum, int32_t counted) {
  return counted > 0 ? static_cast<float>(sum / counted) : 0.0f;
}

}  // namespace
}  // namespace voltaic
