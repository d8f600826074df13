// Tiles of bf16 rows in shared memory for attention on tensor cores: loads, fragments, and rows
// back to global memory.
//
// A row of kSize numbers (64 or 128; a head is padded with zeros) is stored in pieces of 8, and
// piece c of row r stands in place c ^ (r % 8): the eight rows that ldmatrix reads at once, and the
// rows and pieces that a warp's accumulators are written to, then lie in different banks. Fragments
// are those of primitives.cuh; `row` is a multiple of 16 everywhere, `piece` of 2.
#pragma once
#include "attention_work.cuh"
#include "primitives.cuh"

namespace voltaic {
namespace {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kInfinityFloat = __builtin_huge_valf();

template <int kSize>
__device__ __forceinline__ int tile_at(int row, int piece) {
  return row * kSize + ((piece ^ (row & 7)) << 3);
}

// Queues the copies of `rows` rows (at most kRows) of `size` numbers, `stride` apart; zeros in the
// rest of kRows x kSize. By the whole block.
template <int kSize, int kRows, int kThreads>
__device__ __forceinline__ void load_tile(bfloat16* tile, const bfloat16* from, int64_t stride,
                                          int rows, int size, bool vectors) {
  if (vectors) {
    constexpr int kPieces = kSize / 8, kStep = kThreads / kPieces;
    static_assert(kStep % 8 == 0 && kRows % kStep == 0);
    const int piece = static_cast<int>(threadIdx.x) % kPieces;
    const int first = static_cast<int>(threadIdx.x) / kPieces;
    const bool inside = piece * 8 < size;
    const bfloat16* const at = from + first * stride + piece * 8;
    bfloat16* const to = tile + tile_at<kSize>(first, piece);
#pragma unroll
    for (int i = 0; i < kRows / kStep; i++) {
      const bool valid = inside && first + i * kStep < rows;
      copy_async_16(to + i * kStep * kSize, valid ? at + i * kStep * stride : from, valid ? 16 : 0);
    }
    return;
  }
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kSize; i += kThreads) {
    const int row = i / kSize, column = i % kSize;
    bfloat16 value = {0};
    if (row < rows && column < size) value = from[row * stride + column];
    tile[tile_at<kSize>(row, column / 8) + column % 8] = value;
  }
}

__device__ __forceinline__ int lane_number() { return static_cast<int>(threadIdx.x) % 32; }

// Where a lane's row of the four 8 x 8 matrices starts: the second matrix below the first, or
// beside it.
template <int kSize>
__device__ __forceinline__ const bfloat16* second_below(const bfloat16* tile, int row, int piece) {
  const int lane = lane_number();
  return tile + tile_at<kSize>(row + (lane & 15), piece + (lane >> 4));
}
template <int kSize>
__device__ __forceinline__ const bfloat16* second_beside(const bfloat16* tile, int row, int piece) {
  const int lane = lane_number();
  return tile + tile_at<kSize>(row + (lane & 7) + (lane >> 4 << 3), piece + (lane >> 3 & 1));
}

// The left operand: 16 rows, and 16 columns from `piece`; transposed: 16 of the tile's columns from
// `piece` as the operand's rows, 16 rows as its columns.
template <int kSize>
__device__ __forceinline__ void left_fragment(uint32_t (&a)[4], const bfloat16* tile, int row,
                                              int piece) {
  load_matrices(a, second_below<kSize>(tile, row, piece));
}
template <int kSize>
__device__ __forceinline__ void left_fragment_transposed(uint32_t (&a)[4], const bfloat16* tile,
                                                         int row, int piece) {
  load_matrices_transposed(a, second_beside<kSize>(tile, row, piece));
}
// The right operands of two products side by side, {b[0], b[1]} and {b[2], b[3]}. Of rows: tile
// rows are the operands' columns (queries times keys). Of columns: tile rows are what is summed
// over (probabilities times values).
template <int kSize>
__device__ __forceinline__ void right_of_rows(uint32_t (&b)[4], const bfloat16* tile, int row,
                                              int piece) {
  load_matrices(b, second_beside<kSize>(tile, row, piece));
}
template <int kSize>
__device__ __forceinline__ void right_of_columns(uint32_t (&b)[4], const bfloat16* tile, int row,
                                                 int piece) {
  load_matrices_transposed(b, second_below<kSize>(tile, row, piece));
}

__device__ __forceinline__ void multiply_pair(float (&left)[4], float (&right)[4],
                                              const uint32_t (&a)[4], const uint32_t (&b)[4]) {
  const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
  mma_bf16(left, a, first);
  mma_bf16(right, a, second);
}
// A pair of accumulators as the left operand of the next product.
__device__ __forceinline__ void as_left(uint32_t (&a)[4], const float (&left)[4],
                                        const float (&right)[4]) {
  a[0] = pack_bfloat16(left[0], left[1]);
  a[1] = pack_bfloat16(left[2], left[3]);
  a[2] = pack_bfloat16(right[0], right[1]);
  a[3] = pack_bfloat16(right[2], right[3]);
}

// A warp's accumulators of rows row to row + 15, columns from `piece` on, times a factor for each
// of the lane's two rows, rounded, into a tile.
template <int kSize, int kBlocks>
__device__ __forceinline__ void put_accumulators(bfloat16* tile, int row, int piece,
                                                 const float (&sums)[kBlocks][4], float low,
                                                 float high) {
  const int group = lane_number() / 4, pair = lane_number() % 4;
#pragma unroll
  for (int n = 0; n < kBlocks; n++) {
    bfloat16* const at = tile + tile_at<kSize>(row + group, piece + n) + 2 * pair;
    *reinterpret_cast<uint32_t*>(at) = pack_bfloat16(sums[n][0] * low, sums[n][1] * low);
    *reinterpret_cast<uint32_t*>(at + 8 * kSize) =
        pack_bfloat16(sums[n][2] * high, sums[n][3] * high);
  }
}
// Stores rows row to row + kRows - 1 of a tile, columns 8 piece to 8 (piece + kPieces) - 1, of
// which `rows` rows and `size` columns exist. By one warp; `to` is row `row`, column 0.
template <int kSize, int kRows, int kPieces>
__device__ __forceinline__ void store_rows(bfloat16* to, int64_t stride, const bfloat16* tile,
                                           int row, int piece, int rows, int size, bool vectors) {
  if (vectors) {
    constexpr int kStep = 32 / kPieces;
    const int own = piece + lane_number() % kPieces, first = lane_number() / kPieces;
#pragma unroll
    for (int i = 0; i < kRows / kStep; i++) {
      const int r = first + i * kStep;
      if (r < rows && own * 8 < size)
        store_pack(to + r * stride + own * 8, load_pack(tile + tile_at<kSize>(row + r, own)));
    }
    return;
  }
#pragma unroll 1
  for (int i = lane_number(); i < kRows * kPieces * 8; i += 32) {
    const int r = i / (kPieces * 8), column = piece * 8 + i % (kPieces * 8);
    if (r < rows && column < size)
      to[r * stride + column] = tile[tile_at<kSize>(row + r, column / 8) + column % 8];
  }
}

}  // namespace
}  // namespace voltaic
