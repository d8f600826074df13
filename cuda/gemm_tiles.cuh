// Sizes that both product kernels share: the product, which block computes which tile, and the
// host's estimate of a launch's time, by which it picks tile and split.
#pragma once
#include "kernel.cuh"

namespace voltaic {
namespace {

// The same code takes more registers for sm_100 and later: where a kernel's blocks a processor
// would make it spill, it promises one fewer there.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kFewerBlocks = 1;
#else
constexpr int kFewerBlocks = 0;
#endif

// op(a) [m, k] times op(b) [k, n] for each item of a batch, row-major. k is cut into `splits`
// ranges of k_range each, one a block: each leaves a product of its own.
template <class F>
struct Product {
  int64_t m, n, k;
  bool transpose_a, transpose_b;
  int64_t items, stride_a, stride_b;
  const F *a, *b;
  // From one row to the next. What a row has beyond its own elements is zero.
  int64_t leading_a, leading_b;
  int64_t k_range;
  int splits;
  bool vectors_a, vectors_b;  // rows begin at multiples of the kernel's widest load

  // As the kernel table has them: without anything between rows.
  void pack_rows() {
    leading_a = transpose_a ? m : k;
    leading_b = transpose_b ? k : n;
  }
  // Sets vectors_a and vectors_b for loads of `elements` neighbours.
  void find_vectors(int64_t elements) {
    const auto whole_rows = [&](const F* data, int64_t leading, int64_t stride) {
      return reinterpret_cast<uintptr_t>(data) % (elements * sizeof(F)) == 0 &&
             leading % elements == 0 && (items == 1 || stride % elements == 0);
    };
    vectors_a = whole_rows(a, leading_a, stride_a);
    vectors_b = whole_rows(b, leading_b, stride_b);
  }
};

// Which tile of which item and split a block computes. Tiles go down kTileGroup rows of tiles
// before they go right, so that the blocks on the card at a time share rows of a and columns of b
// in L2.
constexpr unsigned kTileGroup = 8;
struct TilePlace {
  unsigned row, column;
  unsigned tile_rows;  // of an item
  unsigned item, split;
};
__device__ __forceinline__ TilePlace tile_place(int64_t m, int64_t n, int tile_rows,
                                                int tile_columns, int64_t items) {
  TilePlace place;
  place.tile_rows = static_cast<unsigned>((m + tile_rows - 1) / tile_rows);
  const unsigned columns = static_cast<unsigned>((n + tile_columns - 1) / tile_columns);
  const unsigned tiles = place.tile_rows * columns, in_group = kTileGroup * columns;
  const unsigned of_item = blockIdx.x / tiles, tile = blockIdx.x - of_item * tiles;
  place.split = of_item / static_cast<unsigned>(items);
  place.item = of_item - place.split * static_cast<unsigned>(items);
  const unsigned group = tile / in_group, first = group * kTileGroup;
  const unsigned height =
      place.tile_rows - first < kTileGroup ? place.tile_rows - first : kTileGroup;
  const unsigned within = tile - group * in_group;
  place.column = within / height;
  place.row = first + (within - place.column * height);
  return place;
}

// A tile size's cost in clocks, estimated: `busy` is a step's time for a processor that has enough
// to do, `alone` the least a single block needs for it, `ends` what comes before and after the
// steps.
struct TileCost {
  int rows, columns, step, resident;
  double busy, alone, ends;

  int64_t blocks(int64_t m, int64_t n, int64_t items) const {
    return divide_up(m, rows) * divide_up(n, columns) * items;
  }
  double clocks(int64_t blocks, int64_t k, int processors) const {
    const double steps = static_cast<double>(divide_up(k, step));
    const auto wave = [&](int64_t on_each) {
      return ends + steps * (on_each * busy > alone ? on_each * busy : alone);
    };
    const int64_t most = static_cast<int64_t>(processors) * resident, rest = blocks % most;
    return static_cast<double>(blocks / most) * wave(resident) +
           (rest > 0 ? wave(divide_up(rest, processors)) : 0.0);
  }
};
constexpr double kLaunchClocks = 4000;  // of a further kernel
// The second kernel that adds `splits` products up: its launch, and their way through L2 and back.
inline double splitting_clocks(int splits, int64_t m, int64_t n, int64_t items, int processors) {
  constexpr double kBytesPerClock = 16;
  return splits == 1 ? 0.0
                     : kLaunchClocks + 8.0 * splits * static_cast<double>(items * m * n) /
                                           (kBytesPerClock * processors);
}
constexpr int64_t kMostSplitElements = int64_t{1} << 26;  // 256 MB of fp32

}  // namespace
}  // namespace voltaic
