// A square of 16 x 16 words of 32 bits (fp32, or pairs of bf16), transposed on its way from memory
// to registers.
//
// square[w], lane r = word w of row r; rows lie stride bytes apart, at any address. With AVX-512
// the loads do half of it: each brings four words of a row into a quarter of a register (the
// insertion runs beside shuffles), and two rounds of shuffles within quarters remain, 32 instead of
// the 64 that transposing in registers takes.
#pragma once
#include "gemm_pack.h"
#if VOLTAIC_WIDTH == 16

namespace voltaic {
namespace {

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
  transpose_square(square);
#endif
}

}  // namespace
}  // namespace voltaic
#endif
