// Reductions whose last axis is kept: the numbers of one result are a column.
//
// An item is a pack of 16 bytes of neighbouring columns. A block of 256 threads has `groups`
// threads for each of its items, in as many rows; a thread reads every groups-th row of a chunk of
// groups * kRowsOfThread, eight of them (four in bf16) before it uses the first, and neighbouring
// threads read neighbouring packs. The groups' sums meet in shared memory, halving. Where there are
// more rows than a chunk, its fp32 partials go to scratch memory (a hundredth of the input or
// less), and a second kernel adds them in double precision, in the order of chunks within 16
// groups. `groups` follows from the number of rows and columns: more for narrow arrays, so that a
// block reads several kilobytes whatever the width. Which results stand beside a column in other
// batches never shows.
#pragma once
#include "reduction_ops.cuh"

namespace voltaic {
namespace {

constexpr int kColumnThreads = 256, kRowsOfThread = 16;
constexpr int kTotalLanes = 32, kTotalGroups = 16;

struct Columns {
  StridedAxes<1> kept, reduced;  // kept without the innermost axis
  WideDivisor packs;             // of a row of columns
  int64_t width, items, rows, results;
  int groups, slots;  // threads of a block = groups * slots
  unsigned blocks_of_chunk;
  float divisor;
  bool aligned;
};

// partials [chunks, results]: null where a column is one chunk.
template <class Op, class T>
__global__ void __launch_bounds__(kColumnThreads, 3)
    columns_kernel(Columns plan, const T* x, T* y, float* partials) {
  constexpr int kPack = 16 / sizeof(T), kAhead = sizeof(T) == 4 ? 8 : 4;  // what registers allow
  DYNAMIC_SHARED(float, room);                                            // [kPack, kColumnThreads]
  const unsigned chunk = blockIdx.x / plan.blocks_of_chunk;
  const int slot = static_cast<int>(threadIdx.x) % plan.slots,
            group = static_cast<int>(threadIdx.x) / plan.slots;
  const int64_t item =
      static_cast<int64_t>(blockIdx.x - chunk * plan.blocks_of_chunk) * plan.slots + slot;
  const bool valid = item < plan.items;
  const int64_t outer = plan.packs.quotient(valid ? item : 0);
  const int64_t column =
      ((valid ? item : 0) - outer * static_cast<int64_t>(plan.packs.divisor)) * kPack;
  const int64_t columns = plan.width - column;  // a pack of them, or fewer
  const T* const from = x + plan.kept.offset(outer) + column;
  float sums[kPack];
#pragma unroll
  for (int i = 0; i < kPack; i++) sums[i] = Op::identity();
  const int64_t first = static_cast<int64_t>(chunk) * plan.groups * kRowsOfThread + group;
  const int64_t past = first + static_cast<int64_t>(plan.groups) * kRowsOfThread;
  const int64_t end = !valid ? 0 : past < plan.rows ? past : plan.rows;
  if (plan.aligned) {
#pragma unroll 1
    for (int batch = 0; batch < kRowsOfThread; batch += kAhead) {
      Pack<T> packs[kAhead];
#pragma unroll
      for (int u = 0; u < kAhead; u++) {
        const int64_t row = first + static_cast<int64_t>(batch + u) * plan.groups;
        if (row < end) packs[u] = load_pack<T>(from + plan.reduced.offset(row));
      }
#pragma unroll
      for (int u = 0; u < kAhead; u++) {
        if (first + static_cast<int64_t>(batch + u) * plan.groups >= end) break;
#pragma unroll
        for (int i = 0; i < kPack; i++)
          sums[i] = Op::combine(sums[i], to_float(packs[u].values[i]));
      }
    }
  } else {
#pragma unroll 4
    for (int64_t row = first; row < end; row += plan.groups) {
      const T* const at = from + plan.reduced.offset(row);
#pragma unroll
      for (int i = 0; i < kPack; i++)
        sums[i] = Op::combine(sums[i], to_float(at[i < columns ? i : 0]));
    }
  }
  for (int half = plan.groups / 2; half > 0; half /= 2) {
    if (group >= half && group < 2 * half)
#pragma unroll
      for (int i = 0; i < kPack; i++) room[i * kColumnThreads + threadIdx.x] = sums[i];
    __syncthreads();
    if (group < half)
#pragma unroll
      for (int i = 0; i < kPack; i++)
        sums[i] = Op::combine(sums[i], room[i * kColumnThreads + threadIdx.x + half * plan.slots]);
  }
  if (group > 0 || !valid) return;
  const int64_t result = outer * plan.width + column;
#pragma unroll
  for (int i = 0; i < kPack; i++) {
    if (i >= columns) break;
    if (partials != nullptr)
      partials[chunk * plan.results + result + i] = sums[i];
    else
      y[result + i] = from_float<T>(sums[i] / plan.divisor);
  }
}

template <class Op, class T>
__global__ void __launch_bounds__(kTotalLanes* kTotalGroups)
    column_totals_kernel(const float* partials, int64_t chunks, int64_t results, float divisor,
                         T* y) {
  DYNAMIC_SHARED(double, room);  // [kTotalGroups, kTotalLanes]
  const int lane = static_cast<int>(threadIdx.x) % kTotalLanes,
            group = static_cast<int>(threadIdx.x) / kTotalLanes;
  const int64_t result = static_cast<int64_t>(blockIdx.x) * kTotalLanes + lane;
  double total = Op::identity();
  if (result < results)
#pragma unroll 8
    for (int64_t chunk = group; chunk < chunks; chunk += kTotalGroups)
      total = Op::combine(total, static_cast<double>(partials[chunk * results + result]));
  room[group * kTotalLanes + lane] = total;
  __syncthreads();
  if (group > 0 || result >= results) return;
#pragma unroll
  for (int i = 1; i < kTotalGroups; i++) total = Op::combine(total, room[i * kTotalLanes + lane]);
  y[result] = from_float<T>(static_cast<float>(total) / divisor);
}

template <class Op, class T>
voltaic_status reduce_columns(const voltaic_call* call, const ReductionPlan& plan, const T* x, T* y,
                              float divisor) {
  constexpr int64_t kPack = 16 / sizeof(T);
  const int64_t packs = divide_up(plan.inner, kPack), outer = plan.kept.count();
  Columns columns;
  columns.kept = device_axes(plan.kept);
  columns.reduced = device_axes(plan.reduced);
  columns.packs = wide_divisor_of(packs);
  columns.width = plan.inner;
  columns.items = outer * packs;
  columns.rows = plan.reduced.count();
  columns.results = outer * plan.inner;
  columns.divisor = divisor;
  columns.aligned = aligned_16(x) && plan.inner % kPack == 0 && strides_divide(plan.kept, kPack) &&
                    strides_divide(plan.reduced, kPack);
  columns.groups = static_cast<int>(smaller(kColumnThreads / power_of_two_above(smaller(packs, 32)),
                                            power_of_two_above(divide_up(columns.rows, 4))));
  columns.slots = kColumnThreads / columns.groups;
  const int64_t blocks = divide_up(columns.items, columns.slots);
  const int64_t chunks = divide_up(columns.rows, columns.groups * kRowsOfThread);
  columns.blocks_of_chunk = static_cast<unsigned>(blocks);
  float* partials = nullptr;
  if (chunks > 1) {
    partials = static_cast<float*>(
        cuda::scratch(call, static_cast<size_t>(columns.results * chunks) * sizeof(float)));
    if (partials == nullptr) return VOLTAIC_ERROR_OUT_OF_MEMORY;
  }
  const voltaic_status status =
      launch(call, columns_kernel<Op, T>, blocks_for(blocks * chunks, 1), kColumnThreads,
             kPack * kColumnThreads * sizeof(float), columns, x, y, partials);
  if (status != VOLTAIC_OK || partials == nullptr) return status;
  return launch(call, column_totals_kernel<Op, T>, blocks_for(columns.results, kTotalLanes),
                kTotalLanes * kTotalGroups, kTotalLanes * kTotalGroups * sizeof(double), partials,
                chunks, columns.results, divisor, y);
}

}  // namespace
}  // namespace voltaic
