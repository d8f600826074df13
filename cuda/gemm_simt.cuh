// fp32 products, and bf16 ones on cards without bf16 tensor cores: fused multiply-adds in fp32, no
// TF32.
//
// A block of 256 threads computes a square tile of c, 128 x 128 (8 x 8 a thread) or 64 x 64 (4 x
// 4), in steps of 8 along k. A step is fetched into registers while the one before is multiplied,
// and goes to the other of two shared buffers, [k][row] for a and [k][column] for b: one barrier a
// step. A thread reads 16 bytes at a time, 4 of them for 64 multiply-adds; a warp's lanes are 4
// down, 8 across, so that a read is one line or a broadcast. Buffers are padded by 4, which spreads
// the transposing stores of operands whose k runs along rows over all banks.
//
// The sum of an element: k is cut into chunks by sum_chunk(k), a chunk is summed up k, one
// multiply-add after the other, and chunks are added in order. That is the same for every tile
// size, for one block that does all chunks (their sum waits in shared memory) and for a block a
// chunk (gemm_epilogue.cuh adds them): in fp32 a row's result depends on nothing but the row and b.
// Long sums also lose less so.
#pragma once
#include "gemm_epilogue.cuh"
#include "gemm_tiles.cuh"

namespace voltaic {
namespace {

constexpr int kSimtThreads = 256, kSimtStep = 8;

// Multiply-adds in a row: all up to 1024, otherwise 512 or a 32nd of k. A multiple of the step.
inline int64_t sum_chunk(int64_t k) {
  const int64_t wanted = k <= 1024 ? larger(k, 1) : larger(512, divide_up(k, 32));
  return divide_up(wanted, kSimtStep) * kSimtStep;
}

// A thread's share of one operand's step: four neighbours in memory. along_k: they run along k.
template <class F, int tile>
struct SimtCopies {
  const F* from;
  int place;
  int held, held_last;  // how many of the four there are: in whole steps, and in the last one

  // last: how much of k the last step has.
  __device__ __forceinline__ SimtCopies(const F* matrix, int64_t leading, bool along_k,
                                        int64_t outer_begin, int64_t outer_end, int64_t k_begin,
                                        int last) {
    const int in_row = along_k ? kSimtStep / 4 : tile / 4;
    const int row = threadIdx.x / in_row, inner = threadIdx.x % in_row * 4;
    const int64_t left = outer_end - outer_begin;
    const int outer_left = left < tile ? static_cast<int>(left) : tile;
    if (along_k) {
      from = matrix + (outer_begin + row) * leading + k_begin + inner;
      place = inner * (tile + 4) + row;
      held = row < outer_left ? 4 : 0;
      held_last = row < outer_left ? most_four(last - inner) : 0;
    } else {
      from = matrix + (k_begin + row) * leading + outer_begin + inner;
      place = row * (tile + 4) + inner;
      held = most_four(outer_left - inner);
      held_last = row < last ? held : 0;
    }
    if (!has_part()) held = held_last = 0;
  }
  static __device__ __forceinline__ int most_four(int x) { return x < 0 ? 0 : x < 4 ? x : 4; }
  // A step of the small tile is less than four numbers a thread.
  static __device__ __forceinline__ bool has_part() { return threadIdx.x < tile * kSimtStep / 4; }

  // What is the same for all threads is an argument: it need not stay in registers.
  __device__ __forceinline__ void fetch(bool is_last, bool vectors, int64_t k_step, Pack<F, 4>& x) {
    const int there = is_last ? held_last : held;
    if (there == 4 && vectors) {
      x = load_pack<F, 4>(from);
    } else {
#pragma unroll
      for (int i = 0; i < 4; i++) x.values[i] = i < there ? from[i] : F{};
    }
    from += k_step;
  }
  __device__ __forceinline__ void store(bool along_k, float* buffer, const Pack<F, 4>& x) const {
    if (!has_part()) return;
    Pack<float, 4> converted;
#pragma unroll
    for (int i = 0; i < 4; i++) converted.values[i] = to_float(x.values[i]);
    if (along_k) {
#pragma unroll
      for (int i = 0; i < 4; i++) buffer[place + i * (tile + 4)] = converted.values[i];
    } else {
      store_pack(buffer + place, converted);
    }
  }
};

template <class F, int size>
__global__ void __launch_bounds__(kSimtThreads, (size == 8 ? 2 : 3) - kFewerBlocks)
    simt_kernel(const Product<F> p, int64_t step_a, int64_t step_b, int chunk_steps,
                Epilogue<F> e) {
  static_assert(size == 8 || size == 4);
  constexpr int kTile = 16 * size, kRow = kTile + 4, kBuffer = kSimtStep * kRow, kHalves = size / 4;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  // Never launched: bf16 has tensor cores there.
  if constexpr (sizeof(F) == 2) return;
#endif
  DYNAMIC_SHARED(float, shared);
  float* const totals = shared + 4 * kBuffer;
  const TilePlace place = tile_place(p.m, p.n, kTile, kTile, p.items);
  const int64_t first_row = static_cast<int64_t>(place.row) * kTile;
  const int64_t first_column = static_cast<int64_t>(place.column) * kTile;
  const int64_t k_begin = place.split * p.k_range;
  const int64_t k = p.k - k_begin < p.k_range ? p.k - k_begin : p.k_range;
  const int steps = static_cast<int>((k + kSimtStep - 1) / kSimtStep);
  const int last = static_cast<int>(k - (steps - 1) * static_cast<int64_t>(kSimtStep));

  SimtCopies<F, kTile> a_copies(p.a + place.item * p.stride_a, p.leading_a, !p.transpose_a,
                                first_row, p.m, k_begin, last);
  SimtCopies<F, kTile> b_copies(p.b + place.item * p.stride_b, p.leading_b, p.transpose_b,
                                first_column, p.n, k_begin, last);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  // Of the thread's pieces of four: half of the warp's tile apart.
  const int thread_row = warp / 2 * 4 * size + lane / 8 * 4;
  const int thread_column = warp % 2 * 8 * size + lane % 8 * 4;

  float sums[size][size] = {};
  Pack<F, 4> a_next, b_next;
  const auto fetch = [&](int step) {
    a_copies.fetch(step + 1 == steps, p.vectors_a, step_a, a_next);
    b_copies.fetch(step + 1 == steps, p.vectors_b, step_b, b_next);
  };
  const auto store = [&](int step) {
    float* const buffer = shared + (step & 1) * (2 * kBuffer);
    a_copies.store(!p.transpose_a, buffer, a_next);
    b_copies.store(p.transpose_b, buffer + kBuffer, b_next);
  };
  int chunk_steps_left = chunk_steps;
  bool has_total = false;
  if (steps > 0) {
    fetch(0);
    store(0);
  }
  __syncthreads();
#pragma unroll 1
  for (int step = 0; step < steps; step++) {
    const bool more = step + 1 < steps;
    if (more) fetch(step + 1);
    const float* const a_rows = shared + (step & 1) * (2 * kBuffer) + thread_row;
    const float* const b_columns = shared + (step & 1) * (2 * kBuffer) + kBuffer + thread_column;
#pragma unroll
    for (int k = 0; k < kSimtStep; k++) {
      float a[size], b[size];
#pragma unroll
      for (int half = 0; half < kHalves; half++) {
        const auto a_four = load_pack<float, 4>(a_rows + k * kRow + half * 16);
        const auto b_four = load_pack<float, 4>(b_columns + k * kRow + half * 32);
#pragma unroll
        for (int i = 0; i < 4; i++) {
          a[half * 4 + i] = a_four.values[i];
          b[half * 4 + i] = b_four.values[i];
        }
      }
#pragma unroll
      for (int i = 0; i < size; i++)
#pragma unroll
        for (int j = 0; j < size; j++) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
    }
    // Totals of earlier chunks: every thread's own places.
    if (--chunk_steps_left == 0 || (!more && has_total)) {
      if (more || has_total) {
#pragma unroll
        for (int i = 0; i < size; i++)
#pragma unroll
          for (int half = 0; half < kHalves; half++) {
            float* const at = totals + ((i * kHalves + half) * kSimtThreads + threadIdx.x) * 4;
            float four[4];
#pragma unroll
            for (int j = 0; j < 4; j++) four[j] = sums[i][half * 4 + j];
            if (has_total) {
              const auto before = load_pack<float, 4>(at);
#pragma unroll
              for (int j = 0; j < 4; j++) four[j] = before.values[j] + four[j];
            }
            if (more) store_four(at, 4, 4, four);
#pragma unroll
            for (int j = 0; j < 4; j++) sums[i][half * 4 + j] = more ? 0.0f : four[j];
          }
        has_total = true;
      }
      chunk_steps_left = chunk_steps;
    }
    if (more) store(step + 1);
    __syncthreads();
  }

  e.move_to(place.item, place.split);
  // Rows, then the halves, move up instead of being indexed, so that the activation functions stand
  // here once.
#pragma unroll 1
  for (int half = 0; half < kHalves; half++) {
    const int64_t column = first_column + thread_column + half * 32;
    const int held = p.n - column < 4 ? static_cast<int>(p.n - column) : 4;
    float bias[4], column_sums[4] = {};
    load_bias(e, column, held, bias);
#pragma unroll 1
    for (int i = 0; i < size; i++) {
      const int64_t row = first_row + thread_row + i % 4 + i / 4 * 16;
      if (row < p.m && held > 0) {
        float x[4];
#pragma unroll
        for (int j = 0; j < 4; j++) x[j] = sums[0][j];
        finish_four(e, row * p.n + column, held, bias, x);
#pragma unroll
        for (int j = 0; j < 4; j++) column_sums[j] += x[j];
      }
#pragma unroll
      for (int next = 0; next + 1 < size; next++)
#pragma unroll
        for (int j = 0; j < 4; j++) sums[next][j] = sums[next + 1][j];
    }
    if constexpr (kHalves == 2) {
#pragma unroll
      for (int i = 0; i < size; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] = sums[i][4 + j];
    }
    if (e.column_sums == nullptr) continue;
      // Lanes of a column, then, below, warps of a column, each in one order.
#pragma unroll
    for (int j = 0; j < 4; j++) {
      column_sums[j] += __shfl_xor_sync(kAllLanes, column_sums[j], 8);
      column_sums[j] += __shfl_xor_sync(kAllLanes, column_sums[j], 16);
      if (lane < 8) shared[warp / 2 * kTile + thread_column + half * 32 + j] = column_sums[j];
    }
  }
  if (e.column_sums == nullptr) return;
  __syncthreads();
  if (threadIdx.x >= kTile || first_column + threadIdx.x >= p.n) return;
  float sum = shared[threadIdx.x];
#pragma unroll
  for (int i = 1; i < 4; i++) sum += shared[i * kTile + threadIdx.x];
  e.column_sums[(static_cast<int64_t>(place.item) * place.tile_rows + place.row) * p.n +
                first_column + threadIdx.x] = sum;
}

// ---- host

// Guesses until a card has timed them: 80 and 60 percent of a processor's 128 multiply-adds a
// clock.
constexpr TileCost kSimtTiles[] = {{128, 128, kSimtStep, 2, 1280, 1280, 5000},
                                   {64, 64, kSimtStep, 3, 430, 430, 2500}};
constexpr int kSimtLarge = 0, kSimtSmall = 1;

inline size_t simt_shared_bytes(int tile, bool totals) {
  const size_t edge = kSimtTiles[tile].rows;
  return (4 * kSimtStep * (edge + 4) + (totals ? edge * edge : 0)) * sizeof(float);
}

struct SimtPlan {
  int tile;
  int splits;
};

// One block for all chunks of k, or one for each.
template <class F>
SimtPlan plan_simt(const Product<F>& p, const voltaic_stream* stream) {
  const int64_t chunk = sum_chunk(p.k);
  const int chunks = static_cast<int>(larger(divide_up(p.k, chunk), 1));
  SimtPlan best = {kSimtSmall, 1};
  double least = 0;
  for (int tile = kSimtLarge; tile <= kSimtSmall; tile++)
    for (const int splits : {1, chunks}) {
      if (splits == 1 && simt_shared_bytes(tile, chunks > 1) > stream->most_shared_bytes) continue;
      if (splits > 1 && splits * p.items * p.m * p.n > kMostSplitElements) continue;
      const int64_t blocks = kSimtTiles[tile].blocks(p.m, p.n, p.items) * splits;
      const double clocks =
          kSimtTiles[tile].clocks(blocks, splits == 1 ? p.k : chunk, stream->processors) +
          splitting_clocks(splits, p.m, p.n, p.items, stream->processors);
      if (least > 0 && clocks >= least) continue;
      least = clocks;
      best = {tile, splits};
    }
  return best;
}

template <class F>
voltaic_status multiply_simt(const voltaic_call* call, int tile, const Product<F>& p,
                             const Epilogue<F>& e) {
  const int64_t blocks = kSimtTiles[tile].blocks(p.m, p.n, p.items) * p.splits;
  const int64_t chunk = sum_chunk(p.k);
  const int chunk_steps = static_cast<int>(chunk / kSimtStep);
  const int64_t step_a = kSimtStep * (p.transpose_a ? p.leading_a : 1);
  const int64_t step_b = kSimtStep * (p.transpose_b ? 1 : p.leading_b);
  const size_t bytes = simt_shared_bytes(tile, p.splits == 1 && p.k > chunk);
  return tile == kSimtLarge ? launch(call, simt_kernel<F, 8>, blocks_for(blocks, 1), kSimtThreads,
                                     bytes, p, step_a, step_b, chunk_steps, e)
                            : launch(call, simt_kernel<F, 4>, blocks_for(blocks, 1), kSimtThreads,
                                     bytes, p, step_a, step_b, chunk_steps, e);
}

}  // namespace
}  // namespace voltaic
