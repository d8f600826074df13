// The fp32 microkernel: tile[kRows][kColumns] = sum over k of a[k][i] * b[k][j], from packed
// panels, with all sums in registers. bf16 inputs take it too, converted to fp32 while they are
// packed.
//
// Tile per vector width, chosen so that sums, one row of b and a broadcast fill the register file:
//   16 lanes (32 registers)  14 x 32: 28 sums, 2 of b, 1 broadcast; 32 loads for 28 multiply-adds
//    8 lanes (16 registers)   6 x 16: 12 sums, 2 of b, 1 broadcast;  8 loads for 12
//    4 lanes (16 registers)   4 x  8:  8 sums (SSE2 multiplies and adds apart and needs two more)
//    4 lanes, NEON (32)       8 x 12: 24 sums, 3 of b, 2 of a
// The depth of a panel (kDepth) keeps a panel of b, 16 to 32 KiB, in L1 while the panels of a, in
// L2, pass by. Measured on AVX2 (Zen 3: 32 KiB L1, 512 KiB L2; one thread, CPU time, other work on
// the machine): whole products reach 95 GFLOP/s; 192 rows of a at a time instead of 96 gave 5 to 10
// % on deep products, a depth of 384 nothing, fetching the next panel of b ahead 3 to 10 % where b
// comes from L3 (gemm_blocks.h). Of OpenBLAS 0.3.21's speed in the same run: 0.98 to 1.10 on
// forward and data-gradient shapes of ELECTRA-small and base, 0.90 on the vocabulary's data
// gradient, 0.85 to 0.92 on the encoder's weight gradients (a quarter of their time goes into
// packing a transposed a, whose rows lie a page apart), 1.00 to 1.10 with 32 to 128 rows. AVX-512's
// sizes are unmeasured.
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
  using Packed = float;

  // Panels as multiply takes them. Plain fp32 b with whole panels needs no packing: its rows are
  // read where they are.
  struct PanelA {
    const float* data;
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
  static PanelA packed_a(const float* panel) { return {panel}; }
  static PanelB packed_b(const float* panel) { return {panel, kColumns}; }

  // Whether panels can be read from the matrix itself.
  template <class F>
  static bool reads_a(const F*, bool, int, int64_t) {
    return false;
  }
  template <class F>
  static PanelA direct_a(const F*, int64_t) {
    return {nullptr};
  }
  static bool reads_b(const bfloat16*, bool, int) { return false; }
  static PanelB direct_b(const bfloat16*, int64_t) { return {nullptr, 0}; }
  static bool reads_b(const float*, bool transposed, int columns) {
    return !transposed && columns == kColumns;
  }
  static PanelB direct_b(const float* b, int64_t stride) { return {b, stride}; }

  // keep: tile += instead of tile =. Rows beyond the given are neither computed nor written.
  void multiply(int64_t depth, PanelA a, PanelB b, int rows, float* tile, bool keep) {
    choose_rows<kRows>(depth, a.data, b, rows, tile, keep);
  }

 private:
  template <int rows>
  static void choose_rows(int64_t depth, const float* a, PanelB b, int wanted, float* tile,
                          bool keep) {
    if constexpr (rows > 2) {
      if (wanted <= rows - 2) return choose_rows<rows - 2>(depth, a, b, wanted, tile, keep);
    } else if constexpr (rows == 2) {
      if (wanted == 1) return choose_rows<1>(depth, a, b, wanted, tile, keep);
    }
    multiply_rows<rows>(depth, a, b.data, b.stride, tile, keep);
  }

  template <int rows>
  static __attribute__((noinline)) void multiply_rows(int64_t depth, const float* a, const float* b,
                                                      int64_t b_stride, float* tile, bool keep) {
    vfloat sums[rows][kVectors] = {};
    for (int64_t k = 0; k < depth; k++, a += kRows, b += b_stride) {
      vfloat row[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) row[v] = load(b + v * kWidth);
#pragma GCC unroll 16
      for (int i = 0; i < rows; i++) {
        const vfloat x = splat(a[i]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; v++) sums[i][v] = fma(x, row[v], sums[i][v]);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) {
        float* to = tile + i * kColumns + v * kWidth;
        store(to, keep ? load(to) + sums[i][v] : sums[i][v]);
      }
  }
};

}  // namespace
}  // namespace voltaic
