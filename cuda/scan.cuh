// Running sums over a warp and over a block.
#pragma once
#include "kernel.cuh"

namespace voltaic {
namespace {

// The sum of this lane's value and those of the lanes before it.
template <class T>
__device__ __forceinline__ T warp_running_sum(T value) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int by = 1; by < 32; by *= 2) {
    const T before = __shfl_up_sync(kAllLanes, value, by);
    if (lane >= by) value += before;
  }
  return value;
}

// The sum of the values of the threads before this one, and in *total that of all. Every thread of
// the block must call it; `room` is shared memory for threads / 32 numbers, free again afterwards.
template <int threads, class T>
__device__ __forceinline__ T block_sum_before(T value, T* room, T* total) {
  static_assert(threads % 32 == 0 && threads <= 1024);
  const int warp = threadIdx.x / 32;
  const T here = warp_running_sum(value);
  if (threadIdx.x % 32 == 31) room[warp] = here;
  __syncthreads();
  T before = 0, all = 0;
#pragma unroll
  for (int i = 0; i < threads / 32; i++) {
    if (i < warp) before += room[i];
    all += room[i];
  }
  __syncthreads();
  *total = all;
  return before + here - value;
}

}  // namespace
}  // namespace voltaic
