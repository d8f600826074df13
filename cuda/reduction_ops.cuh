// What a reduction does with two numbers, and how threads put theirs together.
#pragma once
#include "../native/engine/reduction_plan.h"
#include "index_math.cuh"

namespace voltaic {
namespace {

struct Sum {
  static constexpr bool kEmptyHasResult = true;
  __device__ static __forceinline__ float identity() { return 0.0f; }
  template <class T>
  __device__ static __forceinline__ T combine(T a, T b) {
    return a + b;
  }
};
struct Max {
  static constexpr bool kEmptyHasResult = false;
  __device__ static __forceinline__ float identity() { return -__builtin_inff(); }
  template <class T>
  __device__ static __forceinline__ T combine(T a, T b) {
    return a > b || a != a ? a : b;
  }
};

// Over groups of `lanes` neighbouring lanes, a power of two; in every lane. A whole warp calls it.
template <class Op, class T>
__device__ __forceinline__ T combine_lanes(T value, int lanes) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) {
    const T other = __shfl_xor_sync(kAllLanes, value, mask);
    if (mask < lanes) value = Op::combine(value, other);
  }
  return value;
}

// Over the block, in thread 0. `room` has a number for each warp.
template <class Op, int threads, class T>
__device__ __forceinline__ T combine_block(T value, T* room) {
  value = combine_lanes<Op>(value, 32);
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x > 0) return value;
  value = room[0];
#pragma unroll
  for (int i = 1; i < threads / 32; i++) value = Op::combine(value, room[i]);
  return value;
}

inline StridedAxes<1> device_axes(const Axes& axes) {
  StridedAxes<1> result;
  for (int d = axes.rank - 1; d >= 0; d--) result.add(axes.sizes[d], axes.strides[d]);
  return result;
}
// Whether packs of `pack` numbers stay aligned along these axes.
inline bool strides_divide(const Axes& axes, int64_t pack) {
  for (int d = 0; d < axes.rank; d++)
    if (axes.strides[d] % pack != 0) return false;
  return true;
}

}  // namespace
}  // namespace voltaic
