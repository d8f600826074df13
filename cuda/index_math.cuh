// Places in arrays: division by numbers that the host knows, and offsets along strided axes.
//
// n / d is a multiplication and a shift: with s the least power that has 2^s >= d and
// m = floor(2^32 (2^s - d) / d) + 1, it is (floor(n m / 2^32) + n) >> s for every n below 2^31
// (Granlund and Montgomery, "Division by invariant integers using multiplication", 1994); the wide
// form has 2^64 and 2^63 in place of 2^32 and 2^31.
#pragma once
#include "kernel.cuh"

namespace voltaic {
namespace {

struct Divisor {
  uint32_t divisor, multiplier, shift;

  __device__ __forceinline__ uint32_t quotient(uint32_t n) const {
    return (__umulhi(n, multiplier) + n) >> shift;
  }
};
inline Divisor divisor_of(int64_t divisor) {
  uint32_t shift = 0;
  while ((int64_t{1} << shift) < divisor) shift++;
  const uint64_t excess = (uint64_t{1} << shift) - (uint64_t)divisor;
  return {(uint32_t)divisor, (uint32_t)((excess << 32) / (uint64_t)divisor + 1), shift};
}

struct WideDivisor {
  uint64_t divisor, multiplier;
  uint32_t shift;

  __device__ __forceinline__ int64_t quotient(int64_t n) const {
    const uint64_t high = (uint64_t)((unsigned __int128)(uint64_t)n * multiplier >> 64);
    return (int64_t)((high + (uint64_t)n) >> shift);
  }
};
inline WideDivisor wide_divisor_of(int64_t divisor) {
  uint32_t shift = 0;
  while (shift < 63 && (uint64_t{1} << shift) < (uint64_t)divisor) shift++;
  const unsigned __int128 excess = (uint64_t{1} << shift) - (uint64_t)divisor;
  return {(uint64_t)divisor, (uint64_t)((excess << 64) / (uint64_t)divisor + 1), shift};
}

// Axes, innermost first, with a stride each in one or two arrays.
template <int arrays>
struct StridedAxes {
  int rank = 0;
  WideDivisor sizes[VOLTAIC_MAX_RANK];
  int64_t strides[arrays][VOLTAIC_MAX_RANK];

  void add(int64_t size, int64_t first_stride, int64_t second_stride = 0) {
    sizes[rank] = wide_divisor_of(size);
    strides[0][rank] = first_stride;
    if constexpr (arrays > 1) strides[1][rank] = second_stride;
    rank++;
  }
  // Where element `index` of the axes' product lies in each array. The outermost axis costs no
  // division. A loop, not six copies of it: kernels find many places, and one axis is what they
  // mostly have.
  __device__ __forceinline__ void locate(int64_t index, int64_t (&offsets)[arrays]) const {
#pragma unroll
    for (int i = 0; i < arrays; i++) offsets[i] = 0;
    const int outermost = rank - 1;
#pragma unroll 1
    for (int d = 0; d < outermost; d++) {
      const int64_t rest = sizes[d].quotient(index);
      const int64_t coordinate = index - rest * (int64_t)sizes[d].divisor;
      index = rest;
#pragma unroll
      for (int i = 0; i < arrays; i++) offsets[i] += coordinate * strides[i][d];
    }
    if (outermost < 0) return;
#pragma unroll
    for (int i = 0; i < arrays; i++) offsets[i] += index * strides[i][outermost];
  }
  __device__ __forceinline__ int64_t offset(int64_t index) const {
    int64_t offsets[arrays];
    locate(index, offsets);
    return offsets[0];
  }
};

// The least power of two that is at least n.
inline int64_t power_of_two_above(int64_t n) {
  int64_t power = 1;
  while (power < n) power *= 2;
  return power;
}

}  // namespace
}  // namespace voltaic
