// x[index[i], :] += y[i, :], repeated indices in ascending order of i, rounded once.
//
// sort_indices.cuh gives the places i sorted by (index, i); the rows of one destination are then a
// run, and the thread that has a column of it adds them one after the other in fp32: no atomics,
// and the same bits on every run.
//   runs of up to 32 rows   a warp a run and 128 columns, four a lane. Every sorted place has a
//   warp, and
//                           those inside of a run leave at once.
//   longer runs             a thread a column, 32 rows loaded before the first is added: a token
//   that
//                           fills the batch is a long chain, and what it waits for is memory. The
//                           block of the run's first place that is a multiple of 32 serves it.
// Bytes: y once, x's rows that are met once each way, 8 to 20 bytes an index to sort.
#pragma once
#include "sort_indices.cuh"

namespace voltaic {
namespace {

constexpr int kScatterThreads = 256, kCrowdThreads = 128, kCrowd = 32, kLaneColumns = 4;
constexpr int kMostTiles = 65535;  // of a grid's y

// Lanes 0 to the result - 1 stand at places of the run that starts at i. A whole warp calls it.
__device__ __forceinline__ int run_length(const uint32_t* keys, int64_t i, int64_t n,
                                          uint32_t key) {
  const int64_t at = i + threadIdx.x % 32;
  return __popc(__ballot_sync(kAllLanes, at < n && keys[at < n ? at : i] == key));
}

template <class X, class Y>
__global__ void __launch_bounds__(kScatterThreads)
    scatter_runs_kernel(Sorted sorted, const Y* y, X* x, int64_t n, int64_t width, bool aligned) {
  constexpr int kAhead = 4;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * (kScatterThreads / 32) + threadIdx.x / 32;
  if (i >= n) return;
  const uint32_t key = sorted.keys[i];
  if (key == kLastKey || (i > 0 && sorted.keys[i - 1] == key)) return;
  const int count = run_length(sorted.keys, i, n, key);
  if (count == kCrowd && i + kCrowd < n && sorted.keys[i + kCrowd] == key) return;
  const int32_t mine = lane < count ? sorted.order[i + lane] : 0;
  for (int64_t tile = blockIdx.y; tile * (32 * kLaneColumns) < width; tile += gridDim.y) {
    const int64_t column = tile * (32 * kLaneColumns) + lane * kLaneColumns;
    const bool whole = aligned && column < width;  // then the width is a multiple of the pack
    X* const to = x + static_cast<int64_t>(key) * width + column;
    float sums[kLaneColumns] = {};
    if (whole) {
      const auto before = load_pack<X, kLaneColumns>(to);
#pragma unroll
      for (int c = 0; c < kLaneColumns; c++) sums[c] = to_float(before.values[c]);
    } else {
#pragma unroll
      for (int c = 0; c < kLaneColumns; c++)
        if (column + c < width) sums[c] = to_float(to[c]);
    }
    for (int first = 0; first < count; first += kAhead) {
      float numbers[kAhead][kLaneColumns];
#pragma unroll
      for (int u = 0; u < kAhead; u++) {
        const int64_t row = __shfl_sync(kAllLanes, mine, (first + u) % 32);
        if (first + u >= count) continue;
        const Y* const from = y + row * width + column;
        if (whole) {
          const auto pack = load_pack<Y, kLaneColumns>(from);
#pragma unroll
          for (int c = 0; c < kLaneColumns; c++) numbers[u][c] = to_float(pack.values[c]);
        } else {
#pragma unroll
          for (int c = 0; c < kLaneColumns; c++)
            numbers[u][c] = column + c < width ? to_float(from[c]) : 0.0f;
        }
      }
#pragma unroll
      for (int u = 0; u < kAhead; u++) {
        if (first + u >= count) break;
#pragma unroll
        for (int c = 0; c < kLaneColumns; c++) sums[c] += numbers[u][c];
      }
    }
    if (whole) {
      Pack<X, kLaneColumns> after;
#pragma unroll
      for (int c = 0; c < kLaneColumns; c++) after.values[c] = from_float<X>(sums[c]);
      store_pack(to, after);
    } else {
#pragma unroll
      for (int c = 0; c < kLaneColumns; c++)
        if (column + c < width) to[c] = from_float<X>(sums[c]);
    }
  }
}

template <class X, class Y>
__global__ void __launch_bounds__(kCrowdThreads, 6)
    scatter_crowds_kernel(Sorted sorted, const Y* y, X* x, int64_t n, int64_t width) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t place = static_cast<int64_t>(blockIdx.x) * kCrowd;
  const uint32_t key = sorted.keys[place];
  if (key == kLastKey || (place >= kCrowd && sorted.keys[place - kCrowd] == key)) return;
  const unsigned back = __ballot_sync(
      kAllLanes, place - lane >= 0 && sorted.keys[place - lane >= 0 ? place - lane : place] == key);
  const int64_t start = place - (__popc(back) - 1);
  if (start + kCrowd >= n || sorted.keys[start + kCrowd] != key) return;
  for (int64_t tile = blockIdx.y; tile * kCrowdThreads < width; tile += gridDim.y) {
    const int64_t column = tile * kCrowdThreads + threadIdx.x;
    const bool valid = column < width;
    const Y* const from = y + (valid ? column : 0);
    X* const to = x + static_cast<int64_t>(key) * width + column;
    float sum = valid ? to_float(*to) : 0.0f;
    int64_t at = start;
    int count = kCrowd;
    int32_t mine = sorted.order[at + lane];
    while (count > 0) {
      float numbers[kCrowd];
#pragma unroll
      for (int u = 0; u < kCrowd; u++) {
        const int64_t row = __shfl_sync(kAllLanes, mine, u);
        numbers[u] = u < count ? to_float(from[row * width]) : 0.0f;
      }
      // the next 32 places, while the rows are on their way
      const int added = count;
      at += kCrowd;
      count = added == kCrowd && at < n ? run_length(sorted.keys, at, n, key) : 0;
      mine = lane < count ? sorted.order[at + lane] : 0;
#pragma unroll
      for (int u = 0; u < kCrowd; u++)
        if (u < added) sum += numbers[u];
    }
    if (valid) *to = from_float<X>(sum);
  }
}

inline voltaic_status scatter_add_rows(const voltaic_call* call) {
  const voltaic_tensor &y = tensor(call, 0), &x = tensor(call, 2);
  const int64_t n = y.shape[0], width = y.shape[1], rows = x.shape[0];
  if (n > INT32_MAX)
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "scatter_add_rows: %lld rows, expected %d at most",
                static_cast<long long>(n), INT32_MAX);
  if (n == 0) return VOLTAIC_OK;
  void* const memory = cuda::scratch(call, sort_bytes(n));
  if (memory == nullptr) return VOLTAIC_ERROR_OUT_OF_MEMORY;
  const IndexKeys keys = {data<const int32_t>(call, 1), rows,
                          index_check(call, "scatter_add_rows: index")};
  Sorted sorted;
  const voltaic_status status =
      sort_indices(call, keys, n, key_bits(rows), memory, nullptr, &sorted);
  if (status != VOLTAIC_OK || width == 0) return status;
  return with_float(x.dtype, [&]<class X>(X*) {
    return with_float(y.dtype, [&]<class Y>(Y*) {
      X* const to = static_cast<X*>(x.data);
      const Y* const from = static_cast<const Y*>(y.data);
      const bool aligned = width % kLaneColumns == 0 &&
                           reinterpret_cast<uintptr_t>(to) % (kLaneColumns * sizeof(X)) == 0 &&
                           reinterpret_cast<uintptr_t>(from) % (kLaneColumns * sizeof(Y)) == 0;
      const auto tiles = [&](int64_t columns) {
        return static_cast<unsigned>(smaller(divide_up(width, columns), kMostTiles));
      };
      const voltaic_status added =
          launch(call, scatter_runs_kernel<X, Y>,
                 dim3(blocks_for(n, kScatterThreads / 32).x, tiles(32 * kLaneColumns)),
                 kScatterThreads, 0, sorted, from, to, n, width, aligned);
      if (added != VOLTAIC_OK || n <= kCrowd) return added;
      return launch(call, scatter_crowds_kernel<X, Y>,
                    dim3(blocks_for(n, kCrowd).x, tiles(kCrowdThreads)), kCrowdThreads, 0, sorted,
                    from, to, n, width);
    });
  });
}

}  // namespace
}  // namespace voltaic
