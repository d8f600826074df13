// bf16 products on the tensor cores (sm_80 on): a block computes a tile of c from tiles of a and b
// that pass through shared memory in steps of 32 along k.
//
// Tiles, 2 x rows x columns x 32 FLOPs a step, (rows + columns) x 64 bytes into shared memory:
//   128 x 256, 8 warps, one block a processor    85 FLOPs a byte, which is what L2 must deliver
//   128 x 128, 4 warps, two blocks               64: where the above leaves processors idle
//    64 x  64, 4 warps, four blocks              32: small products; and, guarded, what is neither
//                                                    aligned nor worth a copy (gemm_padding.cuh)
// If L2 gives 5.5 TB/s, a guess for an H100 that nothing here has measured, that bounds them at
// 470, 350 and 180 TFLOP/s. Warps of the larger two have 64 x 64: 16 of k are 4096 bytes of shared
// memory (32 clocks) for 65,536 multiply-adds (64 clocks of an A100's tensor cores). 128
// accumulators and two halves' fragments fill the registers of eight warps; two blocks of four hide
// each other's beginning and end.
//
// Copies of 16 bytes (cp.async) run two or three steps ahead, as shared memory allows; fragments
// are loaded half a step ahead of their use.
//
// Sums run up k in one order for every tile size; a split k depends on the shape and the number of
// processors alone, and gemm_epilogue.cuh adds its parts in order.
#pragma once
#include "gemm_operand_tiles.cuh"
#include "gemm_tensor_core_epilogue.cuh"
#include "gemm_tiles.cuh"

namespace voltaic {
namespace {

template <class Tile, bool transpose_a, bool transpose_b, bool guarded>
__global__ void __launch_bounds__(Tile::kThreads, guarded ? 3
                                                  : Tile::kResident > 2
                                                      ? Tile::kResident - kFewerBlocks
                                                      : Tile::kResident)
    tensor_core_kernel(const Product<bfloat16> p, int stages, Epilogue<bfloat16> e) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  // Never launched, and cut short: bf16 tensor cores came with sm_80.
  return;
#endif
  DYNAMIC_SHARED(unsigned char, shared);
  constexpr int kDown = Tile::kWarpRows / 16, kAcross = Tile::kWarpColumns / 8;
  const TilePlace place = tile_place(p.m, p.n, Tile::kRows, Tile::kColumns, p.items);
  const int64_t row = static_cast<int64_t>(place.row) * Tile::kRows;
  const int64_t column = static_cast<int64_t>(place.column) * Tile::kColumns;
  const int64_t k_begin = place.split * p.k_range;
  const int64_t k = p.k - k_begin < p.k_range ? p.k - k_begin : p.k_range;
  const int64_t steps = (k + kStep - 1) / kStep;
  const int warp = threadIdx.x / 32;
  const int warp_row = warp % Tile::kWarpsDown * Tile::kWarpRows;
  const int warp_column = warp / Tile::kWarpsDown * Tile::kWarpColumns;

  TileCopies<!transpose_a, Tile::kRows, Tile::kThreads, guarded> a_copies(
      p.a + place.item * p.stride_a, p.leading_a, row, p.m, k_begin, p.vectors_a);
  TileCopies<transpose_b, Tile::kColumns, Tile::kThreads, guarded> b_copies(
      p.b + place.item * p.stride_b, p.leading_b, column, p.n, k_begin, p.vectors_b);
  const TileFragments<!transpose_a, Tile::kRows, true> a_tile(warp_row);
  const TileFragments<transpose_b, Tile::kColumns, false> b_tile(warp_column);

  int64_t k_left = k;
  const auto begin_copies = [&](int stage) {
    if (k_left > 0) {
      unsigned char* const to = shared + stage * Tile::kStageBytes;
      const int of_step = k_left < kStep ? static_cast<int>(k_left) : kStep;
      a_copies.begin(to, of_step);
      b_copies.begin(to + Tile::kABytes, of_step);
    }
    copy_async_commit();
  };
  const auto end_copies = [&](int stage) {
    if (k_left > 0) {
      a_copies.end(shared + stage * Tile::kStageBytes);
      b_copies.end(shared + stage * Tile::kStageBytes + Tile::kABytes);
    }
    k_left -= kStep;
  };
  // The oldest step under way has arrived, for all threads; and all have read what lies before it.
  const auto wait_for_step = [&] {
    if (stages == 4)
      copy_async_wait<2>();
    else
      copy_async_wait<1>();
    __syncthreads();
  };

  float sums[kDown][kAcross][4] = {};
  uint32_t a[2][kDown][4], b[2][kAcross / 2][4];
  const auto load_fragments = [&](int stage, int half) {
    const unsigned char* const from = shared + stage * Tile::kStageBytes;
#pragma unroll
    for (int i = 0; i < kDown; i++) a_tile.load(a[half][i], from, i, half);
#pragma unroll
    for (int j = 0; j < kAcross / 2; j++) b_tile.load(b[half][j], from + Tile::kABytes, j, half);
  };
  const auto multiply = [&](int half) {
#pragma unroll
    for (int i = 0; i < kDown; i++)
#pragma unroll
      for (int j = 0; j < kAcross; j++) {
        const uint32_t b_of_tile[2] = {b[half][j / 2][j % 2 * 2], b[half][j / 2][j % 2 * 2 + 1]};
        mma_bf16(sums[i][j], a[half][i], b_of_tile);
      }
  };

  for (int stage = 0; stage + 1 < stages; stage++) {
    begin_copies(stage);
    end_copies(stage);
  }
  wait_for_step();
  load_fragments(0, 0);
  int stage = 0, next_copy = stages - 1;
#pragma unroll 1
  for (int64_t step = 0; step < steps; step++) {
    load_fragments(stage, 1);
    begin_copies(next_copy);
    multiply(0);
    end_copies(next_copy);
    next_copy = next_copy + 1 == stages ? 0 : next_copy + 1;
    stage = stage + 1 == stages ? 0 : stage + 1;
    wait_for_step();
    load_fragments(stage, 0);  // after the last step: of no use, and of no harm
    multiply(1);
  }

  copy_async_wait<0>();
  __syncthreads();
  e.move_to(place.item, place.split);
  float column_sums[4] = {};
  WarpEpilogue<Tile>::run(e, shared + warp * WarpEpilogue<Tile>::kBytes, sums, row + warp_row, p.m,
                          column + warp_column, column_sums);
  if (e.column_sums == nullptr) return;

  // Lanes of a column, then warps of a column, each in one order.
  constexpr int kLanesInRow = Tile::kWarpColumns / 4;
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int mask = kLanesInRow; mask < 32; mask *= 2)
      column_sums[i] += __shfl_xor_sync(kAllLanes, column_sums[i], mask);
  float* const room = reinterpret_cast<float*>(shared);
  __syncthreads();
  const int lane = threadIdx.x % 32;
  if (lane < kLanesInRow) {
#pragma unroll
    for (int i = 0; i < 4; i++)
      room[warp % Tile::kWarpsDown * Tile::kColumns + warp_column + lane * 4 + i] = column_sums[i];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < Tile::kColumns && column + i < p.n; i += Tile::kThreads) {
    float sum = room[i];
#pragma unroll
    for (int j = 1; j < Tile::kWarpsDown; j++) sum += room[j * Tile::kColumns + i];
    e.column_sums[(static_cast<int64_t>(place.item) * place.tile_rows + place.row) * p.n + column +
                  i] = sum;
  }
}

// ---- host

// Guesses until a card has timed them: 1000, 850 and 450 multiply-adds a clock for whole
// processors.
constexpr TileCost kTensorCoreTiles[] = {{128, 256, kStep, 1, 1049, 1049, 6000},
                                         {128, 128, kStep, 2, 617, 800, 4000},
                                         {64, 64, kStep, 4, 290, 320, 2500},
                                         {64, 64, kStep, 3, 450, 500, 3000}};
constexpr int kLarge = 0, kMiddle = 1, kSmall = 2, kGuarded = 3;  // kGuarded: rows begin anywhere

struct TensorCorePlan {
  int tile;
  int splits;
  int64_t k_range;
  double clocks;  // estimated
};

// For vectors_a and vectors_b as they are.
template <class F>
TensorCorePlan plan_tensor_cores(const Product<F>& p, int processors) {
  constexpr int64_t kMostSplits = 64;
  constexpr int64_t kFewestSteps = 4;  // of a part of k
  const bool guarded = !p.vectors_a || !p.vectors_b;
  const int64_t steps = divide_up(p.k, kStep);
  TensorCorePlan best = {};
  // Both transposed is rare: of the tiles of whole rows the small one alone has a kernel for it.
  const bool both = p.transpose_a && p.transpose_b;
  const int first = guarded ? kGuarded : both ? kSmall : kLarge;
  for (int tile = first; tile <= (guarded ? kGuarded : kSmall); tile++) {
    const TileCost& cost = kTensorCoreTiles[tile];
    const int64_t blocks = cost.blocks(p.m, p.n, p.items);
    // More blocks than twice what the card has at a time: no use in more.
    const int64_t room = int64_t{processors} * cost.resident;
    const int64_t most = blocks >= room ? 1
                                        : smaller(smaller(kMostSplits, steps / kFewestSteps),
                                                  divide_up(2 * room, blocks));
    for (int splits = 1; splits == 1 || splits <= most; splits++) {
      const int64_t steps_each = divide_up(steps, splits);
      if (splits > 1 &&
          (steps_each * (splits - 1) >= steps || splits * p.items * p.m * p.n > kMostSplitElements))
        continue;
      const double clocks =
          cost.clocks(blocks * splits, splits == 1 ? p.k : steps_each * kStep, processors) +
          splitting_clocks(splits, p.m, p.n, p.items, processors);
      if (best.clocks > 0 && clocks >= best.clocks) continue;
      best = {tile, splits, splits == 1 ? p.k : steps_each * kStep, clocks};
    }
  }
  return best;
}

template <class Tile, bool guarded>
voltaic_status launch_tensor_cores(const voltaic_call* call, const Product<bfloat16>& p,
                                   const Epilogue<bfloat16>& e) {
  const int64_t blocks =
      divide_up(p.m, Tile::kRows) * divide_up(p.n, Tile::kColumns) * p.items * p.splits;
  // Two middle blocks with four stages each need more than the 100 KB of sm_86, sm_89 and sm_120.
  const bool roomy = call->stream->most_shared_bytes >= (size_t{160} << 10);
  const int stages =
      Tile::kRows * Tile::kColumns > 64 * 64 && (Tile::kResident == 1 || roomy) ? 4 : 3;
  static_assert(WarpEpilogue<Tile>::kBytes * Tile::kThreads / 32 <= 3 * Tile::kStageBytes);
  const auto run = [&](auto kernel) {
    return launch(call, kernel, blocks_for(blocks, 1), Tile::kThreads, stages * Tile::kStageBytes,
                  p, stages, e);
  };
  if constexpr (Tile::kRows == SmallTile::kRows)
    if (p.transpose_a && p.transpose_b) return run(tensor_core_kernel<Tile, true, true, guarded>);
  if (p.transpose_a) return run(tensor_core_kernel<Tile, true, false, guarded>);
  return p.transpose_b ? run(tensor_core_kernel<Tile, false, true, guarded>)
                       : run(tensor_core_kernel<Tile, false, false, guarded>);
}

voltaic_status multiply_on_tensor_cores(const voltaic_call* call, int tile,
                                        const Product<bfloat16>& p, const Epilogue<bfloat16>& e) {
  if (tile == kGuarded) return launch_tensor_cores<SmallTile, true>(call, p, e);
  if (tile == kLarge) return launch_tensor_cores<LargeTile, false>(call, p, e);
  if (tile == kMiddle) return launch_tensor_cores<MiddleTile, false>(call, p, e);
  return launch_tensor_cores<SmallTile, false>(call, p, e);
}

}  // namespace
}  // namespace voltaic
