// The fp32 microkernel: tile[kRows][kColumns] = sum over k of a[k][i] * b[k][j], from packed
// panels or the matrices themselves, with all sums in registers. bf16 inputs take it too, converted
// to fp32 while they are packed.
//
// Tile per vector width, chosen so that sums, one row of b and a broadcast fill the register file:
//   16 lanes (32 registers)  14 x 32: 28 sums, 2 of b, 1 broadcast; 32 loads for 28 multiply-adds
//    8 lanes (16 registers)   6 x 16: 12 sums, 2 of b, 1 broadcast;  8 loads for 12
//    4 lanes (16 registers)   4 x  8:  8 sums (SSE2 multiplies and adds apart and needs two more)
//    4 lanes, NEON (32)       8 x 12: 24 sums, 3 of b, 2 of a
// The depth of a panel (kDepth) keeps a panel of b, 16 to 32 KiB, in L1 while the panels of a, in
// L2, pass by. Measured on one Zen 4 core (32 KiB L1, 1 MiB L2; peak 117 GFLOP/s), this file's loop
// alone runs at 115 with 16 lanes; depths of 128 and 384 and blocks of 96 rows came out the same or
// lower.
//
// Packing a costs a third of a cycle an element (gemm_pack.h), its multiply-adds n / 16: where n is
// small, panels are read from the matrix itself, and where nothing else is done to the sums they
// are stored right into c. That took products 64 wide from 91 to 107 GFLOP/s (4096x64x64), from 99
// to 111 (4096x64x256); the vocabulary's data gradient from 78..86 to 89..91. Whole products,
// GFLOP/s on one thread with 16 lanes / 8 lanes / OpenBLAS 0.3.21 / oneDNN 2.6.3 in the same run:
// 4096x256x256 105 / 103 / 98 / 108; 4096x1024x256 105 / 108 / 97 / 108; weight gradients
// 1024x256x4096 97 / 91 / 97 / 97, 256x256x4096 102 / 94 / 92 / 101, 256x1024x4096 97 / 96 / 98 /
// 101; the vocabulary's 100 / 101 / 83 / 94.
//
// An element's sum is a chain of fused multiply-adds in ascending k, one chain for each kDepth, the
// chains added in order: it depends on its row of a, its column of b and k, and on nothing else.
#pragma once
#include "gemm_pack.h"

namespace voltaic {
namespace {

struct FloatKernel {
#if VOLTAIC_WIDTH == 16
  static constexpr int kRows = 14, kVectors = 2;
#elif VOLTAIC_WIDTH == 8
  static constexpr int kRows = 6, kVectors = 2;
#elif defined(__aarch64__)
  static constexpr int kRows = 8, kVectors = 3;
#else
  static constexpr int kRows = 4, kVectors = 2;
#endif
  static constexpr int kColumns = kVectors * kWidth;
  static constexpr int64_t kDepth = 256;
  static constexpr int64_t kRowBlock = 192;  // about; rows of op(a) packed at a time, in L2
  static constexpr int64_t kFlopsPerNanosecond = 6 * kWidth;  // about, for cutting work into tasks
  static constexpr bool kWritesResults = false;
  static constexpr bool kOverlapsEpilogue = false;
  static constexpr bool kSquareBlocks = false;
  // A task that needs no more columns of c than this reads a where it stands: if its rows lie this
  // close, so that the processor runs ahead from one to the next; or if no other task reads them
  // and they do not all fall into the same sets of L1.
  static constexpr int64_t kDirectColumns = 128, kDirectStride = 256, kWorstStride = 512;
  // Depth packed in one go where rows of the matrix, far apart, hold elements of many panels: rows
  // a page apart share the eight ways of one set of L1.
  static constexpr int64_t kPackingSteps = 4;
  using Packed = float;

  // Panels as multiply takes them: element i of step k stands at data[k * step + i * row] of a, at
  // data[k * stride + i] of b. One of step and row is 1. Plain fp32 needs no packing where few
  // panels of the other operand use it.
  struct PanelA {
    const float* data;
    int64_t step, row;
  };
  struct PanelB {
    const float* data;
    int64_t stride;
  };

  static int64_t padded_depth(int64_t depth) { return depth; }

  template <class F>
  static void pack_a(float* to, const F* a, int64_t stride, bool transposed, int rows,
                     int64_t depth) {
    if (transposed) {
      pack_copied<kRows>(to, a, stride, rows, depth);
    } else {
      pack_transposed<kRows>(to, a, stride, rows, depth);
    }
  }
  template <class F>
  static void pack_b(float* to, const F* b, int64_t stride, bool transposed, int columns,
                     int64_t depth) {
    if (transposed) {
      pack_transposed<kColumns>(to, b, stride, columns, depth);
    } else {
      pack_copied<kColumns>(to, b, stride, columns, depth);
    }
  }
  static PanelA packed_a(const float* panel) { return {panel, kRows, 1}; }
  static PanelB packed_b(const float* panel) { return {panel, kColumns}; }

  // Whether panels are read from the matrix itself, by a task that needs this many columns of c,
  // and is or is not the only one that reads them. An odd number of rows of a transposed a would be
  // read beyond the last.
  static bool reads_a(const bfloat16*, bool, int, int64_t, int64_t, int64_t, bool) { return false; }
  static PanelA direct_a(const bfloat16*, int64_t, bool) { return {}; }
  static bool reads_a(const float*, bool transposed, int rows, int64_t, int64_t stride,
                      int64_t columns, bool alone) {
    if (columns > kDirectColumns) return false;
    if (transposed) return stride <= kDirectStride && rows % 2 == 0;
    return stride <= kDirectStride || (alone && stride % kWorstStride != 0);
  }
  static PanelA direct_a(const float* a, int64_t stride, bool transposed) {
    return {a, transposed ? stride : 1, transposed ? 1 : stride};
  }
  static bool reads_b(const bfloat16*, bool, int) { return false; }
  static PanelB direct_b(const bfloat16*, int64_t) { return {nullptr, 0}; }
  static bool reads_b(const float*, bool transposed, int columns) {
    return !transposed && columns == kColumns;
  }
  static PanelB direct_b(const float* b, int64_t stride) { return {b, stride}; }

  // keep: tile += instead of tile =. Rows beyond the given are neither computed nor written. The
  // tile's rows are stride apart.
  void multiply(int64_t depth, PanelA a, PanelB b, int rows, float* tile, int64_t stride,
                bool keep) {
    if (a.row == 1) {
      choose_rows<kRows, true>(depth, a, b, rows, tile, stride, keep);
    } else {
      choose_rows<kRows, false>(depth, a, b, rows, tile, stride, keep);
    }
  }
  void multiply(int64_t depth, PanelA a, PanelB b, int rows, float* tile, bool keep) {
    multiply(depth, a, b, rows, tile, kColumns, keep);
  }

 private:
  template <int rows, bool adjacent>
  static void choose_rows(int64_t depth, PanelA a, PanelB b, int wanted, float* tile,
                          int64_t stride, bool keep) {
    if constexpr (rows > 2) {
      if (wanted <= rows - 2)
        return choose_rows<rows - 2, adjacent>(depth, a, b, wanted, tile, stride, keep);
    } else if constexpr (rows == 2) {
      if (wanted == 1) return choose_rows<1, adjacent>(depth, a, b, wanted, tile, stride, keep);
    }
    multiply_rows<rows, adjacent>(depth, a, b, wanted, tile, stride, keep);
  }

  // adjacent: the rows' elements for one k are. Else rows are addressed by threes from a pointer
  // of each group, so that pointers fit into registers; of an odd number of rows the last is
  // computed twice.
  template <int rows, bool adjacent>
  static __attribute__((noinline)) void multiply_rows(int64_t depth, PanelA panel, PanelB panel_b,
                                                      int wanted, float* tile, int64_t stride,
                                                      bool keep) {
    constexpr int groups = adjacent ? 1 : (rows + 2) / 3;
    const int64_t row = panel.row;
    const int64_t last = (rows - 1) % 3 * row - (wanted < rows ? row : 0);
    const float* a[groups];
    for (int i = 0; i < groups; i++) {
      a[i] = panel.data + i * 3 * row;
      if constexpr (!adjacent) asm("" : "+r"(a[i]));
    }
    const float* b = panel_b.data;
    vfloat sums[rows][kVectors] = {};
    for (int64_t k = 0; k < depth; k++, b += panel_b.stride) {
      vfloat row_of_b[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) row_of_b[v] = load(b + v * kWidth);
#pragma GCC unroll 16
      for (int i = 0; i < rows; i++) {
        const vfloat x = splat(adjacent       ? a[0][i]
                               : i + 1 < rows ? a[i / 3][i % 3 * row]
                                              : a[i / 3][last]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; v++) sums[i][v] = fma(x, row_of_b[v], sums[i][v]);
      }
#pragma GCC unroll 8
      for (int i = 0; i < groups; i++) a[i] += adjacent ? panel.step : 1;
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
      if (rows > 1 && i == rows - 1 && wanted < rows) break;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) {
        float* to = tile + i * stride + v * kWidth;
        store(to, keep ? load(to) + sums[i][v] : sums[i][v]);
      }
    }
  }
};

}  // namespace
}  // namespace voltaic
