// Column sums, added to a bias's gradient: of a whole gradient (the op bias_gradient), and of the
// rows of partial sums that a product's epilogue leaves.
//
// The gradient is read once, 16 bytes a load: a block has a rectangle of rows; a thread adds up
// every row_lanes-th row of its pack of columns, with kRowsAtOnce loads under way. Lanes are added
// in order through shared memory into one row of partial sums a block, and column_sum_kernel adds
// those rows: 4 / rows per block of the traffic. Every order follows from rows and width alone.
#pragma once
#include "kernel.cuh"

namespace voltaic {
namespace {

constexpr int kColumnThreads = 256, kRowsAtOnce = 8;

// pack: neighbours a thread takes at once; 1 where width or address allow no more. column_lanes
// threads, a power of 2, lie side by side over columns.
template <class T, int pack>
__global__ void __launch_bounds__(kColumnThreads)
    partial_column_sums_kernel(const T* __restrict__ gradient, int64_t rows, int64_t width,
                               int column_lanes, int64_t rows_per_block, int64_t column_blocks,
                               float* __restrict__ partials) {
  DYNAMIC_SHARED(float, room);  // [pack][kColumnThreads]
  const int column_lane = threadIdx.x % column_lanes, row_lane = threadIdx.x / column_lanes;
  const int row_lanes = kColumnThreads / column_lanes;
  const int64_t row_block = blockIdx.x / column_blocks;
  const int64_t first_column = blockIdx.x % column_blocks * column_lanes * pack;
  const int64_t column = first_column + column_lane * pack;
  const int64_t first_row = row_block * rows_per_block;
  const int64_t end_row = rows < first_row + rows_per_block ? rows : first_row + rows_per_block;
  float sums[pack] = {};
  if (column < width) {
    const T* from = gradient + (first_row + row_lane) * width + column;
    const int64_t step = row_lanes * width;
    int64_t row = first_row + row_lane;
    for (; row + (kRowsAtOnce - 1) * row_lanes < end_row; row += kRowsAtOnce * row_lanes) {
      Pack<T, pack> loaded[kRowsAtOnce];
#pragma unroll
      for (int i = 0; i < kRowsAtOnce; i++) {
        loaded[i] = load_pack<T, pack>(from);
        from += step;
      }
#pragma unroll
      for (int i = 0; i < kRowsAtOnce; i++)
#pragma unroll
        for (int j = 0; j < pack; j++) sums[j] += to_float(loaded[i].values[j]);
    }
    for (; row < end_row; row += row_lanes) {
      const auto loaded = load_pack<T, pack>(from);
      from += step;
#pragma unroll
      for (int j = 0; j < pack; j++) sums[j] += to_float(loaded.values[j]);
    }
  }
#pragma unroll
  for (int j = 0; j < pack; j++) room[j * kColumnThreads + threadIdx.x] = sums[j];
  __syncthreads();
  for (int i = threadIdx.x; i < column_lanes * pack; i += kColumnThreads) {
    if (first_column + i >= width) break;
    const float* const lanes = room + i % pack * kColumnThreads + i / pack;
    float sum = lanes[0];
    for (int lane = 1; lane < row_lanes; lane++) sum += lanes[lane * column_lanes];
    partials[row_block * width + first_column + i] = sum;
  }
}

// sums[j] += the partial sums of column j: a warp's lanes are neighbouring columns, its warps take
// every kSumWarps-th row.
constexpr int kSumWarps = 16;
__global__ void __launch_bounds__(32 * kSumWarps)
    column_sum_kernel(const float* __restrict__ partials, int64_t rows, int64_t width,
                      float* __restrict__ sums) {
  DYNAMIC_SHARED(float, room);  // [kSumWarps][32]
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * 32 + lane;
  float sum = 0.0f;
  if (column < width) {
#pragma unroll 8
    for (int64_t row = warp; row < rows; row += kSumWarps) sum += partials[row * width + column];
  }
  room[warp * 32 + lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= width) return;
#pragma unroll
  for (int i = 1; i < kSumWarps; i++) sum += room[i * 32 + lane];
  sums[column] += sum;
}

// sums[j] += partials[0][j] + ... + partials[rows - 1][j]
inline voltaic_status add_column_partials(const voltaic_call* call, const float* partials,
                                          int64_t rows, int64_t width, float* sums) {
  return launch(call, column_sum_kernel, blocks_for(width, 32), 32 * kSumWarps,
                32 * kSumWarps * sizeof(float), partials, rows, width, sums);
}

// ---- bias_gradient[j] += sum over rows of gradient[., j]

template <class T, int pack>
voltaic_status add_column_sums(const voltaic_call* call, const T* gradient, int64_t rows,
                               int64_t width, float* sums) {
  int column_lanes = 32;
  while (column_lanes > 1 && column_lanes / 2 * pack >= width) column_lanes /= 2;
  const int64_t column_blocks = divide_up(width, column_lanes * pack);
  // About a thousand blocks fill any card; a block's own sums should stay a small part of its
  // traffic.
  constexpr int64_t kBlocks = 1024, kFewestRows = 64;
  const int64_t row_blocks =
      smaller(larger(kBlocks / column_blocks, 1), divide_up(rows, kFewestRows));
  const int64_t rows_per_block = divide_up(rows, row_blocks);
  auto* const partials =
      static_cast<float*>(cuda::scratch(call, row_blocks * width * sizeof(float)));
  if (partials == nullptr) return VOLTAIC_ERROR_OUT_OF_MEMORY;
  const voltaic_status status =
      launch(call, partial_column_sums_kernel<T, pack>, blocks_for(row_blocks * column_blocks, 1),
             kColumnThreads, pack * kColumnThreads * sizeof(float), gradient, rows, width,
             column_lanes, rows_per_block, column_blocks, partials);
  if (status != VOLTAIC_OK) return status;
  return add_column_partials(call, partials, row_blocks, width, sums);
}

template <class T>
voltaic_status bias_gradient_typed(const voltaic_call* call) {
  constexpr int kPack = 16 / sizeof(T);
  const int64_t rows = tensor(call, 0).shape[0], width = tensor(call, 0).shape[1];
  const T* gradient = data<const T>(call, 0);
  float* sums = data<float>(call, 1);
  if (rows == 0 || width == 0) return VOLTAIC_OK;
  return width % kPack == 0 && aligned_16(gradient)
             ? add_column_sums<T, kPack>(call, gradient, rows, width, sums)
             : add_column_sums<T, 1>(call, gradient, rows, width, sums);
}

voltaic_status bias_gradient(const voltaic_call* call) {
  return with_float(tensor(call, 0).dtype,
                    [&]<class T>(T*) { return bias_gradient_typed<T>(call); });
}

}  // namespace
}  // namespace voltaic
