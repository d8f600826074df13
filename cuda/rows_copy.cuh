// Copies without arithmetic: rows by index, slices, and permutations that keep their innermost
// axis.
//
// What is copied is counted in units, the widest of 16, 8, 4, 2 and 1 bytes that every address,
// stride and length divides into. A thread copies kCopyUnroll units, 256 apart, and loads them all
// before it stores the first, so that 64 bytes of each thread are under way; finding a unit's
// places costs one multiplication an axis.
#pragma once
#include "../native/engine/rows_plan.h"
#include "index_math.cuh"

namespace voltaic {
namespace {

constexpr int kCopyThreads = 256, kCopyUnroll = 4;

// Calls body with a null pointer of the widest unit that divides all of `bits`, which is the
// bitwise or of addresses, strides and lengths in bytes.
template <class Body>
inline voltaic_status with_unit(uint64_t bits, Body&& body) {
  return bits % 16 == 0  ? body((uint4*)nullptr)
         : bits % 8 == 0 ? body((uint2*)nullptr)
         : bits % 4 == 0 ? body((uint32_t*)nullptr)
         : bits % 2 == 0 ? body((uint16_t*)nullptr)
                         : body((uint8_t*)nullptr);
}
inline uint64_t address_bits(const void* a, const void* b) {
  return reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b);
}

// to[axes] = from[axes]; strides[0] are those of from, strides[1] of to, all in units.
template <class Unit>
__global__ void __launch_bounds__(kCopyThreads)
    copy_kernel(StridedAxes<2> axes, const Unit* from, Unit* to, int64_t units) {
  const int64_t start =
      static_cast<int64_t>(blockIdx.x) * (kCopyThreads * kCopyUnroll) + threadIdx.x;
  Unit values[kCopyUnroll];
  int64_t places[kCopyUnroll];
#pragma unroll
  for (int u = 0; u < kCopyUnroll; u++) {
    const int64_t at = start + u * kCopyThreads;
    if (at >= units) break;
    int64_t offsets[2];
    axes.locate(at, offsets);
    values[u] = from[offsets[0]];
    places[u] = offsets[1];
  }
#pragma unroll
  for (int u = 0; u < kCopyUnroll; u++) {
    if (start + u * kCopyThreads >= units) break;
    to[places[u]] = values[u];
  }
}

template <class Unit>
voltaic_status copy_units(const voltaic_call* call, const StridedAxes<2>& axes, const void* from,
                          void* to, int64_t units) {
  return launch(call, copy_kernel<Unit>, blocks_for(units, kCopyThreads * kCopyUnroll),
                kCopyThreads, 0, axes, static_cast<const Unit*>(from), static_cast<Unit*>(to),
                units);
}

// `runs` runs of `run` bytes, their starts `from_stride` and `to_stride` bytes apart.
inline voltaic_status copy_runs(const voltaic_call* call, const void* from, int64_t from_stride,
                                void* to, int64_t to_stride, int64_t runs, int64_t run) {
  const uint64_t bits =
      address_bits(from, to) | static_cast<uint64_t>(from_stride | to_stride | run);
  return with_unit(bits, [&]<class Unit>(Unit*) {
    constexpr int64_t size = sizeof(Unit);
    StridedAxes<2> axes;
    axes.add(run / size, 1, 1);
    if (runs > 1) axes.add(runs, from_stride / size, to_stride / size);
    return copy_units<Unit>(call, axes, from, to, runs * run / size);
  });
}

// y[i, :] = x[index[i], :], rows of `row` units. A bad index is reported and gives zeros.
template <class Unit>
__global__ void __launch_bounds__(kCopyThreads, 4)
    gather_kernel(IndexCheck check, const Unit* x, const int32_t* index, Unit* y, int64_t rows,
                  WideDivisor row, int64_t units) {
  const int64_t start =
      static_cast<int64_t>(blockIdx.x) * (kCopyThreads * kCopyUnroll) + threadIdx.x;
  const int64_t width = static_cast<int64_t>(row.divisor);
  int64_t rows_of[kCopyUnroll];
  int32_t from[kCopyUnroll];
  Unit values[kCopyUnroll];
#pragma unroll
  for (int u = 0; u < kCopyUnroll; u++) {
    const int64_t at = start + u * kCopyThreads;
    rows_of[u] = row.quotient(at < units ? at : 0);
    from[u] = index[rows_of[u]];
  }
#pragma unroll
  for (int u = 0; u < kCopyUnroll; u++) {
    const int64_t at = start + u * kCopyThreads;
    values[u] = Unit{};
    if (at < units &&
        static_cast<uint64_t>(static_cast<int64_t>(from[u])) < static_cast<uint64_t>(rows))
      values[u] = x[from[u] * width + (at - rows_of[u] * width)];
  }
#pragma unroll
  for (int u = 0; u < kCopyUnroll; u++) in_range(check, rows_of[u], from[u], 0, rows - 1);
#pragma unroll
  for (int u = 0; u < kCopyUnroll; u++) {
    const int64_t at = start + u * kCopyThreads;
    if (at >= units) break;
    y[at] = values[u];
  }
}

inline voltaic_status gather(const voltaic_call* call) {
  const voltaic_tensor& x = tensor(call, 0);
  const int32_t* index = data<const int32_t>(call, 1);
  void* y = tensor(call, 2).data;
  const int64_t n = tensor(call, 1).elements, row = x.shape[1] * element_size(x.dtype);
  if (n == 0 || row == 0) return VOLTAIC_OK;
  return with_unit(address_bits(x.data, y) | static_cast<uint64_t>(row), [&]<class Unit>(Unit*) {
    const int64_t units = row / static_cast<int64_t>(sizeof(Unit));
    return launch(call, gather_kernel<Unit>, blocks_for(n * units, kCopyThreads * kCopyUnroll),
                  kCopyThreads, 0, index_check(call, "gather_rows: index"),
                  static_cast<const Unit*>(x.data), index, static_cast<Unit*>(y), x.shape[0],
                  wide_divisor_of(units), n * units);
  });
}

}  // namespace
}  // namespace voltaic
