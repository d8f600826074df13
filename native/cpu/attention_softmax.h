// The arithmetic of attention on rows of scores, kWidth rows at a time: exponentials forward, and
// probabilities with their gradients backward.
//
// Scores s are taken in units of log 2: with c = scale / log 2,
//
//   forward    largest = max c s, e = 2^(c s - largest), total = sum e
//              log_sum_exp = log 2 largest + log total
//   backward   p = 2^(c s - log_sum_exp / log 2)
//              score gradient = p (m probability_gradient - delta)
//
// One pass for the largest, one for e. What needs the lanes of one row together (largest, total,
// delta, logarithm) is done for kWidth rows in one transpose. 12 to 14 cycles for a vector of 16
// scores, forward and backward, on AVX-512 (Zen 4).
#pragma once
#include "attention_rows.h"
#include "simd_math.h"
#include "transpose.h"

namespace voltaic {
namespace {

constexpr float kLog2 = 0.693147181f, kOneByLog2 = 1.44269504f;

// 2^x for x below 127, 0 below -125: 2^n 2^r, r = x - n in [-1/2, 1/2], 2^r = 1 + r P(r) to 3.0e-9;
// 0.8 units in the last place at most, 1.1 without fused multiply-add. NaN stays; 0 gives exactly
// 1.
VOLTAIC_INLINE vfloat power_of_two(vfloat x) {
  constexpr float kP[] = {0.693147182f,   0.240226477f,   0.0555035993f,
                          0.00961850584f, 0.00133908063f, 0.000153264627f};
#if defined(__AVX512F__) && VOLTAIC_WIDTH == 16
  const vfloat n = (vfloat)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT);
  const vfloat r = x - n;
  const __mmask16 inside = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(-125.0f), _CMP_NLT_UQ);
  return (vfloat)_mm512_maskz_scalef_ps(inside, (__m512)fma(polynomial(r, kP), r, splat(1.0f)),
                                        (__m512)n);
#else
  const vfloat magic = splat(12582912.0f);  // as in vexp
  const vfloat shifted = x + magic;
  const vfloat r = x - (shifted - magic);
  const vfloat p = fma(polynomial(r, kP), r, splat(1.0f));
  const vfloat result = (vfloat)((vuint)p + ((vuint)shifted << 23));
  return select(x >= -125.0f, result, vmax(splat(0.0f), x));  // 0, or NaN
#endif
}

// Calls body(j, number of lanes that count) for the vectors of a row of length columns; all lanes
// count in all but the last.
template <class Body>
VOLTAIC_INLINE void row_vectors(int64_t length, Body&& body) {
  int64_t j = 0;
  for (; j + kWidth <= length; j += kWidth) body(j, (int64_t)kWidth);
  if (j < length) body(j, length - j);
}
VOLTAIC_INLINE vfloat first_lanes_or(int64_t lanes, vfloat x, float other) {
  return lanes < kWidth ? select(first_lanes(lanes), x, splat(other)) : x;
}

struct ScoreRows {
  const float* scores;
  int64_t stride, rows, length;  // rows: 1 to kWidth
  const uint16_t* kept;          // of the first row; nullptr: no dropout
};

// store_e(row, j, e): the numerators of the softmax, 0 where dropped and in lanes that do not
// count. Puts the sums, of dropped ones too, and the natural log_sum_exp.
template <class Store>
VOLTAIC_INLINE void exponentials(const ScoreRows& s, float scale, float* sums, float* log_sum_exp,
                                 Store&& store_e) {
  const float units = scale * kOneByLog2;
  vfloat of_rows[kWidth] = {};
  for (int64_t r = 0; r < s.rows; r++) {
    vfloat largest = splat(-kInfinity);
    row_vectors(s.length, [&](int64_t j, int64_t lanes) {
      const vfloat x = load(s.scores + r * s.stride + j) * units;
      largest = vmax(first_lanes_or(lanes, x, -kInfinity), largest);
    });
    of_rows[r] = largest;
  }
  const vfloat largest = maxima_of_rows(of_rows);
  float largest_of[kWidth];
  store(largest_of, largest);
  for (int r = 0; r < kWidth; r++) of_rows[r] = vfloat{};
  for (int64_t r = 0; r < s.rows; r++) {
    vfloat total = {};
    row_vectors(s.length, [&](int64_t j, int64_t lanes) {
      vfloat e =
          power_of_two(fma(load(s.scores + r * s.stride + j), splat(units), splat(-largest_of[r])));
      e = first_lanes_or(lanes, e, 0.0f);
      total += e;
      store_e(r, j, s.kept != nullptr ? where_kept(s.kept + r, j, e) : e);
    });
    of_rows[r] = total;
  }
  const vfloat totals = sums_of_rows(of_rows);
  store(sums, totals);
  store_partial(log_sum_exp, fma(largest, splat(kLog2), vlog(totals)), s.rows);
}

// Lane r: sum of a[i] b[i] over row r of rows (1 to kWidth).
template <class T>
inline vfloat dots_of_rows(const T* a, int64_t a_stride, const T* b, int64_t b_stride, int64_t rows,
                           int64_t size) {
  vfloat sums[kWidth] = {};
  for (int64_t r = 0; r < rows; r++)
    row_vectors(size, [&](int64_t i, int64_t lanes) {
      sums[r] = fma(load_partial(a + r * a_stride + i, lanes),
                    load_partial(b + r * b_stride + i, lanes), sums[r]);
    });
  return sums_of_rows(sums);
}

// What a row of the backward pass needs beside its scores, for kWidth rows.
struct GradientRows {
  float units, factor;  // scale / log 2; of what dropout keeps
  float log_sum_exp[kWidth], delta[kWidth];

  template <class T>
  GradientRows(const Attention& a, const float* natural, const T* context_gradient,
               const T* context, int64_t rows) {
    const int64_t width = a.heads * a.size;
    units = a.scale * kOneByLog2;
    factor = a.state != nullptr ? a.dropout.scale : 1.0f;
    // Rows that do not count have probabilities of 0.
    store(log_sum_exp, first_lanes_or(rows, load_partial(natural, rows) * kOneByLog2, kInfinity));
    store(delta, dots_of_rows(context_gradient, width, context, width, rows, a.size));
  }
};

// p where kept, not yet times factor, and the score's gradient; both 0 in lanes that do not count.
struct ScoreGradients {
  vfloat kept, of_score;
};
VOLTAIC_INLINE ScoreGradients score_gradients(const GradientRows& rows, int64_t r, vfloat score,
                                              vfloat gradient, const uint16_t* kept_words,
                                              int64_t j, int64_t lanes) {
  const vfloat p = first_lanes_or(
      lanes, power_of_two(fma(score, splat(rows.units), splat(-rows.log_sum_exp[r]))), 0.0f);
  if (kept_words == nullptr) return {p, p * (gradient - rows.delta[r])};
  const vfloat of_dropped = where_kept(kept_words, j, gradient);
  return {where_kept(kept_words, j, p),
          p * fma(of_dropped, splat(rows.factor), splat(-rows.delta[r]))};
}

// Stores a row times factor.
template <class T>
inline void store_row(T* to, const float* from, int64_t size, float factor) {
  for (int64_t i = 0; i < size; i += kWidth)
    store_partial(to + i, load(from + i) * factor, size - i);
}

}  // namespace
}  // namespace voltaic
