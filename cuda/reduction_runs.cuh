// Reductions whose last axis is reduced: the numbers of one result are runs of neighbours.
//
// A result's numbers, in row-major order, are cut into packs of 16 bytes; lane l of `lanes` takes
// packs l, l + lanes, ... and keeps one accumulator for each place in a pack. `lanes` and the cut
// follow from the result's length alone, so a row's bits depend neither on how many rows there are
// nor on where it starts: a row that is not aligned is read number by number, in the same order.
//   up to kWarpLength numbers   a power of two of lanes a result, at most a warp
//   up to kChunkPacks packs     a block of 256 threads a result
//   above                       a block a chunk of kChunkPacks packs; a second kernel adds the
//   chunks'
//                               fp32 partials in double precision, again in fixed order
// A thread loads four packs before it uses the first.
#pragma once
#include "reduction_ops.cuh"

namespace voltaic {
namespace {

constexpr int kRunThreads = 256, kTotalThreads = 128;
constexpr int64_t kWarpLength = 1024;
constexpr int64_t kChunkPacks = kRunThreads * 8;

struct Runs {
  StridedAxes<1> kept, reduced;  // without the innermost, which is contiguous
  WideDivisor inner;
  int64_t results, length, chunks;
  float divisor;
  bool aligned;  // every pack that is whole may be loaded at once
};

template <class T>
__device__ __forceinline__ const T* run_place(const Runs& runs, const T* start, int64_t at) {
  if (runs.reduced.rank == 0) return start + at;
  const int64_t run = runs.inner.quotient(at);
  return start + runs.reduced.offset(run) + (at - run * static_cast<int64_t>(runs.inner.divisor));
}

// Numbers first (a multiple of the pack) to end - 1 of the result that starts at `start`: this
// lane's share.
template <class Op, class T>
__device__ __forceinline__ float reduce_share(const Runs& runs, const T* start, int64_t first,
                                              int64_t end, int lane, int lanes) {
  constexpr int kPack = 16 / sizeof(T), kAhead = 4;
  float sums[kPack];
#pragma unroll
  for (int i = 0; i < kPack; i++) sums[i] = Op::identity();
  const auto add = [&](const Pack<T>& pack) {
#pragma unroll
    for (int i = 0; i < kPack; i++) sums[i] = Op::combine(sums[i], to_float(pack.values[i]));
  };
  int64_t at = first + static_cast<int64_t>(lane) * kPack;
  const int64_t step = static_cast<int64_t>(lanes) * kPack;
  if (runs.aligned) {
    for (; at + (kAhead - 1) * step + kPack <= end; at += kAhead * step) {
      Pack<T> packs[kAhead];
#pragma unroll
      for (int u = 0; u < kAhead; u++)
        packs[u] = load_pack<T>(run_place(runs, start, at + u * step));
#pragma unroll
      for (int u = 0; u < kAhead; u++) add(packs[u]);
    }
    for (; at + kPack <= end; at += step) add(load_pack<T>(run_place(runs, start, at)));
  }
  for (; at < end; at += step) {
    float numbers[kPack];
#pragma unroll
    for (int i = 0; i < kPack; i++)
      numbers[i] = at + i < end ? to_float(*run_place(runs, start, at + i)) : Op::identity();
#pragma unroll
    for (int i = 0; i < kPack; i++) sums[i] = Op::combine(sums[i], numbers[i]);
  }
#pragma unroll
  for (int half = kPack / 2; half > 0; half /= 2)
#pragma unroll
    for (int i = 0; i < half; i++) sums[i] = Op::combine(sums[i], sums[i + half]);
  return sums[0];
}

template <class Op, class T>
__global__ void __launch_bounds__(kRunThreads, 3)
    short_runs_kernel(Runs runs, const T* x, T* y, int lane_bits) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kRunThreads + threadIdx.x;
  const int lanes = 1 << lane_bits;
  const int64_t result = thread >> lane_bits;
  const int lane = static_cast<int>(threadIdx.x) & (lanes - 1);
  float value = Op::identity();
  if (result < runs.results)
    value = reduce_share<Op>(runs, x + runs.kept.offset(result), 0, runs.length, lane, lanes);
  value = combine_lanes<Op>(value, lanes);
  if (lane == 0 && result < runs.results) y[result] = from_float<T>(value / runs.divisor);
}

// One block a chunk. partials: null where a result is one chunk.
template <class Op, class T>
__global__ void __launch_bounds__(kRunThreads)
    long_runs_kernel(Runs runs, const T* x, T* y, float* partials) {
  constexpr int64_t kChunk = kChunkPacks * (16 / sizeof(T));
  __shared__ float room[kRunThreads / 32];
  const int64_t result = blockIdx.x / static_cast<unsigned>(runs.chunks);
  const int64_t first = (blockIdx.x - result * runs.chunks) * kChunk;
  const int64_t end = first + kChunk < runs.length ? first + kChunk : runs.length;
  const float share = reduce_share<Op>(runs, x + runs.kept.offset(result), first, end,
                                       static_cast<int>(threadIdx.x), kRunThreads);
  const float value = combine_block<Op, kRunThreads>(share, room);
  if (threadIdx.x > 0) return;
  if (partials != nullptr)
    partials[blockIdx.x] = value;
  else
    y[result] = from_float<T>(value / runs.divisor);
}

// y[result] = the chunks' partials, put together.
template <class Op, class T>
__global__ void __launch_bounds__(kTotalThreads)
    run_totals_kernel(const float* partials, int64_t chunks, float divisor, T* y) {
  __shared__ double room[kTotalThreads / 32];
  const float* const from = partials + blockIdx.x * chunks;
  double total = Op::identity();
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < chunks; i += kTotalThreads)
    total = Op::combine(total, static_cast<double>(from[i]));
  total = combine_block<Op, kTotalThreads>(total, room);
  if (threadIdx.x == 0) y[blockIdx.x] = from_float<T>(static_cast<float>(total) / divisor);
}

template <class Op, class T>
voltaic_status reduce_runs(const voltaic_call* call, const ReductionPlan& plan, const T* x, T* y,
                           float divisor) {
  constexpr int64_t kPack = 16 / sizeof(T);
  Runs runs;
  runs.kept = device_axes(plan.kept);
  runs.reduced = device_axes(plan.reduced);
  runs.inner = wide_divisor_of(plan.inner);
  runs.results = plan.kept.count();
  runs.length = plan.reduced.count() * plan.inner;
  runs.chunks = divide_up(runs.length, kChunkPacks * kPack);
  runs.divisor = divisor;
  runs.aligned = aligned_16(x) && strides_divide(plan.kept, kPack) &&
                 strides_divide(plan.reduced, kPack) &&
                 (plan.reduced.rank == 0 || plan.inner % kPack == 0);
  if (runs.length <= kWarpLength) {
    const int64_t packs = divide_up(runs.length, kPack);
    int lane_bits = 0;
    while (lane_bits < 5 && (1 << lane_bits) < packs) lane_bits++;
    return launch(call, short_runs_kernel<Op, T>,
                  blocks_for(runs.results << lane_bits, kRunThreads), kRunThreads, 0, runs, x, y,
                  lane_bits);
  }
  float* partials = nullptr;
  if (runs.chunks > 1) {
    partials = static_cast<float*>(
        cuda::scratch(call, static_cast<size_t>(runs.results * runs.chunks) * sizeof(float)));
    if (partials == nullptr) return VOLTAIC_ERROR_OUT_OF_MEMORY;
  }
  const voltaic_status status =
      launch(call, long_runs_kernel<Op, T>, blocks_for(runs.results * runs.chunks, 1), kRunThreads,
             0, runs, x, y, partials);
  if (status != VOLTAIC_OK || partials == nullptr) return status;
  return launch(call, run_totals_kernel<Op, T>, blocks_for(runs.results, 1), kTotalThreads, 0,
                partials, runs.chunks, divisor, y);
}

}  // namespace
}  // namespace voltaic
