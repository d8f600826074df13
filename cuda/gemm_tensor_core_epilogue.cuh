// How the sums of tensor_core_kernel (gemm_tensor_core.cuh) leave a warp's registers: as the tensor
// cores spread them over lanes they would move in pieces of 8 bytes.
#pragma once
#include "gemm_epilogue.cuh"

namespace voltaic {
namespace {

// A warp's sums, 16 rows at a time through its own piece of shared memory, so that a lane has four
// neighbouring columns and the warp stores whole lines. The sums move up by 16 rows a turn:
// registers have no index, and an unrolled loop would repeat the activation functions.
template <class Tile>
struct WarpEpilogue {
  static constexpr int kDown = Tile::kWarpRows / 16, kAcross = Tile::kWarpColumns / 8;
  static constexpr int kLanesInRow = Tile::kWarpColumns / 4, kRowsAtOnce = 32 / kLanesInRow;
  static constexpr int kTurns = 16 / kRowsAtOnce;
  static constexpr int kSumBytes = 16 * Tile::kWarpColumns * 4;
  static constexpr int kAheadBytes = 16 * Tile::kWarpColumns * 2;
  static constexpr int kBytes = kSumBytes + kAheadBytes;

  // Chunk of four sums in row r: at chunk ^ 2 (r % 4), which keeps banks apart both ways.
  static __device__ __forceinline__ int place(int row, int chunk) {
    return row * Tile::kWarpColumns + (chunk ^ (row % 4 * 2)) * 4;
  }

  // Returns the lane's share of its columns' sums.
  static __device__ __forceinline__ void run(const Epilogue<bfloat16>& e, unsigned char* shared,
                                             float (&sums)[kDown][kAcross][4], int64_t first_row,
                                             int64_t m, int64_t first_column,
                                             float (&column_sums)[4]) {
    float* const stage = reinterpret_cast<float*>(shared);
    auto* const ahead_stage = reinterpret_cast<Pack<bfloat16, 4>*>(shared + kSumBytes);
    const int lane = threadIdx.x % 32, group = lane / 4, pair = lane % 4;
    const int row_of_lane = lane / kLanesInRow, chunk = lane % kLanesInRow;
    const int64_t column = first_column + chunk * 4;
    const int held = e.n - column < 4 ? static_cast<int>(e.n - column) : 4;
    // What the epilogue reads of memory, 16 rows ahead where it can be read by fours.
    const bool saved_ahead = e.kind == kActivationGradient && e.vector == 4;
    const bool c_ahead = !saved_ahead && e.beta != 0.0f && !e.float_output && e.vector == 4;
    const bfloat16* const ahead = saved_ahead ? e.saved : static_cast<const bfloat16*>(e.c);
    const bool reads_ahead = saved_ahead || c_ahead;
    Pack<bfloat16, 4> coming[kTurns] = {};
    const auto fetch = [&](int64_t row) {
#pragma unroll
      for (int i = 0; i < kTurns; i++)
        if (row + i * kRowsAtOnce < m && held > 0)
          coming[i] = load_pack<bfloat16, 4>(ahead + (row + i * kRowsAtOnce) * e.n + column);
    };
    float bias[4];
    load_bias(e, column, held, bias);
    if (reads_ahead) fetch(first_row + row_of_lane);
#pragma unroll 1
    for (int down = 0; down < kDown; down++) {
      const int64_t rows = first_row + down * 16;
#pragma unroll
      for (int j = 0; j < kAcross; j++) {
        const int at = place(group, 2 * j + pair / 2) + pair % 2 * 2;
        *reinterpret_cast<float2*>(stage + at) = make_float2(sums[0][j][0], sums[0][j][1]);
        *reinterpret_cast<float2*>(stage + at + 8 * Tile::kWarpColumns) =
            make_float2(sums[0][j][2], sums[0][j][3]);
      }
#pragma unroll
      for (int i = 0; i + 1 < kDown; i++)
#pragma unroll
        for (int j = 0; j < kAcross; j++)
#pragma unroll
          for (int l = 0; l < 4; l++) sums[i][j][l] = sums[i + 1][j][l];
      if (reads_ahead) {
#pragma unroll
        for (int i = 0; i < kTurns; i++) ahead_stage[i * 32 + lane] = coming[i];
        if (down + 1 < kDown) fetch(rows + 16 + row_of_lane);
      }
      __syncwarp();
#pragma unroll 1
      for (int turn = 0; turn < kTurns; turn++) {
        const int local_row = turn * kRowsAtOnce + row_of_lane;
        const int64_t row = rows + local_row, at = row * e.n + column;
        if (row >= m || held <= 0) break;
        const auto four = load_pack<float, 4>(stage + place(local_row, chunk));
        float x[4], c[4] = {}, saved[4] = {};
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = four.values[i];
        if (reads_ahead) load_four(ahead_stage[turn * 32 + lane].values, 4, 4, saved);
        if (c_ahead) {
#pragma unroll
          for (int i = 0; i < 4; i++) c[i] = saved[i];
        } else if (e.beta != 0.0f) {
          load_c(e, at, held, c);
        }
        if (e.kind == kActivationGradient && !saved_ahead)
          load_four(e.saved + at, held, e.vector, saved);
        finish_four(e, at, held, bias, c, saved, x);
#pragma unroll
        for (int i = 0; i < 4; i++) column_sums[i] += x[i];
      }
      __syncwarp();
    }
  }
};

}  // namespace
}  // namespace voltaic
