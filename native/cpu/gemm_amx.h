// The bf16 kernel on AMX tiles: blocks of 32 x 32, four tiles of sums fed by two of a and two of b,
// so that each tile loaded (8 cycles) serves two products (16 cycles each).
//
// b is packed in pairs of k (amx_tiles.h). Whole panels of a plain a are read from the matrix
// itself: its rows of 64 bytes are tile rows already, and packing them costs a tenth of the time
// the products take. A panel of depth kDepth is 32 KiB.
//
// The epilogue of a tile runs between the steps of the next one (gemm_blocks.h): on an Emerald
// Rapids, two threads, it took GELU's rows from 3.7 and 6.7 ms to 3.2 and 3.0 (4096x1024x256,
// forward and gradient). docs/performance.md has what else was tried.
#pragma once
#include "amx_tiles.h"
#ifdef VOLTAIC_TILES

namespace voltaic {
namespace {

struct TileKernel {
  static constexpr int kRows = 2 * kTileRows, kColumns = 2 * kTileRows;
  static constexpr int64_t kDepth = 512;
  static constexpr int64_t kRowBlock = 256;
  static constexpr int64_t kFlopsPerNanosecond = 1500;
  static constexpr bool kWritesResults = false;
  static constexpr bool kOverlapsEpilogue = true;
  static constexpr bool kSquareBlocks = true;
  static constexpr int64_t kPackingSteps = kTileDepth;
  using Packed = bfloat16;

  struct PanelA {
    const bfloat16* data;
    int64_t stride, step, lower;
  };
  struct PanelB {
    const bfloat16* data;
  };

  static int64_t padded_depth(int64_t depth) { return divide_up(depth, kTileDepth) * kTileDepth; }

  static void pack_a(bfloat16* to, const bfloat16* a, int64_t stride, bool transposed, int rows,
                     int64_t depth) {
    for (int64_t k = 0; k < depth; k += kTileDepth)
      for (int half = 0; half < 2; half++, to += kTileElements) {
        const int held = rows - half * kTileRows, steps = (int)smaller(kTileDepth, depth - k);
        if (transposed) {
          if (half == 0) prefetch_rows(a + (k + 2 * kTileDepth) * stride, stride);
          pack_rows_transposed(to, a + k * stride + half * kTileRows, stride, held, steps);
        } else {
          pack_rows(to, a + half * kTileRows * stride + k, stride, held, steps);
        }
      }
  }
  static void pack_b(bfloat16* to, const bfloat16* b, int64_t stride, bool transposed, int columns,
                     int64_t depth) {
    for (int64_t k = 0; k < depth; k += kTileDepth)
      for (int half = 0; half < 2; half++, to += kTileElements) {
        const int held = columns - half * kTileRows, steps = (int)smaller(kTileDepth, depth - k);
        if (transposed) {
          pack_pairs_transposed(to, b + half * kTileRows * stride + k, stride, steps, held);
        } else {
          if (half == 0) prefetch_rows(b + (k + 2 * kTileDepth) * stride, stride);
          pack_pairs(to, b + k * stride + half * kTileRows, stride, steps, held);
        }
      }
  }
  // Asks for what 32 rows to come, far apart in memory, hold of a panel.
  static void prefetch_rows(const bfloat16* from, int64_t stride) {
    for (int i = 0; i < kTileDepth; i++) __builtin_prefetch(from + i * stride);
  }
  static PanelA packed_a(const bfloat16* panel) {
    return {panel, kTileDepth, 2 * kTileElements, kTileElements};
  }
  static PanelB packed_b(const bfloat16* panel) { return {panel}; }

  static bool reads_a(const bfloat16*, bool transposed, int rows, int64_t depth, int64_t, int64_t,
                      bool) {
    return !transposed && rows == kRows && depth % kTileDepth == 0;
  }
  static PanelA direct_a(const bfloat16* a, int64_t stride, bool) {
    return {a, stride, kTileDepth, kTileRows * stride};
  }
  static bool reads_b(const bfloat16*, bool, int) { return false; }
  static PanelB direct_b(const bfloat16* b, int64_t) { return {b}; }

  // part(i, of) runs for i = 0...of - 1 between the steps: work for the vector units while the
  // tiles multiply.
  template <class Part>
  void multiply_overlapped(int64_t depth, PanelA a, PanelB b, int rows, float* tile, bool keep,
                           Part&& part) {
    const int64_t steps = divide_up(depth, kTileDepth),
                  between = larger(1, divide_up(steps, kParts)), parts = divide_up(steps, between);
    int64_t next = 0, due = between - 1;
    const auto meanwhile = [&](int64_t s) VOLTAIC_INLINED {
      if (s != due && s + 1 != steps) return;
      part(next++, parts);
      due += between;
    };
    if (rows > kTileRows) {
      tile_product_2x2(tiles, tile, kColumns, a.data, a.stride, a.step, a.lower, b.data,
                       2 * kTileElements, kTileElements, steps, keep, meanwhile);
    } else {
      multiply_upper(steps, a, b.data, tile, keep, meanwhile);
    }
  }

 private:
  static constexpr int64_t kParts = 4;

  // The upper 16 rows alone.
  template <class Meanwhile>
  void multiply_upper(int64_t steps, PanelA a, const bfloat16* b, float* tile, bool keep,
                      Meanwhile&& meanwhile) {
    if (keep) {
      tiles.load<0>(tile, 4 * kColumns);
      tiles.load<1>(tile + kTileRows, 4 * kColumns);
    } else {
      tiles.zero<0>();
      tiles.zero<1>();
    }
    for (int64_t s = 0; s < steps; s++, b += 2 * kTileElements) {
      tiles.load<4>(a.data + s * a.step, 2 * a.stride);
      tiles.load<6>(b, 64);
      tiles.dot<0, 4, 6>();
      tiles.load<7>(b + kTileElements, 64);
      tiles.dot<1, 4, 7>();
      meanwhile(s);
    }
    tiles.store<0>(tile, 4 * kColumns);
    tiles.store<1>(tile + kTileRows, 4 * kColumns);
  }

  Tiles tiles;
};

}  // namespace
}  // namespace voltaic
#endif
