// Transposes of kWidth x kWidth words of 32 bits in registers, and sums and maxima of kWidth rows
// at once by way of them.
//
// log2(kWidth) steps of kWidth shuffles of two vectors: 64 shuffles for 256 words of 16 lanes. Sums
// take the tree of reduce_add (lane i with lane i + width / 2, and so on): the same bits.
#pragma once
#include "kernel.h"

namespace voltaic {
namespace {

// One step: exchanges the off-diagonal blocks of size half between rows i and i + half.
template <int half>
VOLTAIC_INLINE void exchange_halves(vfloat* rows) {
#define VOLTAIC_UPPER(j) ((j)&half ? kWidth + (j)-half : (j))
#define VOLTAIC_LOWER(j) ((j)&half ? kWidth + (j) : (j) + half)
#if VOLTAIC_WIDTH == 16
#define VOLTAIC_LANES(f)                                                                         \
  f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7), f(8), f(9), f(10), f(11), f(12), f(13), f(14), \
      f(15)
#elif VOLTAIC_WIDTH == 8
#define VOLTAIC_LANES(f) f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7)
#else
#define VOLTAIC_LANES(f) f(0), f(1), f(2), f(3)
#endif
#pragma GCC unroll 16
  for (int i = 0; i < kWidth; i++) {
    if (i & half) continue;
    const vfloat upper = rows[i], lower = rows[i + half];
    rows[i] = __builtin_shufflevector(upper, lower, VOLTAIC_LANES(VOLTAIC_UPPER));
    rows[i + half] = __builtin_shufflevector(upper, lower, VOLTAIC_LANES(VOLTAIC_LOWER));
  }
#undef VOLTAIC_LANES
#undef VOLTAIC_LOWER
#undef VOLTAIC_UPPER
}

VOLTAIC_INLINE void transpose(vfloat* rows) {
#if VOLTAIC_WIDTH == 16
  exchange_halves<8>(rows);
#endif
#if VOLTAIC_WIDTH >= 8
  exchange_halves<4>(rows);
#endif
  exchange_halves<2>(rows);
  exchange_halves<1>(rows);
}

// Lane r: the sum, or the largest, of rows[r]. The rows are overwritten.
VOLTAIC_INLINE vfloat sums_of_rows(vfloat* rows) {
  transpose(rows);
  for (int half = kWidth / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) rows[i] += rows[i + half];
  return rows[0];
}
VOLTAIC_INLINE vfloat maxima_of_rows(vfloat* rows) {
  transpose(rows);
  for (int half = kWidth / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) rows[i] = vmax(rows[i], rows[i + half]);
  return rows[0];
}

#if VOLTAIC_WIDTH == 16
// A square on its way from memory: square[w], lane r = word w of row r; rows lie stride bytes
// apart, at any address. With AVX-512 the loads do half of it: each brings four words of a row into
// a quarter of a register (the insertion runs beside shuffles), and two rounds of shuffles within
// quarters remain, 32 instead of 64.
VOLTAIC_INLINE void load_transposed(vfloat* square, const void* from, int64_t stride) {
  const char* rows = (const char*)from;
#if defined(__AVX512F__)
#pragma GCC unroll 4
  for (int words = 0; words < 16; words += 4) {
    __m512 quarters[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
      const char* row = rows + r * stride + 4 * words;
      const auto four = [&](int i) __attribute__((always_inline)) {
        return _mm_loadu_ps((const float*)(row + 4 * i * stride));
      };
      __m512 x = _mm512_castps128_ps512(four(0));
      x = _mm512_insertf32x4(x, four(1), 1);
      x = _mm512_insertf32x4(x, four(2), 2);
      quarters[r] = _mm512_insertf32x4(x, four(3), 3);
    }
    const __m512d low01 = (__m512d)_mm512_unpacklo_ps(quarters[0], quarters[1]),
                  high01 = (__m512d)_mm512_unpackhi_ps(quarters[0], quarters[1]),
                  low23 = (__m512d)_mm512_unpacklo_ps(quarters[2], quarters[3]),
                  high23 = (__m512d)_mm512_unpackhi_ps(quarters[2], quarters[3]);
    square[words] = (vfloat)_mm512_unpacklo_pd(low01, low23);
    square[words + 1] = (vfloat)_mm512_unpackhi_pd(low01, low23);
    square[words + 2] = (vfloat)_mm512_unpacklo_pd(high01, high23);
    square[words + 3] = (vfloat)_mm512_unpackhi_pd(high01, high23);
  }
#else
  for (int r = 0; r < 16; r++) memcpy(&square[r], rows + r * stride, sizeof(vfloat));
  transpose(square);
#endif
}

#endif

}  // namespace
}  // namespace voltaic
