// The derivative of gelu, Phi(x) + x phi(x): Phi the normal distribution, phi its density.
//
// Where a permutation of 32 lanes is one instruction (AVX-512), it is piecewise: 31 polynomials of
// degree 4 over t = |x| in [0, 6.3), 1 from there on; the derivative at -t is 1 minus that at t.
// Largest error 1.4e-7. No exponential and no division: a third of the instructions. Elsewhere it
// comes from normal_tail (simd_math.h), within 2e-7.
#pragma once
#include "simd_math.h"

namespace voltaic {
namespace {

#if defined(__AVX512F__) && VOLTAIC_WIDTH == 16

// Coefficients of the pieces, made by the compiler: Taylor's polynomial of degree 6 around each
// piece's middle, in units of a piece, whose two highest terms are replaced by what is left of them
// without their Chebyshev polynomials (T5, T6 over [-1/2, 1/2]).
struct GeluGradientPieces {
  static constexpr int kPieces = 32, kDegree = 4;
  static constexpr double kWidthOfPiece = 6.5 / kPieces;
  alignas(64) float coefficients[kDegree + 1][kPieces] = {};

  static constexpr double density(double x) {
    double term = 1, sum = 1;  // e^(x^2 / 2)
    for (int i = 1; i < 120; i++) sum += term *= x * x / 2 / i;
    return 0.39894228040143267794 / sum;
  }
  static constexpr double distribution(double x) {
    double term = x, sum = x;  // x + x^3 / 3 + x^5 / (3 5) + ...
    for (int i = 1; i < 120; i++) sum += term *= x * x / (2 * i + 1);
    return 0.5 + density(x) * sum;
  }
  constexpr GeluGradientPieces() {
    for (int piece = 0; piece + 1 < kPieces; piece++) {
      const double x = (piece + 0.5) * kWidthOfPiece, phi = density(x);
      // The n-th derivative is q phi, q a polynomial: q1 = 2 - x^2, then q' - x q.
      double q[10] = {2, 0, -1}, terms[7] = {distribution(x) + x * phi};
      double factor = 1;
      for (int n = 1; n <= 6; n++) {
        factor *= kWidthOfPiece / n;
        double value = 0;
        for (int i = 9; i >= 0; i--) value = value * x + q[i];
        terms[n] = factor * value * phi;
        double next[10] = {};
        for (int i = 0; i < 9; i++) {
          next[i] += (i + 1) * q[i + 1];
          next[i + 1] -= q[i];
        }
        for (int i = 0; i < 10; i++) q[i] = next[i];
      }
      // With v = u / 2: v^6 = (48 u^4 - 18 u^2 + 1) / 2048 + ..., v^5 = (20 u^3 - 5 u) / 512 + ...
      terms[4] += terms[6] * 48 * 16 / 2048;
      terms[2] -= terms[6] * 18 * 4 / 2048;
      terms[0] += terms[6] / 2048;
      terms[3] += terms[5] * 20 * 8 / 512;
      terms[1] -= terms[5] * 5 * 2 / 512;
      for (int n = 0; n <= kDegree; n++) coefficients[n][piece] = (float)terms[n];
    }
    coefficients[0][kPieces - 1] = 1;
  }
};
constexpr GeluGradientPieces kGeluGradientPieces;

VOLTAIC_INLINE vfloat vgelu_gradient(vfloat x) {
  using Pieces = GeluGradientPieces;
  // From the middle of the first piece on, in pieces; the last piece has no end.
  const vfloat t = vmin(splat((float)(Pieces::kPieces - 0.75)),
                        fma(vabs(x), splat((float)(1 / Pieces::kWidthOfPiece)), splat(-0.5f)));
  const vfloat shifted = t + 12582912.0f;  // as in exp_in_range
  const vfloat v = t - (shifted - 12582912.0f);
  const auto coefficient = [&](int n) VOLTAIC_INLINED {
    const float* table = kGeluGradientPieces.coefficients[n];
    return (vfloat)_mm512_permutex2var_ps(_mm512_load_ps(table), (__m512i)shifted,
                                          _mm512_load_ps(table + kWidth));
  };
  vfloat y = coefficient(Pieces::kDegree);
  for (int n = Pieces::kDegree - 1; n >= 0; n--) y = fma(y, v, coefficient(n));
  return select(x < 0.0f, 1.0f - y, y);
}

#else

// With d = Q(|x|) - |x| phi(x) it is d below zero, 1 - d above.
VOLTAIC_INLINE vfloat vgelu_gradient(vfloat x) {
  const NormalTail tail = normal_tail(vabs(x));
  const vfloat d = fma(tail.t * -0.398942280f, tail.density, tail.upper);
  return select(x < 0.0f, d, 1.0f - d);
}

#endif

}  // namespace
}  // namespace voltaic
