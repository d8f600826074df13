// Permutations: y's axes in another order than x's.
//
// The plan (native/engine/rows_plan.h) collapses axes. Where y's innermost axis is x's, runs are
// copied (rows_copy.cuh). Otherwise it is a batch of transpositions of matrices, x contiguous along
// one axis of y and y along its innermost: 64 x 64 tiles go through shared memory, so that both
// sides are read and written in whole lines. Narrow types move as words of four bytes where strides
// allow. Tile rows have an odd number of words, so that reading a column meets each bank once
// (twice for pairs of bf16). Matrices of under 16 rows or columns would leave most of a tile idle:
// they are copied number by number, where the cache serves what the strides waste. Bytes: each
// number read once and written once.
#pragma once
#include "rows_copy.cuh"

namespace voltaic {
namespace {

constexpr int kTile = 64, kTransposeThreads = 256;
constexpr int64_t kNarrow = 16;

struct Transposition {
  int64_t rows, columns;       // of x: y is [columns, rows]
  int64_t x_stride, y_stride;  // between rows of each
  unsigned row_tiles, column_tiles;
  StridedAxes<2> batches;  // in x and y
};

// A tile row's length in numbers: an odd number of words, `width` numbers to a word.
template <class T>
constexpr int kTileStride = kTile + 4 / (int)sizeof(T);

template <class T, int width>
__global__ void __launch_bounds__(kTransposeThreads)
    transpose_kernel(Transposition plan, const T* x, T* y) {
  constexpr int kPacks = kTile / width;  // of a tile row
  constexpr int kSteps = kTile * kPacks / kTransposeThreads;
  DYNAMIC_SHARED(T, tile);
  const unsigned rest = blockIdx.x / plan.row_tiles, batch = rest / plan.column_tiles;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x - rest * plan.row_tiles) * kTile,
                first_column = static_cast<int64_t>(rest - batch * plan.column_tiles) * kTile;
  int64_t offsets[2];
  plan.batches.locate(batch, offsets);
  x += offsets[0] + first_row * plan.x_stride + first_column;
  y += offsets[1] + first_column * plan.y_stride + first_row;
  const int64_t rows = plan.rows - first_row, columns = plan.columns - first_column;
  const int pack = static_cast<int>(threadIdx.x) % kPacks * width,
            line = static_cast<int>(threadIdx.x) / kPacks;
  constexpr int kLines = kTransposeThreads / kPacks;
  Pack<T, width> packs[kSteps];
#pragma unroll
  for (int s = 0; s < kSteps; s++)
    if (line + s * kLines < rows && pack < columns)
      packs[s] = load_pack<T, width>(x + (line + s * kLines) * plan.x_stride + pack);
#pragma unroll
  for (int s = 0; s < kSteps; s++)
    store_pack(tile + (line + s * kLines) * kTileStride<T> + pack, packs[s]);
  __syncthreads();
#pragma unroll
  for (int s = 0; s < kSteps; s++) {
    const int column = line + s * kLines;
    if (column >= columns || pack >= rows) continue;
    Pack<T, width> out;
#pragma unroll
    for (int i = 0; i < width; i++) out.values[i] = tile[(pack + i) * kTileStride<T> + column];
    store_pack(y + column * plan.y_stride + pack, out);
  }
}

template <class T, int width>
voltaic_status launch_transpose(const voltaic_call* call, const Transposition& plan,
                                int64_t batches, const void* x, void* y) {
  return launch(call, transpose_kernel<T, width>,
                blocks_for(batches * plan.row_tiles * plan.column_tiles, 1), kTransposeThreads,
                kTile * kTileStride<T> * sizeof(T), plan, static_cast<const T*>(x),
                static_cast<T*>(y));
}

inline voltaic_status transpose(const voltaic_call* call, const Permutation& plan, int64_t size,
                                const void* x, void* y) {
  int axis = 1;
  while (plan.from[axis] != 1) axis++;
  Transposition tiles;
  tiles.rows = plan.sizes[0];
  tiles.columns = plan.sizes[axis];
  tiles.x_stride = plan.from[0];
  tiles.y_stride = plan.to[axis];
  tiles.row_tiles = static_cast<unsigned>(divide_up(tiles.rows, kTile));
  tiles.column_tiles = static_cast<unsigned>(divide_up(tiles.columns, kTile));
  int64_t batches = 1, strides = tiles.rows | tiles.columns | tiles.x_stride | tiles.y_stride;
  for (int d = 1; d < plan.rank; d++) {
    if (d == axis) continue;
    tiles.batches.add(plan.sizes[d], plan.from[d], plan.to[d]);
    batches *= plan.sizes[d];
    strides |= plan.from[d] | plan.to[d];
  }
  if (size == 4) return launch_transpose<uint32_t, 1>(call, tiles, batches, x, y);
  const bool words = (address_bits(x, y) | static_cast<uint64_t>(strides * size)) % 4 == 0;
  if (size == 2)
    return words ? launch_transpose<uint16_t, 2>(call, tiles, batches, x, y)
                 : launch_transpose<uint16_t, 1>(call, tiles, batches, x, y);
  return words ? launch_transpose<uint8_t, 4>(call, tiles, batches, x, y)
               : launch_transpose<uint8_t, 1>(call, tiles, batches, x, y);
}

inline voltaic_status permute(const voltaic_call* call) {
  Permutation plan;
  const voltaic_status status = plan_permute(call, plan);
  const int64_t elements = tensor(call, 0).elements;
  if (status != VOLTAIC_OK || elements == 0) return status;
  const int64_t size = element_size(tensor(call, 0).dtype);
  const void* x = tensor(call, 0).data;
  void* y = tensor(call, 1).data;
  const bool runs = plan.rank == 0 || plan.from[0] == 1;
  if (!runs) {
    int axis = 1;
    while (plan.from[axis] != 1) axis++;
    if (plan.sizes[0] >= kNarrow && plan.sizes[axis] >= kNarrow)
      return transpose(call, plan, size, x, y);
  }
  // Runs in the widest units, or numbers.
  const int64_t run = (runs && plan.rank > 0 ? plan.sizes[0] : 1) * size;
  uint64_t bits = address_bits(x, y) | static_cast<uint64_t>(run);
  for (int d = 1; d < plan.rank; d++) bits |= static_cast<uint64_t>(plan.from[d] * size);
  return with_unit(bits, [&]<class Unit>(Unit*) {
    constexpr int64_t unit = sizeof(Unit);
    StridedAxes<2> axes;
    if (runs) axes.add(run / unit, 1, 1);
    for (int d = runs ? 1 : 0; d < plan.rank; d++)
      axes.add(plan.sizes[d], plan.from[d] * size / unit, plan.to[d] * size / unit);
    return copy_units<Unit>(call, axes, x, y, elements * size / unit);
  });
}

}  // namespace
}  // namespace voltaic
