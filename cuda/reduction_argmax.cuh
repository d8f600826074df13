// The index of the first largest number along the last axis; NaN counts as largest.
//
// A warp a row up to 1024 numbers, a block above; each thread keeps its first largest, in packs of
// 16 bytes where rows are aligned, and the better of two is the larger or the earlier. One pass,
// and the result is exact, so it does not depend on who reads what.
#pragma once
#include "reduction_ops.cuh"

namespace voltaic {
namespace {

constexpr int kArgmaxThreads = 256;
constexpr int64_t kArgmaxWarpWidth = 1024;

struct Largest {
  float value;
  int32_t index;  // -1: nothing above negative infinity yet
};
// Whether a beats b wherever they stand.
__device__ __forceinline__ bool larger_value(float a, float b) {
  return a > b || (a != a && b == b);
}
__device__ __forceinline__ Largest better(const Largest& a, const Largest& b) {
  if (larger_value(a.value, b.value)) return a;
  if (larger_value(b.value, a.value)) return b;
  return static_cast<uint32_t>(a.index) < static_cast<uint32_t>(b.index) ? a : b;
}

template <class T>
__device__ __forceinline__ Largest largest_of_share(const T* row, int64_t width, bool aligned,
                                                    int lane, int lanes) {
  constexpr int kPack = 16 / sizeof(T), kAhead = 4;
  Largest best = {-__builtin_inff(), -1};
  const auto look = [&](float value, int64_t index) {
    if (larger_value(value, best.value)) best = {value, static_cast<int32_t>(index)};
  };
  int64_t at = aligned ? static_cast<int64_t>(lane) * kPack : width;
  const int64_t step = static_cast<int64_t>(lanes) * kPack;
  for (; at + (kAhead - 1) * step + kPack <= width; at += kAhead * step) {
    Pack<T> packs[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; u++) packs[u] = load_pack<T>(row + at + u * step);
#pragma unroll
    for (int u = 0; u < kAhead; u++)
#pragma unroll
      for (int i = 0; i < kPack; i++) look(to_float(packs[u].values[i]), at + u * step + i);
  }
  for (; at + kPack <= width; at += step) {
    const Pack<T> pack = load_pack<T>(row + at);
#pragma unroll
    for (int i = 0; i < kPack; i++) look(to_float(pack.values[i]), at + i);
  }
  // what is not packed, neighbours in neighbouring lanes
  int64_t i = (aligned ? width / kPack * kPack : 0) + lane;
  for (; i + (kAhead - 1) * lanes < width; i += kAhead * lanes) {
    T values[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; u++) values[u] = row[i + u * lanes];
#pragma unroll
    for (int u = 0; u < kAhead; u++) look(to_float(values[u]), i + u * lanes);
  }
  for (; i < width; i += lanes) look(to_float(row[i]), i);
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2)
    best = better(best, {__shfl_xor_sync(kAllLanes, best.value, mask),
                         __shfl_xor_sync(kAllLanes, best.index, mask)});
  return best;
}

template <class T>
__global__ void __launch_bounds__(kArgmaxThreads)
    argmax_kernel(const T* x, int32_t* y, int64_t rows, int64_t width, bool aligned, bool block) {
  __shared__ Largest room[kArgmaxThreads / 32];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t row =
      block ? blockIdx.x : static_cast<int64_t>(blockIdx.x) * (kArgmaxThreads / 32) + warp;
  if (row >= rows) return;
  Largest best =
      largest_of_share(x + row * width, width, aligned,
                       block ? static_cast<int>(threadIdx.x) : lane, block ? kArgmaxThreads : 32);
  if (block) {
    if (lane == 0) room[warp] = best;
    __syncthreads();
    if (warp > 0) return;
    for (int i = 1; i < kArgmaxThreads / 32; i++) best = better(best, room[i]);
  }
  if (lane == 0) y[row] = best.index < 0 ? 0 : best.index;
}

template <class T>
voltaic_status first_largest(const voltaic_call* call) {
  const T* x = data<const T>(call, 0);
  const int64_t rows = tensor(call, 1).elements;
  if (rows == 0) return VOLTAIC_OK;
  const int64_t width = tensor(call, 0).elements / rows;
  const bool aligned =
      aligned_16(x) && (rows == 1 || width % (16 / static_cast<int64_t>(sizeof(T))) == 0);
  const bool block = width > kArgmaxWarpWidth;
  return launch(call, argmax_kernel<T>, blocks_for(rows, block ? 1 : kArgmaxThreads / 32),
                kArgmaxThreads, 0, x, data<int32_t>(call, 1), rows, width, aligned, block);
}

}  // namespace
}  // namespace voltaic
