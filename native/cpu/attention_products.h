// The fp32 block products of attention: packing of a head's rows, and C (+)= A B on register tiles.
//
// B is packed into panels of kPanel columns, panel after panel, each [depth, kPanel]: the inner
// loop reads it as one stream. A is read one number at a time (broadcast), so it may lie in any
// order, transposed too. A tile of C has kRows x kPanel numbers in registers: 6 x 2 vectors (of 16
// registers) or 12 x 2 (of 32) leave room for B and the broadcast. Products go over the depth in
// blocks of 256, so that a panel stays in L1 while all rows pass it. Every number of C is one chain
// of multiply-adds over the depth: it depends on its row, its column and the depth alone, not on
// its place. Sizes are rounded up to whole tiles; callers give buffers that hold them, and zeros
// where padding would count.
#pragma once
#include "ragged.h"

namespace voltaic {
namespace {

constexpr int64_t kPanel = 2 * kWidth;
constexpr int64_t kRows = kWidth == 16 ? 12 : 6;
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

template <bool accumulate>
VOLTAIC_INLINE void product_tile(const float* a, int64_t row_stride, int64_t depth_stride,
                                 const float* b, int64_t b_stride, int64_t depth, float* c,
                                 int64_t c_stride) {
  vfloat sums[kRows][2] = {};
  for (int64_t k = 0; k < depth; k++) {
    const vfloat b0 = load(b), b1 = load(b + kWidth);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; r++) {
      const vfloat x = splat(a[r * row_stride]);
      sums[r][0] = fma(x, b0, sums[r][0]);
      sums[r][1] = fma(x, b1, sums[r][1]);
    }
    a += depth_stride;
    b += b_stride;
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; r++) {
    float* row = c + r * c_stride;
    store(row, accumulate ? load(row) + sums[r][0] : sums[r][0]);
    store(row + kWidth, accumulate ? load(row + kWidth) + sums[r][1] : sums[r][1]);
  }
}

// c[rows][columns] (+)= a[rows][depth] b[depth][columns]
template <bool accumulate>
inline void block_product(APanel a, BPanel b, int64_t rows, int64_t columns, int64_t depth,
                          float* c, int64_t c_stride) {
  for (int64_t k = 0; k < depth || k == 0; k += kDepthBlock) {
    const int64_t count = smaller(depth - k, kDepthBlock);
    for (int64_t panel = 0; panel * kPanel < columns; panel++) {
      const float* from = b.data + panel * b.panel_stride + k * b.depth_stride;
      for (int64_t row = 0; row < rows; row += kRows) {
        const float* left = a.data + row * a.row_stride + k * a.depth_stride;
        float* to = c + row * c_stride + panel * kPanel;
        if (accumulate || k > 0) {
          product_tile<true>(left, a.row_stride, a.depth_stride, from, b.depth_stride, count, to,
                             c_stride);
        } else {
          product_tile<false>(left, a.row_stride, a.depth_stride, from, b.depth_stride, count, to,
                              c_stride);
        }
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

#if defined(__SSE2__)
VOLTAIC_INLINE __m128 load_four(const float* from) { return _mm_loadu_ps(from); }
VOLTAIC_INLINE __m128 load_four(const bfloat16* from) {
  const __m128i halves = _mm_loadl_epi64((const __m128i*)from);
  return _mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), halves));
}
#endif

// Panels of b = the rows transposed: [ceil(count / kPanel)][size][kPanel], zeros beyond count.
template <class T>
inline void pack_transposed_as_panels(float* to, const T* from, int64_t stride, int64_t count,
                                      int64_t size) {
  for (int64_t first = 0; first < count; first += kPanel, to += size * kPanel) {
    const int64_t columns = smaller(kPanel, count - first);
    if (columns < kPanel) memset(to, 0, (size_t)(size * kPanel) * sizeof(float));
    for (int64_t column = 0; column < columns; column += 4) {
      const T* rows = from + (first + column) * stride;
      const int64_t width = smaller(4, columns - column);
      int64_t k = 0;
#if defined(__SSE2__)
      for (; width == 4 && k + 4 <= size; k += 4) {
        __m128 r0 = load_four(rows + k), r1 = load_four(rows + stride + k);
        __m128 r2 = load_four(rows + 2 * stride + k), r3 = load_four(rows + 3 * stride + k);
        _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
        float* at = to + k * kPanel + column;
        _mm_storeu_ps(at, r0);
        _mm_storeu_ps(at + kPanel, r1);
        _mm_storeu_ps(at + 2 * kPanel, r2);
        _mm_storeu_ps(at + 3 * kPanel, r3);
      }
#endif
      for (; k < size; k++)
        for (int64_t i = 0; i < width; i++)
          to[k * kPanel + column + i] = to_float(rows[i * stride + k]);
    }
  }
}

}  // namespace
}  // namespace voltaic
