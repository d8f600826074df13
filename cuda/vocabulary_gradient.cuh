// The gradient of the vocabulary's cross-entropy, of a tile. The arrays are taken as flat: a thread
// has chunks of 8 neighbours, loaded and stored 16 bytes at once wherever rows begin. A chunk that
// reaches into the next row looks its elements up one by one.
#pragma once
#include "loss_mean.cuh"

namespace voltaic {
namespace {

constexpr int kGradientThreads = 256;
constexpr int kGradientChunk = 8;
constexpr int kGradientChunks = 2;
constexpr int kGradientBlock = kGradientThreads * kGradientChunk * kGradientChunks;

struct GradientTile {
  int32_t first;
  uint32_t columns;
  int64_t vocabulary;

  // Of a target among the columns, or kIgnored; any other is no column's number.
  __device__ __forceinline__ int32_t place(int32_t target) const {
    if (target == kIgnored) return kIgnored;
    return target >= first ? target - first : 0x7fffffff;
  }
};

// What a row's elements need of it. target: its place in the tile.
struct GradientRow {
  int32_t target;
  float shift;

  // scale (exp(x - log_sum_exp) - one-hot), where the element is the row's number `column`.
  __device__ __forceinline__ float gradient(float x, uint32_t column, float scale) const {
    const float probability = expf(x - shift);
    const bool of_target = column == static_cast<uint32_t>(target);
    return (of_target ? probability - 1.0f : probability) * scale;
  }
};

// logits and gradient may be the same memory: a thread's elements are its own.
template <class T>
__global__ void __launch_bounds__(kGradientThreads)
    vocabulary_gradient(const float* loss_gradient, const float* logits, const int32_t* targets,
                        const float* log_sum_exp, const int32_t* counts, T* gradient, int64_t rows,
                        GradientTile tile, bool aligned, IndexCheck check) {
  const uint32_t columns = tile.columns;
  const int64_t total = rows * columns;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kGradientBlock;
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * kGradientThreads + threadIdx.x; row < rows;
       row += static_cast<int64_t>(gridDim.x) * kGradientThreads)
    if (targets[row] != kIgnored) in_range(check, row, targets[row], 0, tile.vocabulary - 1);
  if (total == 0) return;

  // The block's first row and column; a 64-bit division takes long where a 32-bit one will do.
  int64_t first_row;
  uint32_t first_column;
  if (total <= 0xffffffffll) {
    first_row = static_cast<uint32_t>(begin) / columns;
    first_column = static_cast<uint32_t>(begin) % columns;
  } else {
    first_row = begin / columns;
    first_column = static_cast<uint32_t>(begin % columns);
  }

  float x[kGradientChunks][kGradientChunk];
  GradientRow of_first[kGradientChunks];  // of the row of the chunk's first element
  int64_t row[kGradientChunks];
  uint32_t column[kGradientChunks];
#pragma unroll
  for (int c = 0; c < kGradientChunks; c++) {
    const uint32_t local = (c * kGradientThreads + threadIdx.x) * kGradientChunk;
    const int64_t at = begin + local;
    if (at >= total) break;
    row[c] = first_row + (first_column + local) / columns;
    column[c] = (first_column + local) % columns;
    of_first[c] = {tile.place(targets[row[c]]), log_sum_exp[row[c]]};
  }
#pragma unroll
  for (int c = 0; c < kGradientChunks; c++) {
    const int64_t at = begin + (c * kGradientThreads + threadIdx.x) * kGradientChunk;
    if (at >= total) break;
    // Ignored rows are not read.
    if (of_first[c].target == kIgnored && column[c] + kGradientChunk <= columns) continue;
    if (aligned && at + kGradientChunk <= total) {
#pragma unroll
      for (int i = 0; i < kGradientChunk; i += 4) {
        const auto pack = load_pack(logits + at + i);
#pragma unroll
        for (int j = 0; j < 4; j++) x[c][i + j] = pack.values[j];
      }
    } else {
#pragma unroll
      for (int i = 0; i < kGradientChunk; i++) x[c][i] = at + i < total ? logits[at + i] : 0.0f;
    }
  }
  // Not before: the division would hold the loads up.
  const float scale = counts[0] > 0 ? loss_gradient[0] / static_cast<float>(counts[0]) : 0.0f;
#pragma unroll
  for (int c = 0; c < kGradientChunks; c++) {
    const uint32_t local = (c * kGradientThreads + threadIdx.x) * kGradientChunk;
    const int64_t at = begin + local;
    if (at >= total) break;
    T results[kGradientChunk];
    if (column[c] + kGradientChunk <= columns) {
#pragma unroll
      for (int i = 0; i < kGradientChunk; i++)
        results[i] = from_float<T>(of_first[c].target == kIgnored
                                       ? 0.0f
                                       : of_first[c].gradient(x[c][i], column[c] + i, scale));
    } else {
#pragma unroll
      for (int i = 0; i < kGradientChunk; i++) {
        const int64_t its_row = row[c] + (column[c] + i) / columns;
        const uint32_t its_column = (column[c] + i) % columns;
        float result = 0.0f;
        if (its_row < rows && targets[its_row] != kIgnored)
          result = GradientRow{tile.place(targets[its_row]), log_sum_exp[its_row]}.gradient(
              x[c][i], its_column, scale);
        results[i] = from_float<T>(result);
      }
    }
    if (aligned && at + kGradientChunk <= total) {
      constexpr int kPack = 16 / sizeof(T);
#pragma unroll
      for (int i = 0; i < kGradientChunk; i += kPack) {
        Pack<T> pack;
#pragma unroll
        for (int j = 0; j < kPack; j++) pack.values[j] = results[i + j];
        store_pack(gradient + at + i, pack);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kGradientChunk; i++)
        if (at + i < total) gradient[at + i] = results[i];
    }
  }
}

}  // namespace
}  // namespace voltaic
