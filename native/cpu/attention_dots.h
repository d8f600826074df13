// Attention's bf16 products by dots of bf16 pairs (vdpbf16ps), for attention_pairs.h: c (+)= a b on
// register tiles of 8 x 32: 16 chains of dots, more than the instruction's latency of 6 cycles, for
// 10 loads of a and b a step.
#pragma once
#include "bf16_dots.h"
#if defined(VOLTAIC_DOTS)
#include "kernel.h"

namespace voltaic {
namespace {

struct DotProducts {
  static constexpr int64_t kRowUnit = 8, kDepthUnit = 2;

  // c[rows][columns] (+)= a[rows][depth] b. Pair p of columns 16 g to 16 g + 15 is at b + g *
  // b_group + p * b_pair. Rows are rounded up to 8, columns to 16, the depth to 2.
  void multiply(float* c, int64_t c_stride, const bfloat16* a, int64_t a_stride, const bfloat16* b,
                int64_t b_group, int64_t b_pair, int64_t rows, int64_t columns, int64_t depth,
                bool keep) {
    const int64_t pairs = divide_up(depth, 2);
    for (int64_t column = 0; column < columns; column += 32)
      for (int64_t row = 0; row < rows; row += kRowUnit) {
        float* to = c + row * c_stride + column;
        const bfloat16 *left = a + row * a_stride, *right = b + column / 16 * b_group;
        if (columns - column > 16) {
          multiply_tile<2>(to, c_stride, left, a_stride, right, b_group, b_pair, pairs, keep);
        } else {
          multiply_tile<1>(to, c_stride, left, a_stride, right, b_group, b_pair, pairs, keep);
        }
      }
  }

 private:
  template <int vectors>
  static VOLTAIC_INLINE void multiply_tile(float* c, int64_t c_stride, const bfloat16* a,
                                           int64_t a_stride, const bfloat16* b, int64_t b_group,
                                           int64_t b_pair, int64_t pairs, bool keep) {
    vfloat sums[kRowUnit][vectors] = {};
    for (int64_t p = 0; p < pairs; p++, a += 2, b += b_pair) {
      vpairs right[vectors];
      for (int v = 0; v < vectors; v++) right[v] = load_pairs(b + v * b_group);
#pragma GCC unroll 8
      for (int r = 0; r < kRowUnit; r++) {
        const vpairs left = splat_pair(a + r * a_stride);
        for (int v = 0; v < vectors; v++) sums[r][v] = dot_pairs(sums[r][v], left, right[v]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRowUnit; r++)
      for (int v = 0; v < vectors; v++) {
        float* to = c + r * c_stride + 16 * v;
        store(to, keep ? load(to) + sums[r][v] : sums[r][v]);
      }
  }
};

}  // namespace
}  // namespace voltaic
#endif
