// The fp32 block products of attention: packing of a head's rows, and C (+)= A B on register tiles.
//
// B is packed into panels of kPanel columns, panel after panel, each [depth, kPanel]: the inner
// loop reads it as one stream. A is read one number at a time (broadcast), so it may lie in any
// order, transposed too. A tile of C has kRows x kPanel numbers in registers: 6 x 2 vectors of 16
// registers, 8 x 2 of 32 (12 x 2 is no faster and leaves tiles half empty: 128 is no multiple of
// 12). Products go over the depth in blocks of 256, so that a panel stays in L1 while all rows pass
// it. Every number of C is one chain of multiply-adds over the depth: it depends on its row, its
// column and the depth alone, not on its place. Sizes are rounded up to whole tiles; callers give
// buffers that hold them, and zeros where padding would count.
#pragma once
#include "ragged.h"
#include "transpose.h"

namespace voltaic {
namespace {

constexpr int64_t kPanel = 2 * kWidth;
constexpr int64_t kRows = kWidth == 16 ? 8 : 6;
constexpr int64_t kDepthBlock = 256;

VOLTAIC_INLINE int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

struct APanel {  // number (row, k) is at data[row * row_stride + k * depth_stride]
  const float* data;
  int64_t row_stride, depth_stride;
};
struct BPanel {  // row k of panel p starts at data + p * panel_stride + k * depth_stride
  const float* data;
  int64_t panel_stride, depth_stride;
};

template <int vectors, bool accumulate>
VOLTAIC_INLINE void product_tile(const float* a, int64_t row_stride, int64_t depth_stride,
                                 const float* b, int64_t b_stride, int64_t depth, float* c,
                                 int64_t c_stride) {
  vfloat sums[kRows][vectors] = {};
  for (int64_t k = 0; k < depth; k++) {
    vfloat right[vectors];
    for (int v = 0; v < vectors; v++) right[v] = load(b + v * kWidth);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++) {
      const vfloat x = splat(a[r * row_stride]);
      for (int v = 0; v < vectors; v++) sums[r][v] = fma(x, right[v], sums[r][v]);
    }
    a += depth_stride;
    b += b_stride;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++)
    for (int v = 0; v < vectors; v++) {
      float* to = c + r * c_stride + v * kWidth;
      store(to, accumulate ? load(to) + sums[r][v] : sums[r][v]);
    }
}

template <int vectors, bool accumulate>
inline void product_panel(const float* a, int64_t row_stride, int64_t depth_stride, const float* b,
                          int64_t b_stride, int64_t rows, int64_t depth, float* c,
                          int64_t c_stride) {
  for (int64_t row = 0; row < rows; row += kRows)
    product_tile<vectors, accumulate>(a + row * row_stride, row_stride, depth_stride, b, b_stride,
                                      depth, c + row * c_stride, c_stride);
}

// c[rows][columns] (+)= a[rows][depth] b[depth][columns]. Half a panel where only that is needed.
template <bool accumulate>
inline void block_product(APanel a, BPanel b, int64_t rows, int64_t columns, int64_t depth,
                          float* c, int64_t c_stride) {
  for (int64_t k = 0; k < depth || k == 0; k += kDepthBlock) {
    const int64_t count = smaller(depth - k, kDepthBlock);
    for (int64_t column = 0; column < columns; column += kPanel) {
      const float* left = a.data + k * a.depth_stride;
      const float* right = b.data + column / kPanel * b.panel_stride + k * b.depth_stride;
      const bool narrow = columns - column <= kWidth;
      if (accumulate || k > 0) {
        if (narrow) {
          product_panel<1, true>(left, a.row_stride, a.depth_stride, right, b.depth_stride, rows,
                                 count, c + column, c_stride);
        } else {
          product_panel<2, true>(left, a.row_stride, a.depth_stride, right, b.depth_stride, rows,
                                 count, c + column, c_stride);
        }
      } else if (narrow) {
        product_panel<1, false>(left, a.row_stride, a.depth_stride, right, b.depth_stride, rows,
                                count, c + column, c_stride);
      } else {
        product_panel<2, false>(left, a.row_stride, a.depth_stride, right, b.depth_stride, rows,
                                count, c + column, c_stride);
      }
    }
  }
}

// Copies rows [count][size], stride apart, times factor, to fp32 rows of to_stride with zeros up to
// it, and zero rows up to padded_count.
template <class T>
inline void copy_rows(float* to, int64_t to_stride, int64_t padded_count, const T* from,
                      int64_t stride, int64_t count, int64_t size, float factor) {
  for (int64_t row = 0; row < count; row++)
    for (int64_t column = 0; column < to_stride; column += kWidth)
      store(to + row * to_stride + column,
            load_partial(from + row * stride + column, size - column) * factor);
  if (padded_count > count)
    memset(to + count * to_stride, 0, (size_t)((padded_count - count) * to_stride) * sizeof(float));
}

// Panels of b = the rows: [ceil(size / kPanel)][count][kPanel], zeros beyond size.
template <class T>
inline void pack_rows_as_panels(float* to, const T* from, int64_t stride, int64_t count,
                                int64_t size) {
  for (int64_t column = 0; column < size; column += kPanel)
    for (int64_t row = 0; row < count; row++, to += kPanel) {
      const T* at = from + row * stride + column;
      store(to, load_partial(at, size - column));
      store(to + kWidth, load_partial(at + kWidth, size - column - kWidth));
    }
}

// Panels of b = the rows transposed: [ceil(count / kPanel)][size][kPanel], zeros beyond count.
template <class T>
inline void pack_transposed_as_panels(float* to, const T* from, int64_t stride, int64_t count,
                                      int64_t size) {
  for (int64_t first = 0; first < count; first += kPanel, to += size * kPanel)
    for (int64_t half = 0; half < kPanel; half += kWidth)
      for (int64_t k = 0; k < size; k += kWidth) {
        vfloat words[kWidth];
        for (int64_t r = 0; r < kWidth; r++) {
          const int64_t row = first + half + r;
          words[r] = row < count ? load_partial(from + row * stride + k, size - k) : vfloat{};
        }
        transpose(words);
        for (int64_t i = 0; i < smaller(size - k, kWidth); i++)
          store(to + (k + i) * kPanel + half, words[i]);
      }
}

}  // namespace
}  // namespace voltaic
